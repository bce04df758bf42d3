"""Lands deliveries: each changed slice replaced whole, each unchanged slice left alone.

What a run has read waits in the spool, by buckets of whole slices. Lanes land them side by side,
each bucket in one transaction, so that a run that dies leaves whole slices and counts that add up.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import count
from typing import Any

import psycopg
import pyarrow as pa
from psycopg.pq import TransactionStatus

from flows.sources.deliveries import Delivery, RejectedRow, SliceKey
from flows.warehouse.faults import die_here_if_asked
from flows.warehouse.lane import Lane, Plan
from flows.warehouse.refusals import Refusals
from flows.warehouse.run_log import beside_the_run
from flows.warehouse.spool import Arrival, Spool
from flows.warehouse.tally import Tally, add_to_log
from flows.warehouse.threads import share_out

LANES = 2
"""Sessions that land at the same time: two keep two cores busy, and each holds a bucket."""


class Landing:
    """Lands the rows of one run.

    Args:
        connection: the run's own. In a transaction, which other sessions cannot look into, it
            lands alone.
        deliveries: by delivery number.
        log_ids: the `sqp.sync_log.id` of each period type: the `load_id` of its rows.
        allow_older: whether a delivery may replace a slice that was delivered later.
    """

    def __init__(
        self,
        connection: psycopg.Connection[Any],
        deliveries: Sequence[Delivery],
        log_ids: Mapping[str, int],
        spool: Spool,
        *,
        allow_older: bool = False,
    ) -> None:
        self.connection = connection
        self.deliveries = deliveries
        self.log_ids = log_ids
        self.spool = spool
        self.allow_older = allow_older
        self.tallies = {period_type: Tally() for period_type in log_ids}
        self._refusals = Refusals(deliveries, log_ids)

    def refuse(self, delivery_number: int, rejected: Sequence[RejectedRow]) -> None:
        """Keep rejected rows for whoever will mend them; `land` counts them as failed."""
        self._refusals.keep(self.connection, delivery_number, rejected)

    def land(self, failed: set[int]) -> None:
        """Land everything in the spool.

        Args:
            failed: numbers of the deliveries that broke while they were read; none of their
                rows is landed.
        """
        self._count_refused(failed)
        plan = Plan(
            deliveries=self.deliveries,
            failed=failed,
            log_ids=self.log_ids,
            keys=self.spool.keys,
            winners=self._winners(failed),
            refusals=self._refusals,
            allow_older=self.allow_older,
        )
        self._ensure_partitions(plan.keys[number] for number in plan.winners)
        emptied = set(plan.winners)
        turn = threading.Lock()
        position = count()

        def land_bucket(lane: Lane, bucket: pa.Table) -> None:
            landed = lane.land(bucket)
            with turn:
                self._count(landed.tallies)
                emptied.difference_update(landed.present.tolist())
                die_here_if_asked(f"bucket_{next(position)}")

        with self._lanes(plan) as lanes:
            share_out(self.spool.buckets(), [partial(land_bucket, lane) for lane in lanes])
            self._count(lanes[0].empty(sorted(emptied)).tallies)

    @contextmanager
    def _lanes(self, plan: Plan) -> Iterator[list[Lane]]:
        """The run's own session, and for many rows others beside it."""
        is_alone = self.connection.info.transaction_status != TransactionStatus.IDLE
        beside = 0 if is_alone or not self.spool.is_large else LANES - 1
        with ExitStack() as sessions:
            connections = [self.connection] + [
                sessions.enter_context(beside_the_run()) for _ in range(beside)
            ]
            yield [Lane(connection, plan) for connection in connections]

    def _count(self, tallies: Mapping[str, Tally]) -> None:
        for period_type, tally in tallies.items():
            self.tallies[period_type].add(tally)

    def _count_refused(self, failed: set[int]) -> None:
        """Count the rows refused while parsing, of the deliveries that did not break."""
        refused: dict[str, Tally] = defaultdict(Tally)
        for period_type, rows in self._refusals.by_period_type(failed):
            refused[period_type].records["failed"] += rows
        with self.connection.transaction():
            add_to_log(self.connection, self.log_ids, refused)
        self._count(refused)

    def _winners(self, failed: set[int]) -> dict[int, Arrival]:
        """The delivery that holds for each slice: the latest that says anything usable of it.

        One that only had rows that were refused says nothing: it neither empties the slice nor
        stands in the way of an earlier one.
        """
        winners = {}
        for number, key in enumerate(self.spool.keys):
            usable = (
                *self.spool.arrivals.get(number, ()),
                *(
                    arrival
                    for arrival in self.spool.declared.get(number, ())
                    if not self._refusals.of(arrival.delivery_number, key)
                ),
            )
            if arrivals := [each for each in usable if each.delivery_number not in failed]:
                winners[number] = max(arrivals)
        return winners

    def _ensure_partitions(self, keys: Iterable[SliceKey]) -> None:
        needed = {
            (f"landing.sqp_{key.report_view}", key.period_start.replace(day=1)) for key in keys
        }
        with self.connection.transaction():
            for table, month in sorted(needed):
                self.connection.execute(
                    "select app.create_monthly_partition(%s, %s)", (table, month)
                )
