"""What `warehouse sync-sqp --from bigquery` asks for."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from flows.errors import UsageError

if TYPE_CHECKING:
    from flows.sources.bigquery import BigQueryRequest


class Source(StrEnum):
    """Where a sync reads from."""

    FILES = "files"
    BIGQUERY = "bigquery"


def request(
    paths: list[str],
    marketplace: str | None,
    account: str | None,
    since: datetime | None,
    weeks: int | None,
    accept_losses: bool,
) -> BigQueryRequest:
    """The request that the options make up; settings and clients are tried before anything runs.

    Raises:
        UsageError: the options or the settings cannot mean anything.
    """
    from flows.settings import get_settings
    from flows.sources.bigquery import BigQueryRequest, marketplace_of
    from flows.sources.bigquery_client import connect_bigquery

    if paths:
        raise UsageError(
            f"{paths[0]} cannot be read from BigQuery",
            "--from bigquery reads the table that the settings name, and no files",
            "leave out the paths, or --from bigquery",
        )
    if since and weeks:
        raise UsageError(
            "--since and --weeks were both given", "each says how far back", "give one of them"
        )
    made = BigQueryRequest(
        marketplace=marketplace,
        account=account,
        since=since.date() if since else None,
        weeks=weeks,
        accept_losses=accept_losses,
    )
    marketplace_of(made, get_settings())
    connect_bigquery(get_settings())
    return made


def refuse_options(**options: Any) -> None:
    """Refuse options that mean something for BigQuery only."""
    for name, value in options.items():
        if value:
            raise UsageError(
                f"--{name.replace('_', '-')} says nothing about files",
                "it is an option of --from bigquery",
                "leave it out, or add --from bigquery",
            )
