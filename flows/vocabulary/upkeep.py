"""The words that the warehouse's own tables take, one list each."""

from __future__ import annotations

from enum import StrEnum


class PartitionUnit(StrEnum):
    """What a partition holds."""

    MONTH = "month"
    DAY = "day"


LISTS: dict[str, type[StrEnum]] = {"app.table_policies.partition_unit": PartitionUnit}
"""The columns with a list of their own; the database's CHECKs hold the same words."""
