"""Great Expectations' Data Docs of the recorded checks: the drill-down behind the quality page.

A sync keeps what its expectations found as rows of `sqp.data_quality_checks`. From these rows, and
from the suites as they stand in code, the validation results are put together again and rendered by
Great Expectations, in the site's own frame: its own pages load their styles from elsewhere, and do
not escape what was found.
"""

from __future__ import annotations

import html
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import ChoiceLoader, FileSystemLoader

from flows import numbers
from flows.site.pages import TEMPLATES, Site, formats
from flows.site.rows import Session, rows
from flows.site.verdicts import WHOLE_TABLE
from flows.warehouse.rows import Row

INDEX = "data_docs/index.html"
RUNS_SHOWN = 5
SUITES = {
    "landed_slices": "What is expected of every landed slice before it is accepted.",
    "landing_columns": "What is expected of a landing table: its columns and their types.",
    "summary_against_source": "What is expected of a summary beside its source, slice by slice.",
    "landed_against_log": "What is expected of landed rows beside those that the log counts.",
}
"""The suites of `expectations/suites.py`, in the order in which a sync runs them."""


@dataclass(frozen=True)
class Validation:
    """What one suite found in one run of one table and scope.

    Attributes:
        checks: the recorded rows by check name.
    """

    run: int
    run_id: str
    suite: str
    table_name: str
    scope: str
    checked_at: datetime
    checks: Mapping[str, Row]

    @property
    def address(self) -> str:
        """Its page, from the site's root."""
        parts = (str(self.run), self.suite, self.table_name, self.scope)
        stem = "-".join("".join(c if c.isalnum() else "_" for c in part) for part in parts if part)
        return f"data_docs/{stem}.html"

    @property
    def verdict(self) -> str:
        """The worst of its checks."""
        statuses = {check["check_status"] for check in self.checks.values()}
        return next(
            (status for status in ("failed", "warning", "passed") if status in statuses), "unknown"
        )

    def counted(self, status: str) -> int:
        """How many of its checks ended so."""
        return sum(check["check_status"] == status for check in self.checks.values())


def write_data_docs(site: Site, session: Session) -> list[Validation]:
    """Write a page for each suite, one for what each found in the newest runs, and the index."""
    validations = read_validations(session)
    for name, about in SUITES.items():
        _write_page(site, f"data_docs/{name}.html", name, about, _suite_document(name))
    for each in validations:
        title = " · ".join(part for part in (each.suite, each.table_name, each.scope) if part)
        about = "What the expectations found, as the sync recorded it."
        _write_page(site, each.address, title, about, _results_document(each), validation=each)
    site.write(INDEX, "data_docs.html", title="Data Docs", suites=SUITES, validations=validations)
    return validations


def read_validations(session: Session) -> list[Validation]:
    """What the suites found in the newest runs that checked something, newest first."""
    found = rows(
        session,
        """
        with checked as (
            select distinct on (sync_log.run_id) sync_log.run_id, sync_log.id
            from sqp.sync_log as sync_log
            where exists (
                select from sqp.data_quality_checks as checks
                where
                    checks.sync_log_id = sync_log.id
                    and checks.check_type <> all(%(others)s)
            )
            order by sync_log.run_id, sync_log.id desc
        ),

        newest as (
            select run_id, id as run
            from checked
            order by id desc
            limit %(runs)s
        )

        select
            newest.run,
            newest.run_id::text as run_id,
            checks.check_name,
            checks.check_status,
            coalesce(checks.table_name, '') as table_name,
            concat_ws(
                ' ',
                checks.check_metadata ->> 'report_view',
                lower(checks.check_metadata ->> 'period_type')
            ) as scope,
            checks.check_message,
            checks.check_metadata,
            checks.source_value,
            checks.target_value,
            checks.created_at
        from newest
        inner join sqp.sync_log as sync_log on newest.run_id = sync_log.run_id
        inner join sqp.data_quality_checks as checks on sync_log.id = checks.sync_log_id
        where checks.check_type <> all(%(others)s)
        order by newest.run desc, checks.id
        """,
        {"runs": RUNS_SHOWN, "others": list(WHOLE_TABLE)},
    )
    suite_of = {name: suite for suite in SUITES for name in _check_names(suite)}
    validations: dict[tuple[Any, ...], list[Row]] = {}
    for row in found:
        if suite := suite_of.get(row["check_name"]):  # None for what no suite has any more
            key = (row["run"], row["run_id"], suite, row["table_name"], row["scope"])
            validations.setdefault(key, []).append(row)
    return [
        Validation(
            run=key[0],
            run_id=key[1],
            suite=key[2],
            table_name=key[3],
            scope=key[4],
            checked_at=max(check["created_at"] for check in checks),
            checks={check["check_name"]: check for check in checks},
        )
        for key, checks in validations.items()
    ]


@cache
def _suite(name: str) -> Any:
    from expectations import suites

    return getattr(suites, name)()


def _check_names(suite: str) -> Iterator[str]:
    for expectation in _suite(suite).expectations:
        yield expectation.meta["check_name"]


def _suite_document(name: str) -> Any:
    from great_expectations.render import renderer

    pages: Any = renderer
    return pages.ExpectationSuitePageRenderer().render(_suite(name))


def _results_document(validation: Validation) -> Any:
    from great_expectations.core import ExpectationSuiteValidationResult
    from great_expectations.core.run_identifier import RunIdentifier
    from great_expectations.render import renderer

    results = [
        _result(expectation.configuration, validation.checks[expectation.meta["check_name"]])
        for expectation in _suite(validation.suite).expectations
        if expectation.meta["check_name"] in validation.checks
    ]
    outcome = ExpectationSuiteValidationResult(
        success=all(result.success for result in results),
        results=results,
        suite_name=validation.suite,
        meta={
            "run_id": RunIdentifier(
                run_name=validation.run_id, run_time=validation.checked_at.astimezone(UTC)
            ),
            "active_batch_definition": {},
            "batch_spec": {},
            "batch_markers": {},
        },
    )
    pages: Any = renderer
    return pages.ValidationResultsPageRenderer().render(outcome)


def _result(configuration: Any, check: Row) -> Any:
    """What an expectation found, from the row of its check: its level of the check failed or not.

    Of two levels of one check the critical one fails only where the check failed.
    """
    from great_expectations.core import ExpectationValidationResult

    metadata = check["check_metadata"] or {}
    critical = str(getattr(configuration.severity, "value", "critical")) == "critical"
    levels = metadata.get("severity", [])
    is_judged_by_another = critical and check["check_status"] == "warning" and len(levels) > 1
    success = check["check_status"] == "passed" or is_judged_by_another
    checked = int(metadata.get("checked", 0))
    failing = 0 if success else int(metadata.get("failing", 0))
    share = 100 * failing / checked if checked else 0.0
    listed: list[Any] = next(
        (metadata[name] for name in metadata if name.startswith("failing_")), []
    )
    return ExpectationValidationResult(
        success=success,
        expectation_config=configuration,
        result={
            "observed_value": html.escape(_observed(check, metadata)),
            "element_count": checked,
            "missing_count": int(metadata.get("nothing_to_check", 0)),
            "unexpected_count": failing,
            "unexpected_percent": share,
            "unexpected_percent_total": share,
            "partial_unexpected_list": []
            if success
            else [html.escape(str(label)) for label in listed],
        },
        exception_info={
            "raised_exception": False,
            "exception_message": None,
            "exception_traceback": None,
        },
        meta={},
    )


def _observed(check: Row, metadata: Mapping[str, Any]) -> str:
    """What was measured: the least and greatest value, or the message."""
    measured = [
        f"{name}: {numbers.count(found['least'])} to {numbers.count(found['greatest'])}"
        for name, found in (metadata.get("observed") or {}).items()
        if found and all(isinstance(found[end], int | float) for end in ("least", "greatest"))
    ]
    return "; ".join(measured) or str(check["check_message"] or "")


def _write_page(
    site: Site,
    address: str,
    title: str,
    about: str,
    document: Any,
    *,
    validation: Validation | None = None,
) -> Path:
    """A page of Great Expectations' sections in the site's frame, which replaces the first one."""
    sections = document.to_json_dict()["sections"][1:]
    frame = site.frame(address, title=title, own_styles_only=False)
    values = frame | {"about": about, "heading": title, "validation": validation}
    template = _view().env.get_template("expectations.html")
    return site.put(address, template.render(values | {"sections": sections}))


@cache
def _view() -> Any:
    """Great Expectations' templates for sections, ours for the page."""
    from great_expectations.render import view as views

    view: Any = vars(views)["DefaultJinjaPageView"]()
    view.env.loader = ChoiceLoader([FileSystemLoader(TEMPLATES), view.env.loader])
    view.env.filters |= formats()
    return view
