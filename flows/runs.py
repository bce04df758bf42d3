"""What every flow has in common: its run's name, its verdict, and what it leaves on the server.

A run leaves three artifacts, each under the flow's name: what changed as a table, the verdict with
the next step as text, and, while a deployment runs it, how far it is. The truth about a run stays
in the warehouse; a Prefect server that does not answer stops nothing.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import wraps
from inspect import signature
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar, cast
from uuid import UUID

from prefect import Flow, flow, task
from prefect.artifacts import (
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)
from prefect.cache_policies import NO_CACHE
from prefect.context import FlowRunContext
from prefect.logging import get_logger
from prefect.states import Completed

from flows.alerts import after_failure
from flows.errors import ExitCode, WarehouseError
from flows.progress import Progress, is_watched, progress, watched_by
from flows.settings import TELEMETRY_OFF, get_settings

P = ParamSpec("P")
Row = Mapping[str, Any]

PARTIAL = "Partial"
"""The name of the state of a run that did what it could and left something behind."""

WORDS = {
    ExitCode.DONE: "done",
    ExitCode.PARTIAL: "partly done",
    ExitCode.BUSY: "busy elsewhere",
    ExitCode.FAILED: "failed",
    ExitCode.USAGE: "cannot run",
}


@dataclass(frozen=True)
class Story:
    """What a run tells people.

    Attributes:
        headline: what came of it, in one line.
        changes: what changed, a row a thing.
        problems: what was not right, each with `what`, `why` and `next_step`.
        pages: of the site, the ones to read on: file name and title.
    """

    headline: str
    changes: Sequence[Row] = ()
    problems: Sequence[Row] = ()
    pages: Mapping[str, str] = field(default_factory=dict)


class Report(Protocol):
    """What a flow returns."""

    @property
    def exit_code(self) -> ExitCode:
        """How it ended."""
        ...

    def story(self) -> Story:
        """What to tell of it."""
        ...


class Work(Protocol):
    """A run while it works: how long each step took, in seconds."""

    seconds: dict[str, float]

    def at(self, step: str) -> None:
        """A step begins."""
        ...


R = TypeVar("R", bound=Report)
W = TypeVar("W", bound=Work)
T = TypeVar("T")


def warehouse_flow(
    name: str, *, steps: int = 0, **hooks: Any
) -> Callable[[Callable[P, R]], Flow[P, R]]:
    """A Prefect flow whose runs tell what came of them.

    Called as a function, the flow returns its report. Run by a deployment, it first makes sure of
    the database; its state is then Completed, Partial (a kind of Completed) or Failed, as the
    report says.

    Args:
        steps: of how many steps a whole run is made; 0 where nobody waits for them.
        hooks: as `prefect.flow` takes them; a failure is counted besides.
    """
    hooks["on_failure"] = [*hooks.get("on_failure", []), after_failure]
    hooks["on_crashed"] = [*hooks.get("on_crashed", []), after_failure]

    def decorate(function: Callable[P, R]) -> Flow[P, R]:
        @wraps(function)
        def run(*args: P.args, **kwargs: P.kwargs) -> R:
            context = FlowRunContext.get()
            if context is None or context.flow_run is None:
                return function(*args, **kwargs)
            try:
                if context.flow_run.deployment_id is None:
                    report = function(*args, **kwargs)
                else:
                    _make_ready()
                    with _progress_told(name, steps):
                        report = function(*args, **kwargs)
            except Exception as error:
                _leave(name, *_broken_off(error))
                raise
            code, story = report.exit_code, report.story()
            _leave(name, code, story)
            if context.flow_run.deployment_id is None:
                return report
            return cast("R", _as_state(code, story))

        # Prefect makes a model of the parameters: their types must be types, not names of ours.
        run.__signature__ = signature(function, eval_str=True)  # type: ignore[attr-defined]
        return flow(
            name=name, flow_run_name=lambda: _run_name(name), persist_result=False, **hooks
        )(run)

    return decorate


def step(function: Callable[Concatenate[W, P], T]) -> Callable[Concatenate[W, P], T]:
    """A step of a run: a Prefect task that is noted, watched and timed."""
    name = function.__name__

    @wraps(function)
    def timed(work: W, *args: P.args, **kwargs: P.kwargs) -> T:
        work.at(name)
        progress().begin(name)
        started = time.perf_counter()
        try:
            return function(work, *args, **kwargs)
        finally:
            taken = time.perf_counter() - started
            work.seconds[name] = work.seconds.get(name, 0.0) + taken
            progress().end(name)

    as_task = task(name=name, cache_policy=NO_CACHE, persist_result=False)(timed)
    return cast("Callable[Concatenate[W, P], T]", as_task)


def _broken_off(error: Exception) -> tuple[ExitCode, Story]:
    """What to tell of a run that has no report; of a surprise its kind alone, for it may quote."""
    if isinstance(error, WarehouseError):
        return error.exit_code, Story(error.what, problems=[error.as_dict()])
    problem = {
        "what": "the run was broken off",
        "why": type(error).__name__,
        "next_step": "see the log of this run; run it by hand with --debug",
    }
    return ExitCode.FAILED, Story(problem["what"], problems=[problem])


def _run_name(name: str) -> str:
    return f"{name} {datetime.now(UTC):%Y-%m-%d %H:%M:%S}"


def _make_ready() -> None:
    """What a command does before it calls a flow."""
    from flows.warehouse.ready import ensure_ready

    os.environ.update(TELEMETRY_OFF)
    ensure_ready()


def _as_state(code: ExitCode, story: Story) -> Any:
    """A report's verdict as the state of the run.

    Raises:
        WarehouseError: it says that the run has failed.
    """
    if code is ExitCode.DONE:
        return Completed(message=story.headline)
    if code is ExitCode.PARTIAL:
        return Completed(name=PARTIAL, message=story.headline)
    first = story.problems[0] if story.problems else {}
    raise WarehouseError(
        story.headline,
        str(first.get("why", WORDS[code])),
        str(first.get("next_step", "see the artifacts of this run, and `warehouse status`")),
    )


def _leave(name: str, code: ExitCode, story: Story) -> None:
    """Leave the artifacts of a run that is over."""
    try:
        create_markdown_artifact(
            verdict_text(code, story, get_settings().site_url),
            key=f"{name}-verdict",
            description=f"{WORDS[code]}: {story.headline}",
        )
        if story.changes:
            create_table_artifact(
                [{key: _cell(value) for key, value in row.items()} for row in story.changes],
                key=f"{name}-changes",
                description=story.headline,
            )
    except Exception:
        get_logger("flows").exception("the artifacts of %s could not be left", name)


def verdict_text(code: ExitCode, story: Story, site_url: str | None) -> str:
    """The verdict, what is wrong with what to do about it, and where to read on, as Markdown."""
    lines = [f"## {WORDS[code].capitalize()}", "", _plain(story.headline)]
    for problem in story.problems:
        lines += [
            "",
            f"- **{_plain(problem['what'])}**",
            f"  - why: {_plain(problem.get('why'))}",
            f"  - next: {_plain(problem.get('next_step'))}",
        ]
    if site_url:
        pages = {"index.html": "the site", **story.pages}
        lines += ["", "Read on: " + " · ".join(f"[{pages[p]}]({site_url}/{p})" for p in pages)]
    else:
        lines += ["", "Read on: `warehouse status`, `make docs`"]
    return "\n".join(lines)


def _plain(text: object) -> str:
    """Text of others as text: nothing in it is a link, a tag or a mark."""
    marks = {ord(mark): f"\\{mark}" for mark in "\\`*_[]<>|#!"}
    return " ".join(str(text or "–").translate(marks).split())


def _cell(value: object) -> str | int | float | bool:
    if isinstance(value, int | float | bool):
        return value
    if isinstance(value, list | tuple | set):
        return ", ".join(str(each) for each in value)
    return "" if value is None else str(value)


@contextmanager
def _progress_told(name: str, steps: int) -> Iterator[None]:
    """Tell the server how far a run is, where nobody else watches it."""
    if not steps or is_watched():
        yield
        return
    with watched_by(ProgressArtifact(f"{name}-progress", steps)):
        yield


class ProgressArtifact(Progress):
    """One artifact, updated in place: so many of the steps are over, and which one is at work."""

    def __init__(self, key: str, steps: int) -> None:
        self._steps = steps
        self._over = 0
        self._rows = 0
        self._id = cast("UUID", create_progress_artifact(0, key=key, description="begun"))

    def begin(self, step: str) -> None:
        """A step begins."""
        self._rows = 0
        self._tell(step)

    def advance(self, step: str, rows: int) -> None:  # noqa: ARG002
        """Rows are told when their step is over: a request for each batch would slow the run."""
        self._rows += rows

    def end(self, step: str) -> None:
        """A step is over."""
        self._over += 1
        self._tell(f"{step}: {self._rows:,} rows" if self._rows else step)

    def _tell(self, what: str) -> None:
        done = min(100.0, 100 * self._over / self._steps)
        with suppress(Exception):
            update_progress_artifact(self._id, done, description=what)
