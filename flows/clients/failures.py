"""What can go wrong with a remote API: which of it passes, and what a person does about it."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from flows.errors import WarehouseError


class Failure(StrEnum):
    """Why a call has failed, one word for machines."""

    RATE_LIMITED = "rate_limited"
    SERVER_ERROR = "server_error"
    UNREACHABLE = "unreachable"
    TIMED_OUT = "timed_out"
    UNREADABLE = "unreadable_answer"
    HOST_IS_DOWN = "host_is_down"
    OUT_OF_TIME = "out_of_time"
    REFUSED = "request_refused"
    UNAUTHORISED = "unauthorised"
    FORBIDDEN = "permission_denied"
    NOT_FOUND = "not_found"
    REDIRECTED = "redirected"
    TOO_LARGE = "answer_too_large"
    WRONG_SHAPE = "wrong_shape"
    PAGINATION_LOOP = "pagination_loop"
    TOO_MANY_ROWS = "too_many_rows"
    NEEDS_REAUTHORISATION = "needs_reauthorisation"


PASSING = {
    Failure.RATE_LIMITED,
    Failure.SERVER_ERROR,
    Failure.UNREACHABLE,
    Failure.TIMED_OUT,
    Failure.UNREADABLE,
}
"""What another attempt of the same request may mend."""

LATER = "nothing to do: the next sync tries again"
REPORT = "run it again; if it stays, report it with the request id"
NEXT_STEPS = {
    Failure.RATE_LIMITED: "nothing to do: Amazon asks to wait, and the next sync does",
    Failure.SERVER_ERROR: LATER,
    Failure.UNREACHABLE: "check the network; the next sync tries again",
    Failure.TIMED_OUT: LATER,
    Failure.UNREADABLE: "check that no proxy answers in Amazon's place; the next sync tries again",
    Failure.HOST_IS_DOWN: LATER,
    Failure.OUT_OF_TIME: LATER,
    Failure.REFUSED: REPORT,
    Failure.UNAUTHORISED: "connect the account again: `warehouse connect amazon`",
    Failure.FORBIDDEN: "give the login access to it in Amazon's console, then sync again",
    Failure.NOT_FOUND: "check whether it still exists in Amazon's console",
    Failure.REDIRECTED: "check the address of the API in the settings",
    Failure.TOO_LARGE: REPORT,
    Failure.WRONG_SHAPE: "update the warehouse: Amazon has changed the form of its answer",
    Failure.PAGINATION_LOOP: REPORT,
    Failure.TOO_MANY_ROWS: REPORT,
    Failure.NEEDS_REAUTHORISATION: "connect the account again: `warehouse connect amazon`",
}
"""What a person does, unless the call knows better."""


class ApiError(WarehouseError):
    """A call of a remote API that has failed for good, or as often as was allowed.

    Attributes:
        failure: the kind.
        status: the HTTP status, where there was an answer.
        code: the error's code in the API's own words.
        request_id: what the API's support asks for.
        retry_after: seconds that the API asked to wait, clamped.
    """

    def __init__(
        self,
        failure: Failure,
        what: str,
        why: str,
        *,
        status: int | None = None,
        code: str | None = None,
        request_id: str | None = None,
        retry_after: float | None = None,
        next_step: str | None = None,
    ) -> None:
        super().__init__(what, why, next_step or NEXT_STEPS[failure])
        self.failure = failure
        self.status = status
        self.code = code
        self.request_id = request_id
        self.retry_after = retry_after

    @property
    def is_passing(self) -> bool:
        """Whether the same request may succeed later."""
        return self.failure in PASSING

    def details(self) -> dict[str, Any]:
        """The error for a log row."""
        return super().details() | {
            "failure": self.failure,
            "status": self.status,
            "code": self.code,
            "request_id": self.request_id,
        }
