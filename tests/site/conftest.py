"""A site of a small sample with hostile names in it, and a browser to look at it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest

from flows.settings import Connection, get_settings
from flows.site.build import SiteReport, build_site
from flows.site.serve import served
from flows.sources.sample import write_sample
from flows.sync_sqp import sync_sqp
from tests.conftest import cloned_database
from tests.site import browser as browsers

HOSTILE = "<img src=x onerror=alert(2)>"
UNCHECKED = "<b>nobody's</b> account"


@dataclass(frozen=True)
class Shown:
    """A site that was built, where it is served, and the database that it speaks of."""

    report: SiteReport
    address: str
    connection: psycopg.Connection[Any]

    @property
    def folder(self) -> Path:
        return self.report.folder

    def pages(self) -> list[str]:
        """Every page, from the site's root."""
        return sorted(str(path.relative_to(self.folder)) for path in self.folder.rglob("*.html"))


@pytest.fixture(scope="module")
def chromium() -> None:
    """Skips what needs a browser where there is none."""
    if not browsers.PROGRAM.exists():
        pytest.skip(browsers.MISSING)


@pytest.fixture(scope="module")
def shown(
    chromium: None,
    server: Connection,
    template: str,
    prefect_server: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Shown]:
    """A sample, synced, with rows that try to be markup; its site, served."""
    folder = tmp_path_factory.mktemp("site")
    with (
        pytest.MonkeyPatch.context() as patch,
        cloned_database(server, template, f"wh_site_{os.getpid()}", patch) as database,
        psycopg.connect(**database.libpq(), autocommit=True) as connection,
    ):
        patch.setenv("WAREHOUSE_HOME", str(folder / ".warehouse"))
        get_settings.cache_clear()
        connection.execute("set time zone 'UTC'")
        write_sample(folder / "sample", asins=3, weeks=5, queries=12, seed=7)
        sync_sqp([str(folder / "sample")])
        plant_hostile_rows(connection)
        report = build_site(folder / "site")
        with served(report.folder) as address:
            yield Shown(report, address, connection)
    get_settings.cache_clear()


def plant_hostile_rows(connection: psycopg.Connection[Any]) -> None:
    """A refused row, a failed check and an account whose texts are markup."""
    [(load,)] = connection.execute("select max(id) from sqp.sync_log").fetchall()
    connection.execute(
        """
        insert into landing.rejected_rows (
            reject_digest, load_id, account_id, report_view, period_type, source_file, source_line,
            reason_code, reason, delivered_text
        )
        values ('\\x01', %(load)s, 'default', 'asin', 'WEEK', %(text)s, 7, 'bad_text', %(text)s, '')
        """,
        {"load": load, "text": HOSTILE},
    )
    connection.execute(
        """
        update sqp.data_quality_checks
        set
            check_status = 'failed',
            check_message = %(text)s,
            check_metadata = check_metadata || jsonb_build_object(
                'failing', 1, 'failing_slices', jsonb_build_array('default / ' || %(text)s::text)
            )
        where check_name = 'counts_credible' and table_name = 'landing.sqp_brand'
        """,
        {"text": HOSTILE},
    )
    connection.execute(
        """
        insert into landing.sqp_slices (
            account_id, marketplace_id, report_view, period_type, period_start, period_end, subject,
            load_id, slice_digest, row_count, source_file, delivered_at, loaded_at, slice_status,
            accepted_load_id, accepted_digest, accepted_row_count, accepted_at
        )
        values (
            %(account)s, 'ATVPDKIKX0DER', 'asin', 'WEEK', '2026-11-01', '2026-11-07', 'B000000001',
            %(load)s, '\\x00', 0, 'x', now(), now(), 'accepted', %(load)s, '\\x00', 0, now()
        )
        """,
        {"account": UNCHECKED, "load": late_run(connection)},
    )


def late_run(connection: psycopg.Connection[Any]) -> int:
    """The log id of a run after all others, which no check belongs to."""
    [(log_id,)] = connection.execute(
        """
        insert into sqp.sync_log (
            run_id, sync_type, source_table, target_table, lease_until, sync_status, completed_at
        )
        values (gen_random_uuid(), 'weekly', 'x', 'x', now(), 'completed', clock_timestamp())
        returning id
        """
    ).fetchall()
    return int(log_id)


@pytest.fixture(scope="module")
def browser(shown: Shown) -> Iterator[Any]:
    """A browser that reaches nothing but this machine.

    Opened after the sync and closed with the last of these tests: Playwright's loop runs in this
    thread, and Prefect takes a thread with a loop for an asynchronous caller.
    """
    with browsers.chromium() as opened:
        yield opened
