"""The words that the tables of DSP seats take, one list each."""

from __future__ import annotations

from enum import StrEnum


class SeatsSyncStatus(StrEnum):
    """What came of one attempt to sync the seats of an account."""

    PENDING = "pending"
    IN_PROGRESS = "in_progress"
    SUCCESS = "success"
    PARTIAL = "partial"
    FAILED = "failed"


class SeatChange(StrEnum):
    """What happened to a seat."""

    NEW = "new"
    CHANGED = "changed"
    REMOVED = "removed"


LISTS: dict[str, type[StrEnum]] = {
    "app.dsp_seats_sync_log.sync_status": SeatsSyncStatus,
    "app.dsp_seats_history.change_type": SeatChange,
}
"""The columns with a list of their own; the database's CHECKs hold the same words."""
