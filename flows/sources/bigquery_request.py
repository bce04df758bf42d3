"""What a user asks of a sync from BigQuery: apart from Google's libraries, which load slowly."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date


@dataclass(frozen=True)
class BigQueryRequest:
    """What the user said about a sync from BigQuery.

    Attributes:
        marketplace: of all rows; without it the setting's.
        account: of all rows; without it each row's `Client Name`.
        since, weeks: compare from this day on, or so many weeks back, instead of the window.
        accept_losses: load weeks also that lost most of their rows.
    """

    marketplace: str | None = None
    account: str | None = None
    since: date | None = None
    weeks: int | None = None
    accept_losses: bool = False
