"""The action that turns validation results into rows of `sqp.data_quality_checks`."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, fields
from decimal import Decimal
from itertools import groupby
from typing import Any, Literal

import pandas as pd
import psycopg
from great_expectations.checkpoint.actions import ActionContext, ValidationAction
from great_expectations.checkpoint.checkpoint import CheckpointResult
from great_expectations.compatibility.pydantic import PrivateAttr
from great_expectations.core.expectation_validation_result import ExpectationValidationResult
from psycopg import sql

from expectations.batches import Batch
from expectations.thresholds import MAX_LISTED_SLICES, MAX_NAMED_SLICES
from flows.errors import WarehouseError


@dataclass(frozen=True)
class CheckRow:
    """One row of `sqp.data_quality_checks`, its fields named as the columns."""

    sync_log_id: int | None
    check_type: str
    check_name: str
    check_status: Literal["passed", "failed", "warning"]
    source_value: Decimal | None
    target_value: Decimal | None
    difference: Decimal | None
    difference_pct: Decimal | None
    table_name: str
    column_name: str | None
    check_query: str
    check_message: str
    check_metadata: str


@dataclass(frozen=True)
class Recorded:
    """A written check, and why it holds slices back: reasons by slice id."""

    row: CheckRow
    held: dict[int, str]


class RecordChecks(ValidationAction):
    """Writes one row per check: an expectation, or several of one name with rising severity.

    The connection and the batch are private to the object: the action's own fields are what
    Great Expectations serialises, and neither a login nor data belongs there.
    """

    type: Literal["record_checks"] = "record_checks"
    name: str = "record_checks"

    _connection: psycopg.Connection[Any] = PrivateAttr()
    _batch: Batch = PrivateAttr()
    _recorded: list[Recorded] = PrivateAttr()

    @classmethod
    def of(
        cls, connection: psycopg.Connection[Any], batch: Batch, recorded: list[Recorded]
    ) -> RecordChecks:
        """The action that records a batch's results through a connection, without committing.

        What it writes is added to `recorded`: a checkpoint runs copies of its actions.
        """
        action = cls()
        action._connection = connection
        action._batch = batch
        action._recorded = recorded
        return action

    def run(
        self,
        checkpoint_result: CheckpointResult,
        action_context: ActionContext | None = None,  # noqa: ARG002 - the signature of an action
    ) -> dict[str, Any]:
        """Write the results; returns how many rows that made.

        Raises:
            WarehouseError: if an expectation could not be evaluated.
        """
        results = [
            result
            for validated in checkpoint_result.run_results.values()
            for result in validated.results
        ]
        checks = judge(results, self._batch)
        write_checks(self._connection, [each.row for each in checks])
        self._recorded.extend(checks)
        return {"rows_written": len(checks)}


def judge(results: Sequence[ExpectationValidationResult], batch: Batch) -> list[Recorded]:
    """Turn a batch's validation results into checks; neighbours of one name are one check."""
    outcomes = [Outcome.of(result) for result in results]
    return [
        _judge_check(list(levels), batch)
        for _, levels in groupby(outcomes, key=lambda outcome: outcome.meta["check_name"])
    ]


@dataclass(frozen=True)
class Outcome:
    """What one expectation found: the failing rows of the frame, as {column: value}."""

    severity: str
    description: str
    meta: Mapping[str, Any]
    columns: list[str]
    checked: int
    without_value: int
    failing: list[dict[str, Any]]

    @classmethod
    def of(cls, result: ExpectationValidationResult) -> Outcome:
        """Read a validation result; raises `WarehouseError` if it is none."""
        config = result.expectation_config
        assert config is not None
        if "element_count" not in result.result:
            raise WarehouseError(
                f"the expectation {config.meta['check_name']} could not be evaluated",
                _why(result.exception_info, config.type),
                "correct it in expectations/suites.py, or its measure in expectations/profile.py",
            )
        nulls_fail = config.type == "expect_column_values_to_not_be_null"
        return cls(
            severity=str(config.severity.value if config.severity else "critical"),
            description=config.description or config.meta["check_name"],
            meta=config.meta,
            columns=[
                config.kwargs[name]
                for name in ("column", "column_A", "column_B")
                if name in config.kwargs
            ],
            checked=result.result["element_count"],
            without_value=0 if nulls_fail else result.result.get("missing_count") or 0,
            failing=[] if result.success else result.result["unexpected_index_list"],
        )

    def found(self, failing: Mapping[str, Any]) -> str:
        """The measures of a failing row, as people read them."""
        return ", ".join(f"{name} = {_shown(failing.get(name))}" for name in self.columns)

    def message(self, noun: str) -> str:
        """What was found, how often, and at which first few."""
        if self.failing:
            named = [
                f"{failing['label']} ({self.found(failing)})"
                for failing in self.failing[:MAX_NAMED_SLICES]
            ]
            more = len(self.failing) - len(named)
            return (
                f"{self.description}: not so for {len(self.failing)} of {self.checked} {noun}s: "
                + ", ".join(named)
                + (f" and {more} more" if more else "")
            )
        compared = self.checked - self.without_value
        if not compared:
            return f"{self.description}: nothing to compare in any of {self.checked} {noun}s"
        rest = f"; nothing to compare in {self.without_value} more" if self.without_value else ""
        return f"{self.description}: so for all of {compared} {noun}s{rest}"


def _judge_check(levels: list[Outcome], batch: Batch) -> Recorded:
    failing = [level for level in levels if level.failing]
    critical = [level for level in failing if level.severity == "critical"]
    strictest = next((level for level in levels if level.severity == "warning"), levels[0])
    meta = strictest.meta
    columns = list(
        dict.fromkeys(
            [column for level in levels for column in level.columns]
            + [meta[side] for side in ("source", "target", "violations") if meta[side]]
        )
    )
    status: Literal["passed", "failed", "warning"] = (
        "failed" if critical else "warning" if failing else "passed"
    )
    held = {
        int(failed["slice_id"]): f"{level.description} ({level.found(failed)})"
        for level in critical
        for failed in level.failing
        if "slice_id" in failed
    }
    source, target = _sides(meta, batch.frame)
    row = CheckRow(
        sync_log_id=batch.sync_log_id,
        check_type=meta["check_type"],
        check_name=meta["check_name"],
        check_status=status,
        source_value=_decimal(source),
        target_value=_decimal(target),
        difference=None if source is None or target is None else _decimal(target - source),
        difference_pct=_decimal(_percent(source, target)),
        table_name=batch.table_name,
        column_name=meta["column_name"],
        check_query=batch.query(columns).as_string().strip(),
        check_message="; ".join(level.message(batch.noun) for level in failing or [strictest]),
        check_metadata=json.dumps(
            {
                **batch.metadata,
                "severity": [level.severity for level in levels],
                "checked": strictest.checked,
                "nothing_to_check": strictest.without_value,
                "observed": {name: _observed(batch.frame[name]) for name in strictest.columns},
                **_failing_rows(failing, batch.noun),
            },
            allow_nan=False,
        ),
    )
    return Recorded(row, held)


def _failing_rows(failing: Sequence[Outcome], noun: str) -> dict[str, Any]:
    rows = {failed["label"]: failed for level in failing for failed in level.failing}
    listed = list(rows.values())[:MAX_LISTED_SLICES]
    return {
        "failing": len(rows),
        f"failing_{noun}s": [failed["label"] for failed in listed],
        **(
            {"failing_slice_ids": [int(failed["slice_id"]) for failed in listed]}
            if any("slice_id" in failed for failed in listed)
            else {}
        ),
    }


def _sides(meta: Mapping[str, Any], frame: pd.DataFrame) -> tuple[float | None, float | None]:
    """The sums of both sides, over the rows that have both."""
    if meta["source"] is None:
        return None, None
    other = meta["target"] or meta["violations"]
    both = frame[[meta["source"], other]].dropna()
    if both.empty:
        return None, None
    source, value = (float(both[name].sum()) for name in (meta["source"], other))
    return source, value if meta["target"] else source - value


def _percent(source: float | None, target: float | None) -> float | None:
    return None if not source or target is None else 100 * abs(target - source) / source


def _observed(measure: pd.Series[Any]) -> dict[str, Any] | None:
    """The least and greatest value of a numeric measure."""
    values = measure.dropna()
    if values.empty or not pd.api.types.is_numeric_dtype(values):
        return None
    return {"least": _plain(values.min()), "greatest": _plain(values.max())}


def _plain(value: Any) -> float | str:
    """A number as JSON can hold it: infinities as text."""
    return float(value) if math.isfinite(value) else str(value)


def _decimal(value: float | None) -> Decimal | None:
    return None if value is None else Decimal(f"{value:.15g}")


def _shown(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, (int, float)) else str(value)


def _why(exception_info: Mapping[str, Any], kind: str) -> str:
    """The first message in GX's exception info, which holds one entry per metric or is one."""
    entries = [exception_info, *exception_info.values()]
    return next(
        (
            str(entry["exception_message"])
            for entry in entries
            if isinstance(entry, Mapping) and entry.get("exception_message")
        ),
        f"{kind} does not judge a column value by value",
    )


TYPES = {
    "sync_log_id": "bigint",
    "source_value": "numeric",
    "target_value": "numeric",
    "difference": "numeric",
    "difference_pct": "numeric",
    "check_metadata": "jsonb",
}

INSERT = sql.SQL(
    "insert into sqp.data_quality_checks ({columns}) select * from unnest({arrays})"
).format(
    columns=sql.SQL(", ").join(sql.Identifier(each.name) for each in fields(CheckRow)),
    arrays=sql.SQL(", ").join(
        sql.SQL("{}::{}[]").format(sql.Placeholder(), sql.SQL(TYPES.get(each.name, "text")))
        for each in fields(CheckRow)
    ),
)


def write_checks(connection: psycopg.Connection[Any], rows: Sequence[CheckRow]) -> None:
    """Insert the rows with one statement."""
    if rows:
        arrays = [list(column) for column in zip(*map(astuple, rows), strict=True)]
        connection.execute(INSERT, arrays)
