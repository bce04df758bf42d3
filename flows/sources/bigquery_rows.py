"""Rows out of BigQuery as Arrow batches: by several streams of the Storage Read API, or REST."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any

import pyarrow as pa
from google.api_core import exceptions
from google.cloud.bigquery_storage_v1 import types

from flows.sources.bigquery_client import (
    BigQuery,
    BigQueryError,
    NotAllowed,
    estimate,
    talking_to_bigquery,
    too_dear,
)

BATCHES_AHEAD = 2
"""How many batches wait to be taken in: what bounds the memory."""

BATCH_ROWS = 16_384
"""Batches are put together to about so many rows: BigQuery sends some thousand at a time."""

POLL_SECONDS = 0.2

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Restriction:
    """Which rows to read: of each week, by its Sunday, these ASINs, or all (None).

    The Storage API knows no parameters: the text is made of days and of ASINs that fit their
    pattern, and of nothing else.
    """

    date_type: str
    weeks: Mapping[date, frozenset[str] | None]

    def sql(self) -> str:
        """The condition in GoogleSQL; the column stays bare, so that partitions are pruned."""
        return " or ".join(
            f"(`Date` >= {self._day(week)} and `Date` < {self._day(week + timedelta(weeks=1))}"
            + (f" and `Child ASIN` in ({', '.join(map(repr, sorted(asins)))})" if asins else "")
            + ")"
            for week, asins in self.weeks.items()
        )

    def _day(self, day: date) -> str:
        return {
            "DATE": f"date '{day}'",
            "DATETIME": f"datetime '{day} 00:00:00'",
            "TIMESTAMP": f"timestamp '{day} 00:00:00+00'",
        }[self.date_type]


def open_rows(
    client: BigQuery,
    restriction: Restriction,
    columns: Sequence[str],
    *,
    expected_rows: int,
    as_of: datetime | None,
    metadata: dict[str, Any],
) -> Iterator[pa.RecordBatch]:
    """The rows of a restriction, every one of them or an error.

    Args:
        expected_rows: what the fingerprints promised.
        as_of: the moment of the table that is read.
        metadata: gets what was read, which way, and its estimate.

    Raises:
        BigQueryError: the service failed, or other rows came than were promised.
    """
    # gRPC's messages lie there too: what the one has freed, the other can use, or give back.
    pool = pa.system_memory_pool()
    pa.set_memory_pool(pool)
    batches = _stored(client, restriction, columns, as_of, metadata)
    if batches is None:
        batches = _queried(client, restriction, columns, metadata)
    rows = size = 0
    for batch in _put_together(batches):
        rows += batch.num_rows
        size += batch.nbytes
        yield batch
    pool.release_unused()
    metadata |= {"rows_read": rows, "bytes_read": size}
    if rows != expected_rows:
        raise BigQueryError(
            f"{client.table} changed while it was read",
            f"{expected_rows:,} rows were promised and {rows:,} came",
            "sync again; nothing of it was loaded",
        )


def _put_together(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """The same rows in fewer batches: what each batch costs afterwards hardly grows with it."""
    waiting: list[pa.RecordBatch] = []
    for batch in batches:
        waiting.append(batch)
        if sum(each.num_rows for each in waiting) >= BATCH_ROWS:
            yield pa.concat_batches(waiting)
            waiting = []
    if waiting:
        yield pa.concat_batches(waiting)


def _stored(
    client: BigQuery,
    restriction: Restriction,
    columns: Sequence[str],
    as_of: datetime | None,
    metadata: dict[str, Any],
) -> Iterator[pa.RecordBatch] | None:
    """Rows through the Storage Read API; None where it is not to be used."""
    if client.storage is None:
        log.warning("%s is read over REST: the Storage Read API is switched off", client.table)
        return None
    project, dataset, table = client.table.split(".")
    session = types.ReadSession(
        table=f"projects/{project}/datasets/{dataset}/tables/{table}",
        data_format=types.DataFormat.ARROW,
        read_options=types.ReadSession.TableReadOptions(
            selected_fields=columns, row_restriction=restriction.sql()
        ),
        table_modifiers=types.ReadSession.TableModifiers(snapshot_time=as_of),
    )
    try:
        with talking_to_bigquery(client.table):
            session = client.storage.create_read_session(
                parent=f"projects/{client.rest.project}",
                read_session=session,
                max_stream_count=client.streams,
                retry=client.storage_retry,
                timeout=60,
            )
    except BigQueryError as error:
        is_missing = isinstance(error.__cause__, exceptions.MethodNotImplemented)
        if isinstance(error, NotAllowed) or is_missing or "non-table" in error.why:
            log.warning(
                "%s is read over REST, which is slower and costs a query: the Storage Read API"
                " is not allowed (%s)",
                client.table,
                error.why,
            )
            return None
        raise
    estimated = session.estimated_total_bytes_scanned
    if estimated > client.maximum_bytes:
        raise too_dear(
            client.table,
            f"the read would scan {estimated:,} bytes, at most {client.maximum_bytes:,} may be",
        )
    metadata |= {
        "read_through": "storage",
        "read_streams": len(session.streams),
        "read_estimated_bytes": estimated,
    }
    return _in_parallel(client, session)


def _in_parallel(client: BigQuery, session: types.ReadSession) -> Iterator[pa.RecordBatch]:
    """The batches of all streams as they come, a thread each; the first failure ends them all."""
    storage: Any = client.storage
    waiting: queue.Queue[pa.RecordBatch | BaseException | None] = queue.Queue(BATCHES_AHEAD)
    done = threading.Event()
    schema = pa.ipc.read_schema(pa.py_buffer(session.arrow_schema.serialized_schema))

    def put(item: pa.RecordBatch | BaseException | None) -> None:
        is_waiting = True
        while is_waiting and not done.is_set():
            with suppress(queue.Full):
                waiting.put(item, timeout=POLL_SECONDS)
                is_waiting = False

    def read(name: str) -> None:
        try:
            with talking_to_bigquery(client.table):
                for response in storage.read_rows(name, retry=client.storage_retry):
                    put(pa.ipc.read_record_batch(_body(response), schema))
                    if done.is_set():
                        return
            put(None)
        except BaseException as error:
            put(error)

    threads = [
        threading.Thread(target=read, args=(stream.name,), name=f"stream {number}", daemon=True)
        for number, stream in enumerate(session.streams)
    ]
    for thread in threads:
        thread.start()
    left = len(threads)
    try:
        while left:
            item = waiting.get()
            if isinstance(item, BaseException):
                raise item
            if item is None:
                left -= 1
            else:
                yield item
    finally:
        done.set()


def _body(response: types.ReadRowsResponse) -> pa.Buffer:
    return pa.py_buffer(response.arrow_record_batch.serialized_record_batch)


def _queried(
    client: BigQuery, restriction: Restriction, columns: Sequence[str], metadata: dict[str, Any]
) -> Iterator[pa.RecordBatch]:
    """Rows as the result of a query, over REST."""
    wanted = ", ".join(f"`{name}`" for name in columns)
    query = f"select {wanted} from `{client.table}` where {restriction.sql()}"  # noqa: S608 - see Restriction
    metadata |= {"read_through": "rest", "read_estimated_bytes": estimate(client, query)}
    with talking_to_bigquery(client.table):
        job = client.start(query)
        metadata["read_job_id"] = job.job_id
        yield from client.rows(job).to_arrow_iterable()
