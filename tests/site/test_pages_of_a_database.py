"""The pages of an empty warehouse, and of one with very many checks; no browser, no dbt."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import psycopg
import pytest

from benchmarks.site import CHECKS, plant
from flows.errors import WarehouseError
from flows.settings import Connection
from flows.site import models
from flows.site.build import write_index
from flows.site.data_docs import write_data_docs
from flows.site.pages import Site
from flows.site.plots import write_plots
from flows.site.quality import HEADLINES, MOST_LISTED, write_quality
from flows.site.rows import reading, rows
from flows.site.verdicts import Verdict

MEGABYTES = 1_000_000


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path / "site")


@pytest.fixture
def session(database: Connection) -> Any:
    with psycopg.connect(**database.libpq(), autocommit=True) as connection:
        yield connection


def test_where_nothing_was_synced_nothing_is_green(site: Site, session: Any) -> None:
    with reading() as reader:
        page, quality = write_quality(site, reader)
        plots = write_plots(site, reader)
        validations = write_data_docs(site, reader)
    index = write_index(site, quality)
    assert quality.verdict is Verdict.UNKNOWN
    assert validations == []
    for each in (page, index):
        assert HEADLINES[Verdict.UNKNOWN] in each.read_text().replace("&#39;", "'")
        assert 'class="pill passed"' not in each.read_text()
    assert "Nothing has been delivered yet" in plots.read_text()


@pytest.mark.parametrize("runs", [1, 40])
def test_the_quality_page_of_very_many_checks_stays_small(
    runs: int, site: Site, session: psycopg.Connection[Any]
) -> None:
    plant(session, runs)
    with reading() as reader:
        page, quality = write_quality(site, reader)
    assert quality.checks == CHECKS // runs
    assert page.stat().st_size < 2 * MEGABYTES
    [(failed,)] = session.execute(
        "select count(*) from sqp.data_quality_checks where check_status = 'failed'"
    ).fetchall()
    assert failed == CHECKS // 50
    assert len(quality.problems) == CHECKS // runs // 25
    more = len(quality.problems) - MOST_LISTED
    assert (f"{more:,} more checks that fail or warn" in page.read_text()) == (more > 0)


def test_the_pages_change_nothing(session: Any) -> None:
    with reading() as reader, pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
        reader.execute("delete from sqp.data_quality_checks")


def test_what_is_not_built_is_told_with_the_next_step(session: Any) -> None:
    with reading() as reader, pytest.raises(WarehouseError, match="dbt build") as told:
        rows(reader, "select * from sqp.week_gaps")
    assert "week_gaps" in told.value.why


def test_dbts_failure_is_told(
    site: Site, session: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(models, "PROJECT", tmp_path / "nowhere")
    with models.generating() as generated, pytest.raises(WarehouseError, match="documentation"):
        models.write_models(site, generated)
