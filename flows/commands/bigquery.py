"""`warehouse publish`, and what `warehouse sync-sqp --from bigquery` asks for."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows import console
from flows.commands.options import AsJson, examples
from flows.errors import UsageError

if TYPE_CHECKING:
    from flows.sources.bigquery_request import BigQueryRequest


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
    from flows.sources.bigquery import marketplace_of
    from flows.sources.bigquery_client import connect_bigquery
    from flows.sources.bigquery_request import BigQueryRequest

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


class Destination(StrEnum):
    """Where a publication goes."""

    POSTGRES = "postgres"
    BIGQUERY = "bigquery"


def register(app: typer.Typer) -> None:
    """Add `publish` to the command line."""
    app.command(
        epilog=examples(
            "warehouse publish --to bigquery  # what landed, for dbt build --target bigquery",
            "warehouse publish  # the small summaries back into Postgres",
            "warehouse publish top_queries account_months",
        )
    )(publish)


def publish(
    summaries: Annotated[
        list[str] | None,
        typer.Argument(metavar="[SUMMARY…]", help="These alone, of those that come back."),
    ] = None,
    to: Annotated[Destination, typer.Option(help="Which way.")] = Destination.POSTGRES,
    as_json: AsJson = False,
) -> None:
    """Move tables between Postgres and the project that BIGQUERY_PROJECT names.

    To BigQuery go the deliveries in force, month by month and only where they changed, and with
    BIGQUERY_READERS set also which tenant may read which account. To Postgres
    come the small summaries that dbt built on BigQuery, for dashboards that read Postgres.
    """
    from flows.settings import get_settings
    from flows.sources.bigquery_client import connect_bigquery
    from flows.warehouse.bigquery_tables import (
        SMALL_SUMMARIES,
        publish_landing,
        publish_summaries,
    )
    from flows.warehouse.connection import connect
    from flows.warehouse.ready import ensure_ready

    wanted = summaries or list(SMALL_SUMMARIES)
    if unknown := sorted(set(wanted) - set(SMALL_SUMMARIES)):
        raise UsageError(
            f"{unknown[0]} is not among the summaries that come back",
            "only small ones do; the others are read in BigQuery",
            f"name some of {', '.join(SMALL_SUMMARIES)}",
        )
    if summaries and to is Destination.BIGQUERY:
        raise UsageError(
            "summaries go to Postgres only", "--to bigquery sends what landed", "leave them out"
        )
    client = connect_bigquery(get_settings())
    ensure_ready()
    if to is Destination.BIGQUERY:
        with connect(autocommit=True, application="warehouse publish", role="etl") as connection:
            readers = get_settings().bigquery_readers
            done = publish_landing(client, connection, with_readers=bool(readers))
    else:
        with connect(autocommit=True, application="warehouse publish", role="dbt") as connection:
            done = publish_summaries(client, connection, wanted)
    if as_json:
        console.say_json([asdict(each) for each in done])
        return
    unit = "parts loaded" if to is Destination.BIGQUERY else "rows changed"
    console.say_table(
        ("table", "rows", unit), [(each.table, f"{each.rows:,}", each.parts) for each in done]
    )
