"""Runs dbt in this process and tells what failed by test, model and file."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from flows.errors import Busy, WarehouseError
from flows.settings import PROJECT_ROOT, get_settings

PROJECT = PROJECT_ROOT / "dbt_project"
BUILT_BY_ANOTHER = "another dbt run is rebuilding the summaries"
"""How the macro `refuse_what_another_run_froze` begins."""


@dataclass(frozen=True)
class BuildSummary:
    """What a dbt build did: nodes by outcome, and the tests that only warn."""

    outcomes: Counter[str] = field(default_factory=Counter)
    warnings: tuple[str, ...] = ()


def build(selector: str, *, sync_log_id: int | None = None) -> BuildSummary:
    """Build and test what a selector of `selectors.yml` names.

    Args:
        sync_log_id: the log row that the dbt tests' rows in `sqp.data_quality_checks` belong to.

    Raises:
        Busy: another dbt run builds the summaries at the same time.
        WarehouseError: dbt could not run, or a model or test failed; it names each with the
            model it tests and its compiled file.
    """
    with _environment(WAREHOUSE_SYNC_LOG_ID=str(sync_log_id or "")):
        outcome = _invoke("build", "--selector", selector)
    results = _results(outcome, "build")
    if error := failure(results):
        raise error
    return BuildSummary(
        outcomes=Counter(str(result.status) for result in results),
        warnings=tuple(describe(result) for result in results if result.status == "warn"),
    )


@dataclass(frozen=True)
class Found:
    """What one test, or the look at one source, found; `status` as in the table of checks."""

    name: str
    of: str
    status: str
    message: str


@dataclass(frozen=True)
class Loaded(Found):
    """When a source was loaded last, against what its freshness asks for, in seconds."""

    age_seconds: float | None = None
    limit_seconds: float | None = None


STATUSES = {"pass": "passed", "warn": "warning", "fail": "failed", "error": "failed"}


def make(selector: str) -> None:
    """Build what a selector names, and leave its tests out.

    Raises:
        WarehouseError: dbt could not run, or a node failed.
    """
    outcome = _invoke(
        *("build", "--selector", selector),
        *("--exclude-resource-type", "test", "--exclude-resource-type", "unit_test"),
    )
    if error := failure(_results(outcome, "build")):
        raise error


def test(selector: str, *, sync_log_id: int | None) -> list[Found]:
    """Run the tests that a selector names: what each found.

    Raises:
        WarehouseError: dbt could not run.
    """
    with _environment(WAREHOUSE_SYNC_LOG_ID=str(sync_log_id or "")):
        outcome = _invoke("test", "--selector", selector)
    return [
        Found(
            name=result.node.name,
            of=", ".join(name.split(".")[-1] for name in result.node.depends_on.nodes),
            status=STATUSES[result.status],
            message=_first_lines(result.message or result.status),
        )
        for result in _results(outcome, "test")
        if result.status in STATUSES
    ]


def source_freshness() -> list[Loaded]:
    """When each source with a freshness was loaded last; one without any row is not looked at.

    Raises:
        WarehouseError: dbt could not run.
    """
    return [
        Loaded(
            name="loaded_in_time",
            of=f"{result.node.schema}.{result.node.name}",
            status=STATUSES[result.status],
            message=f"loaded last at {result.max_loaded_at:%Y-%m-%d %H:%M} UTC",
            age_seconds=result.age,
            limit_seconds=_seconds(result.node.freshness.warn_after),
        )
        for result in _results(_invoke("source", "freshness"), "source freshness")
        if result.status in STATUSES and hasattr(result, "max_loaded_at")
    ]


def _seconds(threshold: Any) -> float | None:
    """A freshness threshold of dbt in seconds."""
    if not threshold or not threshold.count:
        return None
    return float(timedelta(**{f"{threshold.period}s": threshold.count}).total_seconds())


def _results(outcome: Any, command: str) -> list[Any]:
    """What a command of dbt did, node by node."""
    if outcome.exception is not None:
        raise WarehouseError(
            f"dbt {command} could not run",
            _first_lines(str(outcome.exception)),
            f"run `uv run dbt {command} --project-dir dbt_project` to see all of it",
        )
    return list(getattr(outcome.result, "results", None) or [])


def failure(results: list[Any]) -> WarehouseError | None:
    """What to say of the nodes that failed; None where none did."""
    failed = [result for result in results if result.status in ("error", "fail")]
    if any(BUILT_BY_ANOTHER in str(result.message) for result in failed):
        return Busy(
            "the summaries are not built to the end",
            f"{BUILT_BY_ANOTHER} at the same time",
            "sync again when it is done: what is left is taken up",
        )
    if failed:
        return WarehouseError(
            f"dbt: {len(failed)} of {len(results)} nodes failed",
            "; ".join(describe(result) for result in failed[:5]),
            "read the compiled file, mend the data or the model, and sync again",
        )
    return None


def run_operation(macro: str) -> None:
    """Run a macro of the project.

    Raises:
        WarehouseError: dbt could not run, or the macro failed.
    """
    outcome = _invoke("run-operation", macro)
    failed = [result for result in getattr(outcome.result, "results", []) if result.message]
    if not outcome.success:
        said = str(outcome.exception or "; ".join(str(result.message) for result in failed))
        raise WarehouseError(
            f"dbt could not run {macro}",
            _first_lines(said),
            f"run `uv run dbt run-operation {macro} --project-dir dbt_project` to see all of it",
        )


def parse() -> None:
    """Let dbt write down the models, metrics and tables of the server in use.

    They go where MetricFlow reads them, also if `DBT_TARGET_PATH` names another folder.

    Raises:
        WarehouseError: dbt does not understand the project.
    """
    outcome = _invoke("parse", "--target-path", str(PROJECT / "target"))
    if not outcome.success:
        raise WarehouseError(
            "dbt could not read the project",
            _first_lines(str(outcome.exception)),
            "run `uv run dbt parse --project-dir dbt_project` to see all of it",
        )


@contextmanager
def _environment(**variables: str) -> Iterator[None]:
    """Environment variables as long as a dbt runs that reads them."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _invoke(*arguments: str) -> Any:
    from dbt.cli.main import dbtRunner

    with _environment(**get_settings().dbt_environment()):
        return dbtRunner().invoke(
            [
                *arguments,
                *("--project-dir", str(PROJECT)),
                *("--profiles-dir", str(PROJECT_ROOT)),
                *("--log-level", "none"),
                "--no-use-colors",
            ]
        )


def describe(result: Any) -> str:
    """One failed or warning node: what it is, what it tests, what it said, and its file."""
    node = result.node
    what = f"{node.resource_type} {node.name}"
    if node.resource_type in ("test", "unit_test"):
        tested = [name.split(".")[-1] for name in node.depends_on.nodes if ".model." not in name]
        what += f" on {', '.join(tested)}" if tested else ""
    compiled = getattr(node, "compiled_path", None)
    return f"{what}: {_first_lines(result.message or result.status)}" + (
        f" ({compiled})" if compiled else ""
    )


def _first_lines(text: str, lines: int = 3) -> str:
    return " ".join(line.strip() for line in text.strip().splitlines()[:lines])
