"""Errors that a user reads: what happened, why, and what to do next; and the exit codes."""

from __future__ import annotations

from collections.abc import Iterable
from enum import IntEnum


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
        "busy": ExitCode.BUSY,
    }
    codes = {by_status[status] for status in statuses}
    return codes.pop() if len(codes) == 1 else ExitCode.PARTIAL if codes else ExitCode.DONE


class WarehouseError(Exception):
    """An expected failure, told in one line what, one why, one next step."""

    exit_code = ExitCode.FAILED

    def __init__(self, what: str, why: str, next_step: str) -> None:
        super().__init__(f"{what}: {why} → {next_step}")
        self.what = what
        self.why = why
        self.next_step = next_step

    def as_dict(self) -> dict[str, str]:
        """The three parts by name."""
        return {"what": self.what, "why": self.why, "next_step": self.next_step}


class UsageError(WarehouseError):
    """The call cannot mean anything as it stands: exit 2, nothing was touched."""

    exit_code = ExitCode.USAGE


class UnreadableDelivery(WarehouseError):
    """One file cannot be understood; the others go on (exit 3)."""

    exit_code = ExitCode.PARTIAL


class Busy(WarehouseError):
    """Another run of the same thing holds the lock: exit 75."""

    exit_code = ExitCode.BUSY
