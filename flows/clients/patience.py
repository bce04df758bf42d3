"""How long, how often and how much: the limits of every call, in one place."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class Patience(BaseModel):
    """The limits of one sync; times in seconds of the wall clock."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    request_seconds: float = Field(30, gt=0, description="From sending to the last byte read.")
    sync_seconds: float = Field(900, gt=0, description="All requests of a sync together.")
    token_seconds: float = Field(60, gt=0, description="A token refresh, which holds a row lock.")
    attempts: int = Field(5, ge=1, description="Of one request.")
    retry_budget: int = Field(40, ge=0, description="Retries of all requests of a sync together.")
    first_wait: float = Field(1, gt=0, description="Before the first retry; then doubled.")
    longest_wait: float = Field(60, gt=0, description="Where the API does not say how long.")
    shortest_retry_after: float = Field(1, gt=0, description="Retry-After is at least this.")
    longest_retry_after: float = Field(900, gt=0, description="Retry-After is at most this.")
    circuit_failures: int = Field(6, ge=1, description="In a row, after which a host is left be.")
    circuit_seconds: float = Field(30, gt=0, description="For so long.")
    body_bytes: int = Field(32 * 1024 * 1024, gt=0, description="Of an answer, decoded.")
    pages: int = Field(2000, ge=1, description="Of one list.")
    rows: int = Field(100_000, ge=1, description="Of one list.")
    parallel: int = Field(8, ge=1, description="Requests at a time.")
