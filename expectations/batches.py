"""What the checks hand to Great Expectations: frames, and what their results are recorded with."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from psycopg import sql

if TYPE_CHECKING:
    import pandas as pd

NAMES = ("slice_id", "label")
"""Columns of a frame that say what a row is about; the others are measures."""


@dataclass(frozen=True)
class Batch:
    """One frame to validate, and what its results are to be recorded with.

    Attributes:
        frame: one row per thing checked, with a `label` that people know it by, and a `slice_id`
            where the things are slices in landing.
        noun: what a row of the frame is: "slice", "column".
        sync_log_id: the run that the results belong to.
        table_name: the table that they speak of.
        query: the query behind some of the frame's measures.
        metadata: what is kept with every result, such as the period type.
    """

    frame: pd.DataFrame
    noun: str
    sync_log_id: int | None
    table_name: str
    query: Callable[[Sequence[str]], sql.Composable]
    metadata: Mapping[str, Any] = field(default_factory=dict)

    @property
    def index_columns(self) -> list[str]:
        """The columns by which failing rows are told."""
        return [name for name in NAMES if name in self.frame]
