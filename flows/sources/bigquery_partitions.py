"""Which weeks of a table were written to since it was compared, as BigQuery's catalogue says.

A table that is partitioned by `Date` has a change time for each partition. Reading them reads no
row, so that a sync need not compare the weeks whose partitions nobody touched.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass
from datetime import date, datetime, timedelta

from google.cloud import bigquery

from flows.sources.bigquery_client import (
    BigQuery,
    NotAllowed,
    estimate,
    talking_to_bigquery,
)
from flows.sources.deliveries import PeriodType
from flows.sources.periods import period_around

PARTITION_KEY = "Date"
STREAMED = "__UNPARTITIONED__"
"""Rows that were streamed in and belong to no partition yet."""

DAY_FORMATS = {4: "%Y", 6: "%Y%m", 8: "%Y%m%d", 10: "%Y%m%d%H"}
"""How a partition's id says its first day, by the id's length."""

WEEK = timedelta(weeks=1)

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Compared:
    """What the last sync that came through knew of the table.

    Attributes:
        first_day: it compared from here on.
        is_whole: nothing was held back, so that the table was as it was loaded.
        table_modified: the table's change time before it compared.
        partitions: the change time of each partition then, by its id; None where it knew none.
        held_weeks: the weeks that it held back.
        whole_on: the day on which all of the window was compared last, row by row.
    """

    first_day: date
    is_whole: bool
    table_modified: datetime | None
    partitions: Mapping[str, str] | None
    held_weeks: Set[date]
    whole_on: date

    def holds_for(self, table_modified: datetime | None, first_day: date) -> bool:
        """Whether the table, changed last then, is from this day on as it was loaded."""
        return (
            self.is_whole
            and self.first_day <= first_day
            and table_modified is not None
            and self.table_modified == table_modified
        )


def partition_times(client: BigQuery, table: bigquery.Table) -> tuple[dict[str, str] | None, int]:
    """When each partition was written to last, by its id, and the bytes that asking takes.

    None where that says nothing of weeks: the table is not partitioned by `Date`, holds rows that
    were streamed in and have no partition yet, or its catalogue may not be read.
    """
    how = table.time_partitioning
    if how is None or how.field != PARTITION_KEY:
        return None, 0
    project, dataset, name = client.table.split(".")
    query = f"""
        select partition_id, last_modified_time
        from `{project}`.`{dataset}`.INFORMATION_SCHEMA.PARTITIONS
        where table_name = @name
    """  # noqa: S608 - project and dataset come from the settings
    parameters = [bigquery.ScalarQueryParameter("name", "STRING", name)]
    try:
        estimated = estimate(client, query, parameters)
        with talking_to_bigquery(client.table):
            job = client.start(query, parameters)
            rows = list(client.rows(job))
    except NotAllowed as error:
        log.warning(
            "%s is compared row by row: the change times of its partitions may not be read (%s)",
            client.table,
            error.why,
        )
        return None, 0
    times = {row["partition_id"]: row["last_modified_time"].isoformat() for row in rows}
    return (None if STREAMED in times else times), estimated


def weeks_written_to(now: Mapping[str, str], last: Compared, first_day: date) -> set[date]:
    """The weeks from `first_day` on that may differ from what was loaded, by their Sunday.

    Those of partitions that are new, gone or written to, those that the last sync did not compare,
    and those that it held back.
    """
    before = last.partitions or {}
    written = {week for week in last.held_weeks if week >= first_day}
    for partition in now.keys() | before.keys():
        has_moved = now.get(partition) != before.get(partition)
        written.update(
            week
            for week in _weeks_of(partition)
            if week >= first_day and (has_moved or week < last.first_day)
        )
    return written


def within(times: Mapping[str, str], first_day: date) -> dict[str, str]:
    """The partitions that hold days of the window, which are all that is worth to remember."""
    return {
        partition: time
        for partition, time in times.items()
        if any(week >= first_day for week in _weeks_of(partition))
    }


def _weeks_of(partition: str) -> Iterator[date]:
    """The weeks that a partition has days of; none for rows without a date."""
    if not partition.isdigit():
        return
    first = datetime.strptime(partition, DAY_FORMATS[len(partition)]).date()
    match len(partition):
        case 4:
            following = first.replace(year=first.year + 1)
        case 6:
            following = (first + timedelta(days=31)).replace(day=1)
        case _:
            following = first + timedelta(days=1)
    week = period_around(PeriodType.WEEK, first)[0]
    while week < following:
        yield week
        week += WEEK
