"""Runs dbt in this process and tells what failed by test, model and file."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
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
    if outcome.exception is not None:
        raise WarehouseError(
            "dbt could not build the summaries",
            _first_lines(str(outcome.exception)),
            "run `uv run dbt build --project-dir dbt_project` to see all of it",
        )
    results = list(getattr(outcome.result, "results", None) or [])
    if error := failure(results):
        raise error
    return BuildSummary(
        outcomes=Counter(str(result.status) for result in results),
        warnings=tuple(describe(result) for result in results if result.status == "warn"),
    )


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
