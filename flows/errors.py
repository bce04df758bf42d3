"""Errors that a user reads: what happened, why, and what to do next; and the exit codes."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from enum import IntEnum
from typing import Any

BUSY = "busy"
"""What came of a sync that another process was already at."""


class ExitCode(IntEnum):
    """What a command's exit status means."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    PARTIAL = 3
    BUSY = 75


def exit_code_of(statuses: Iterable[str]) -> ExitCode:
    """The one status of all syncs of a run, or PARTIAL where they differ."""
    by_status = {
        "success": ExitCode.DONE,
        "partial": ExitCode.PARTIAL,
        "failed": ExitCode.FAILED,
        BUSY: ExitCode.BUSY,
    }
    codes = {by_status[status] for status in statuses}
    return codes.pop() if len(codes) == 1 else ExitCode.PARTIAL if codes else ExitCode.DONE


class WarehouseError(Exception):
    """An expected failure, told in one line what, one why, one next step.

    Attributes:
        retry_at: from when another attempt makes sense (UTC), where that is known.
    """

    exit_code = ExitCode.FAILED
    retry_at: datetime | None = None

    def __init__(self, what: str, why: str, next_step: str) -> None:
        super().__init__(f"{what}: {why} → {next_step}")
        self.what = what
        self.why = why
        self.next_step = next_step

    def as_dict(self) -> dict[str, str]:
        """The three parts by name."""
        return {"what": self.what, "why": self.why, "next_step": self.next_step}

    def details(self) -> dict[str, Any]:
        """The error for a log row: the three parts, and what else its kind knows."""
        return dict(self.as_dict())


class UsageError(WarehouseError):
    """The call cannot mean anything as it stands: exit 2, nothing was touched."""

    exit_code = ExitCode.USAGE


class UnreadableDelivery(WarehouseError):
    """One file cannot be understood; the others go on (exit 3)."""

    exit_code = ExitCode.PARTIAL


class Busy(WarehouseError):
    """Another run of the same thing holds the lock: exit 75."""

    exit_code = ExitCode.BUSY
