"""The semantic layer: `mf query` gives the numbers of the marts."""

from __future__ import annotations

import csv
import random
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import RunCli
from tests.integration.landing_rows import Landing
from tests.integration.test_dbt_models import Dbt, database, dbt, landing, rows_of
from tests.integration.test_marts import MODELS, history

__all__ = ["database", "dbt", "landing"]

COLUMNS = {
    "impressions": "total_impressions",
    "clicks": "total_clicks",
    "cart_adds": "cart_adds",
    "purchases": "total_purchases",
    "market_impressions": "total_query_impression_count",
    "market_clicks": "total_click_count",
    "market_cart_adds": "total_cart_add_count",
    "market_purchases": "total_purchase_count",
    "ctr": "avg_ctr",
    "cvr": "avg_cvr",
    "impression_share": "impression_share",
    "click_share": "click_share",
    "cart_add_share": "cart_add_share",
    "purchase_share": "purchase_share",
}
"""Each metric, and the mart's column of the same number."""
PLACE = ["query_week__account_id", "query_week__marketplace_id"]


@pytest.fixture
def marts(dbt: Dbt, landing: Landing) -> Landing:
    """The marts of generated deliveries, and the time spine."""
    history(landing, random.Random(6))
    dbt("seed")
    dbt("run", *MODELS, "time_spine_daily")
    return landing


def queried(
    run_cli: RunCli, folder: Path, metrics: list[str], by: list[str]
) -> dict[tuple[str, ...], dict[str, float | None]]:
    """What MetricFlow answers, by the values that it is grouped by."""
    answer = folder / "answer.csv"
    told = run_cli(
        *("metrics", "--", "query", "--metrics", ",".join(metrics)),
        *("--group-by", ",".join(by), "--csv", str(answer)),
    )
    assert told.returncode == 0, told.stdout + told.stderr
    with answer.open(newline="") as lines:
        return {
            tuple(row[name][:10] if "time" in name else row[name] for name in by): {
                metric: float(row[metric]) if row[metric] not in ("", "None") else None
                for metric in metrics
            }
            for row in csv.DictReader(lines)
        }


def of_mart(
    rows: list[dict[str, Any]], metrics: list[str], keys: list[str]
) -> dict[tuple[str, ...], dict[str, Any]]:
    """The same numbers of a mart: rates to six places."""
    return {
        tuple(str(row[key]) for key in keys): {
            metric: None
            if row[COLUMNS[metric]] is None
            else pytest.approx(float(row[COLUMNS[metric]]), abs=5.1e-7)
            for metric in metrics
        }
        for row in rows
    }


def test_metrics_equal_the_marts(dbt: Dbt, marts: Landing, run_cli: RunCli, tmp_path: Path) -> None:
    metrics = list(COLUMNS)
    months = rows_of(marts, "sqp.account_months")
    assert len(months) > 5
    assert queried(run_cli, tmp_path, metrics, ["metric_time__month", *PLACE]) == of_mart(
        months, metrics, ["period_start", "account_id", "marketplace_id"]
    )

    shares = [name for name in metrics if name.endswith("share")]
    quarters = rows_of(marts, "sqp.brand_share_quarterly")
    assert queried(run_cli, tmp_path, shares, ["metric_time__quarter", *PLACE]) == of_mart(
        quarters, shares, ["period_start", "account_id", "marketplace_id"]
    )

    weeks = rows_of(marts, "sqp.query_weeks")
    by_query = ["metric_time__sqp_week", *PLACE, "query_week__query"]
    assert queried(run_cli, tmp_path, metrics, by_query) == of_mart(
        weeks, metrics, ["period_start", "account_id", "marketplace_id", "query"]
    )


def test_the_list_of_metrics_is_told(dbt: Dbt, marts: Landing, run_cli: RunCli) -> None:
    told = run_cli("metrics")
    assert told.returncode == 0, told.stderr
    assert all(metric in told.stdout for metric in COLUMNS), told.stdout
