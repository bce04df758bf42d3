"""The synthetic deliveries: the same everywhere, true to the rules of the reports, all readable."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import subprocess
import sys
from collections import defaultdict
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flows.errors import UsageError
from flows.settings import PROJECT_ROOT
from flows.sources.deliveries import (
    ROW_SCHEMA,
    STAGES,
    DeliveryFormat,
    PeriodType,
    ReportView,
)
from flows.sources.find import find_deliveries
from flows.sources.marketplaces import find_marketplace
from flows.sources.read import read_delivery
from flows.sources.sample import (
    DEFAULT_ASINS,
    DEFAULT_LAST_WEEK,
    DEFAULT_QUERIES,
    DEFAULT_SEED,
    DEFAULT_WEEKS,
    write_flat_csv,
    write_flat_parquet,
    write_report_json,
    write_sample,
)
from flows.sources.sample.arrivals import Occasion, Plan, SampleDelivery
from flows.sources.sample.folder import plan_deliveries
from flows.sources.sample.market import (
    MISSING,
    SPEEDS,
    MarketRows,
    Period,
    brand_rows,
    reported,
    restated,
)
from flows.sources.sample.words import FORMULA_QUERY, LONG_QUERY, SCRIPT_QUERY, search_queries

SMALL = {"asins": 4, "weeks": 3, "queries": 24, "seed": 7}

MAKE_SMALL = f"""
import sys
from pathlib import Path
from flows.sources.sample import write_sample
write_sample(Path(sys.argv[1]), **{SMALL!r})
"""


def plan_of(
    *,
    asins: int = DEFAULT_ASINS,
    weeks: int = DEFAULT_WEEKS,
    queries: int = DEFAULT_QUERIES,
    seed: int = DEFAULT_SEED,
    last_week: date = DEFAULT_LAST_WEEK,
) -> Plan:
    places = tuple(filter(None, map(find_marketplace, ("US", "UK", "DE"))))
    return Plan(asins, weeks, queries, seed, places, last_week)


@pytest.fixture(scope="module")
def deliveries() -> list[SampleDelivery]:
    """Everything in the default sample."""
    return list(plan_deliveries(plan_of()))


def fingerprint(folder: Path) -> dict[str, tuple[str, int]]:
    """Each file's digest and modification time in nanoseconds."""
    return {
        path.relative_to(folder).as_posix(): (
            hashlib.sha256(path.read_bytes()).hexdigest(),
            path.stat().st_mtime_ns,
        )
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_the_same_arguments_write_the_same_files_in_any_process(tmp_path: Path) -> None:
    fingerprints = []
    for hash_seed, zone in (("1", "UTC"), ("2", "Asia/Tokyo")):
        folder = tmp_path / hash_seed
        subprocess.run(
            [sys.executable, "-c", MAKE_SMALL, str(folder)],
            check=True,
            cwd=PROJECT_ROOT,
            env=os.environ | {"PYTHONHASHSEED": hash_seed, "TZ": zone},
        )
        fingerprints.append(fingerprint(folder))
    assert len(fingerprints[0]) > 20
    assert fingerprints[0] == fingerprints[1]


def test_the_numbers_are_the_same_on_every_machine() -> None:
    """Held by a digest, because no second machine is at hand: a change here is a new sample."""
    digest = hashlib.sha256()
    for delivery in plan_deliveries(plan_of(**SMALL)):
        for name in sorted(delivery.rows.columns):
            digest.update(delivery.rows[name].astype("<i8").tobytes())
    assert digest.hexdigest() == "10dbd52b77e2316ba845b04716c3a68c2c5bd8dc9c76fff78cfb7e9bc1ad68e4"


def test_another_seed_writes_other_numbers(tmp_path: Path) -> None:
    write_sample(tmp_path / "one", **SMALL)
    write_sample(tmp_path / "other", **(SMALL | {"seed": 8}))
    one, other = fingerprint(tmp_path / "one"), fingerprint(tmp_path / "other")
    reports = [name for name in one.keys() & other.keys() if name.endswith((".json", ".csv"))]
    assert reports
    assert all(one[name] != other[name] for name in reports)


def test_writing_again_changes_nothing_and_touches_nothing_else(tmp_path: Path) -> None:
    folder = tmp_path / "sample"
    first = write_sample(folder, **SMALL)
    (folder / "mine.txt").write_text("mine")
    before = fingerprint(folder)
    victim = next(folder.rglob("*.parquet"))
    victim.write_bytes(b"cut off")
    assert write_sample(folder, **SMALL) == first
    assert fingerprint(folder) == before


@pytest.mark.parametrize("changed", ["asins", "weeks", "queries", "seed"])
def test_a_folder_with_another_sample_is_refused(tmp_path: Path, changed: str) -> None:
    folder = tmp_path / "sample"
    write_sample(folder, **SMALL)
    before = fingerprint(folder)
    with pytest.raises(UsageError) as caught:
        write_sample(folder, **(SMALL | {changed: SMALL[changed] + 1}))
    assert "another" in caught.value.why
    assert caught.value.next_step
    assert fingerprint(folder) == before


def test_a_folder_with_other_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "report.csv").write_text("mine")
    with pytest.raises(UsageError, match="other files are in it"):
        write_sample(tmp_path, **SMALL)
    with pytest.raises(UsageError, match="it is a file"):
        write_sample(tmp_path / "report.csv", **SMALL)
    assert [path.name for path in tmp_path.iterdir()] == ["report.csv"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"asins": 0},
        {"asins": 100_000},
        {"weeks": 0},
        {"queries": 9},
        {"marketplaces": ("US", "XX")},
        {"marketplaces": ("UK", "GB")},
        {"marketplaces": ()},
        {"last_week": date(2026, 11, 9)},
    ],
    ids=str,
)
def test_impossible_arguments_are_usage_errors(tmp_path: Path, wrong: dict[str, object]) -> None:
    with pytest.raises(UsageError) as caught:
        write_sample(tmp_path / "sample", **(SMALL | wrong))
    assert caught.value.exit_code == 2
    assert not (tmp_path / "sample").exists()


def test_the_default_sample_is_what_make_run_promises(deliveries: list[SampleDelivery]) -> None:
    rows = sum(len(delivery.rows) for delivery in deliveries)
    assert 28_000 <= rows <= 32_000
    files = set(DeliveryFormat) - {DeliveryFormat.BIGQUERY}
    assert {delivery.delivery_format for delivery in deliveries} == files
    assert {delivery.report_view for delivery in deliveries} == set(ReportView)
    assert {delivery.arrival.occasion for delivery in deliveries} == set(Occasion)
    by_type = defaultdict(set)
    for delivery in deliveries:
        by_type[delivery.rows.period.period_type].add(delivery.rows.period.start)
    assert len(by_type[PeriodType.WEEK]) == 10
    assert by_type[PeriodType.MONTH] == {date(2026, 10, 1)}
    assert by_type[PeriodType.QUARTER] == {date(2026, 7, 1)}


def test_the_summary_tells_what_lies_there(tmp_path: Path) -> None:
    steps = []
    summary = write_sample(
        tmp_path, **SMALL, on_progress=lambda done, in_all: steps.append((done, in_all))
    )
    files = [path for path in tmp_path.rglob("*") if path.is_file() and path.name != "README.md"]
    planned = list(plan_deliveries(plan_of(**SMALL)))
    assert summary.files == len(files) == sum(summary.formats.values())
    assert summary.deliveries == len(planned)
    assert summary.rows == sum(len(delivery.rows) for delivery in planned)
    assert (summary.weeks, summary.marketplaces) == (3, ("US", "UK", "DE"))
    assert (summary.late, summary.restated, summary.emptied) == (6, 6, 1)
    assert summary.repeated >= 1
    assert steps == [(1, 4), (2, 4), (3, 4), (4, 4)]


@given(
    asins=st.integers(1, 12),
    queries=st.integers(10, 60),
    weeks=st.integers(1, 4),
    last_week=st.integers(0, 300),
)
@settings(max_examples=25)
def test_size_and_periods_follow_the_options(
    asins: int, queries: int, weeks: int, last_week: int
) -> None:
    last = DEFAULT_LAST_WEEK - timedelta(days=7 * last_week)
    plan = plan_of(asins=asins, queries=queries, weeks=weeks, last_week=last)
    punctual_or_late = [
        delivery
        for delivery in plan_deliveries(plan)
        if delivery.arrival.occasion in (Occasion.ON_TIME, Occasion.LATE)
        and delivery.report_view is ReportView.ASIN
    ]
    weekly = [d for d in punctual_or_late if d.rows.period.period_type is PeriodType.WEEK]
    rows = sum(len(delivery.rows) for delivery in weekly)
    expected = 3 * weeks * asins * (queries * 2 // 5)
    assert 0.9 * expected - 5 * expected**0.5 <= rows <= expected
    starts = {delivery.rows.period.start for delivery in weekly}
    assert starts <= {last - timedelta(days=7 * back) for back in range(weeks)}
    for delivery in punctual_or_late:
        assert delivery.rows.period.end < delivery.arrival.day
        assert delivery.arrival.day <= last + timedelta(days=9)
    assert {d.rows.period.period_type for d in punctual_or_late} == set(PeriodType)


def check_identities(rows: MarketRows) -> None:
    """What holds for every row of every report."""
    total, own = rows["total_query_impression_count"], rows["own_impression_count"]
    check_share(rows["own_impression_share"], own, total)
    assert (own >= 1).all()
    assert (own <= total).all()
    before = total
    for stage in STAGES:
        total, own = rows[f"total_{stage}_count"], rows[f"own_{stage}_count"]
        assert (total >= 1).all()
        assert (total <= before).all()
        assert (own >= 0).all()
        assert (own <= total).all()
        check_share(rows[f"own_{stage}_share"], own, total)
        check_share(rows[f"total_{stage}_rate"], total, rows["search_query_volume"])
        assert ((rows[f"own_median_{stage}_price"] == MISSING) == (own == 0)).all()
        assert (rows[f"total_median_{stage}_price"] > 0).all()
        shipped = sum(rows[f"total_{speed}_shipping_{stage}_count"] for speed in SPEEDS)
        assert (shipped <= total).all()
        before = total
    for asin in np.unique(rows["asin"]):
        of_asin = rows["asin"] == asin
        scores = rows["search_query_score"][of_asin]
        assert (np.diff(scores, prepend=0) >= 1).all()
        better = [
            rows[f"own_{stage}_count"][of_asin] > rows[f"own_{stage}_count"][of_asin][0]
            for stage in ("impression", "click", "purchase")
        ]
        assert not np.logical_and.reduce(better).any(), "the best score is beaten in everything"
        assert len(np.unique(rows["query"][of_asin])) == of_asin.sum()


def check_share(share: np.ndarray, part: np.ndarray, whole: np.ndarray) -> None:
    assert (np.abs(share / 10_000 - part / whole) <= 0.000_050_000_1).all()


@given(seed=st.integers(0, 2**64), asins=st.integers(1, 40), queries=st.integers(10, 200))
@settings(max_examples=15)
def test_every_row_keeps_the_rules_of_the_reports(seed: int, asins: int, queries: int) -> None:
    plan = plan_of(seed=seed, asins=asins, queries=queries)
    for market in plan.markets:
        for period_type in PeriodType:
            seen = reported(market.rows(Period.around(period_type, DEFAULT_LAST_WEEK)))
            for rows in (seen, restated(seen), brand_rows(seen)):
                check_identities(rows)


@given(seed=st.integers(0, 2**64), asins=st.integers(1, 40), queries=st.integers(10, 200))
@settings(max_examples=15)
def test_market_totals_are_one_and_the_asins_fit_into_them(
    seed: int, asins: int, queries: int
) -> None:
    plan = plan_of(seed=seed, asins=asins, queries=queries)
    for market in plan.markets:
        rows = market.rows(plan.week(3))
        names = [name for name in rows.columns if name.startswith(("total_", "search_query_v"))]
        for query in np.unique(rows["query"]):
            of_query = rows["query"] == query
            assert all(len(np.unique(rows[name][of_query])) == 1 for name in names)
            for stage in STAGES:
                own = rows[f"own_{stage}_count"][of_query].sum()
                assert own <= rows[f"total_{stage}_count"][of_query][0]


def test_products_sell_as_much_as_they_appeal() -> None:
    plan = plan_of()
    for market in plan.markets:
        rows = market.rows(plan.week(3))
        in_time = rows["own_purchase_count"] <= rows["own_click_count"]
        expected = (
            rows["own_cart_add_count"]
            * rows["total_purchase_count"]
            / rows["total_cart_add_count"]
            * market.appeal["purchase"][rows["asin"]]
            / 1000
        )
        sold = rows["own_purchase_count"][in_time].sum()
        assert sold == pytest.approx(expected[in_time].sum(), rel=0.01)


def test_a_restatement_never_takes_more_than_there_is() -> None:
    plan = plan_of()
    rows = plan.markets[0].rows(plan.week(0))
    everything = {f"own_{stage}_count": rows[f"total_{stage}_count"] for stage in STAGES} | {
        "own_impression_count": rows["total_query_impression_count"]
    }
    prices = {f"own_median_{stage}_price": np.ones_like(rows["asin"]) for stage in STAGES}
    check_identities(restated(replace(rows, columns={**rows.columns, **everything, **prices})))


def test_market_totals_repeat_across_the_files_of_a_week(deliveries: list[SampleDelivery]) -> None:
    totals = defaultdict(set)
    for delivery in deliveries:
        rows = delivery.rows
        if delivery.arrival.occasion in (Occasion.ON_TIME, Occasion.LATE):
            key = (rows.market.marketplace.country_code, *rows.period)
            for query, *counted in zip(
                rows["query"].tolist(),
                rows["search_query_volume"].tolist(),
                rows["total_purchase_count"].tolist(),
                strict=True,
            ):
                totals[*key, rows.market.queries[query]].add(tuple(counted))
    assert len(totals) > 3_000
    assert all(len(versions) == 1 for versions in totals.values())


def test_popular_queries_and_sales_weeks_stand_out() -> None:
    plan = plan_of()
    for market in plan.markets:
        volume = market.traits["volume"]
        assert volume[0] > 5 * np.median(volume) > 0
        by_week = [market.rows(plan.week(index)) for index in range(plan.weeks)]
        searches = [int(week["search_query_volume"].sum()) for week in by_week]
        peak = [plan.week(index).start for index in range(plan.weeks)].index(date(2026, 10, 4))
        assert searches[peak] == max(searches)
        assert searches[peak] > 1.25 * np.median(searches)


def test_a_few_rows_have_more_purchases_than_clicks(deliveries: list[SampleDelivery]) -> None:
    rows = sum(len(delivery.rows) for delivery in deliveries)
    late = sum(
        int((delivery.rows["own_purchase_count"] > delivery.rows["own_click_count"]).sum())
        for delivery in deliveries
    )
    assert 10 <= late <= rows / 200


def test_queries_are_hostile_local_and_different_from_each_other() -> None:
    for country in ("US", "UK", "DE", "FR", "JP"):
        queries = search_queries(country, 20_000)
        normalised = {" ".join(query.lower().split()) for query in queries}
        assert len(normalised) == 20_000
        assert {SCRIPT_QUERY, FORMULA_QUERY} < set(queries)
        assert any('"' in query and "," in query for query in queries)
        assert any(not query.isascii() for query in queries)
    assert "kaffeemühle" in search_queries("DE", 120)


def test_hostile_queries_are_delivered_in_every_marketplace(
    deliveries: list[SampleDelivery],
) -> None:
    found = defaultdict(set)
    long = []
    for delivery in deliveries:
        rows = delivery.rows
        texts = {rows.market.queries[position] for position in rows["query"].tolist()}
        for query in {SCRIPT_QUERY, FORMULA_QUERY} & texts:
            found[query].add(rows.market.marketplace.country_code)
        long += [rows for text in texts if len(text) > 1_000]
    assert found == {query: {"US", "UK", "DE"} for query in (SCRIPT_QUERY, FORMULA_QUERY)}
    assert len(LONG_QUERY) == 6_000
    assert len(long) == 1
    assert [len(long[0].market.queries[query]) for query in long[0]["query"]].count(6_000) == 1


def test_a_restated_slice_comes_later_with_other_numbers(
    deliveries: list[SampleDelivery],
) -> None:
    first = {
        (delivery.rows.market.marketplace, delivery.rows.period, asin): delivery
        for delivery in deliveries
        if delivery.arrival.occasion in (Occasion.ON_TIME, Occasion.LATE)
        and delivery.report_view is ReportView.ASIN
        for asin in delivery.asked
    }
    again = [d for d in deliveries if d.arrival.occasion is Occasion.RESTATED]
    vanished = changed = emptied = 0
    for delivery in again:
        for asin in delivery.asked:
            key = (delivery.rows.market.marketplace, delivery.rows.period, asin)
            assert first[key].arrival.day < delivery.arrival.day
            before = first[key].rows.of_asins([asin])
            after = delivery.rows.of_asins([asin])
            assert len(before) > 0
            if len(after) == 0:
                emptied += 1
                continue
            assert set(after["query"].tolist()) <= set(before["query"].tolist())
            vanished += len(before) - len(after)
            changed += after["search_query_volume"].sum() != before["search_query_volume"].sum()
    assert emptied == 1
    assert changed == 54
    assert 54 <= vanished <= 54 * 12


def test_a_delivery_is_repeated_byte_for_byte_without_undoing_a_restatement(
    tmp_path: Path,
) -> None:
    write_sample(tmp_path, **SMALL)
    planned = list(plan_deliveries(plan_of(**SMALL)))
    [repeated] = [d for d in planned if d.arrival.occasion is Occasion.REPEATED]
    same = [
        path
        for name, content in repeated.files.items()
        for path in tmp_path.rglob(name)
        if path.read_bytes() == content
    ]
    assert len(same) == 2 * len(repeated.files)
    assert len({path.parent for path in same}) > 1
    for delivery in planned:
        if delivery.arrival.occasion is Occasion.RESTATED:
            assert (
                delivery.rows.market.marketplace != repeated.rows.market.marketplace
                or delivery.rows.period != repeated.rows.period
                or not delivery.asked & repeated.asked
            )


def test_modification_times_are_the_days_of_delivery(tmp_path: Path) -> None:
    write_sample(tmp_path, **SMALL)
    for path in tmp_path.glob("delivered=*/**/*"):
        if path.is_file():
            folder = path.relative_to(tmp_path).parts[0]
            modified = datetime.fromtimestamp(path.stat().st_mtime, UTC)
            assert folder == f"delivered={modified:%Y-%m-%d}"


def test_native_months_are_near_the_sum_of_weeks_but_not_it() -> None:
    plan = plan_of(weeks=14)
    rows = {
        delivery.rows.period: plan.markets[0].rows(delivery.rows.period)
        for delivery in plan_deliveries(plan)
        if delivery.rows.period.period_type is not PeriodType.WEEK
    }
    for period, native in rows.items():
        market = plan.markets[0]
        searches = int(market_total(native))
        summed = 0.0
        for index in range(-10, plan.weeks):
            week = plan.week(index)
            days = (min(week.end, period.end) - max(week.start, period.start)).days + 1
            if days > 0:
                summed += market_total(market.rows(week)) * days / 7
        assert searches != round(summed)
        assert searches == pytest.approx(summed, rel=0.03)


def market_total(rows: MarketRows) -> float:
    """All searches for all queries, each counted once."""
    _, first = np.unique(rows["query"], return_index=True)
    return float(rows["search_query_volume"][first].sum())


def test_everything_is_labelled_synthetic(tmp_path: Path) -> None:
    write_sample(tmp_path, **SMALL)
    readme = (tmp_path / "README.md").read_text()
    assert readme.startswith("# Synthetic data")
    assert "warehouse sample THIS_FOLDER --asins 4 --weeks 3 --queries 24 --seed 7" in readme
    for path in tmp_path.rglob("*.parquet"):
        table = pq.read_table(path)
        assert pc.all(pc.match_substring(table["Product Name"], "Synthetic")).as_py()
        assert pc.unique(table["Client Name"]).to_pylist() == ["Synthetic Brand"]
        for column in ("Child ASIN", "Parent ASIN"):
            assert pc.all(pc.match_substring_regex(table[column], "^B0SYN[A-Z0-9]{5}$")).as_py()


def test_reports_are_what_the_api_sends(deliveries: list[SampleDelivery]) -> None:
    absent = nulls = 0
    for delivery in deliveries:
        if delivery.delivery_format is not DeliveryFormat.SP_API_JSON:
            continue
        [(name, content)] = delivery.files.items()
        report = json.loads(gzip.decompress(content) if name.endswith(".gz") else content)
        options = report["reportSpecification"]["reportOptions"]
        assert len(options["asin"]) <= 200
        for row in report["dataByAsin"]:
            assert row["asin"] in options["asin"].split()
            clicks = row["clickData"]
            assert clicks["totalMedianClickPrice"]["currencyCode"] == "USD"
            assert clicks["asinClickShare"] <= 1
            if clicks["asinClickCount"] == 0:
                absent += "asinMedianClickPrice" not in clicks
                nulls += clicks.get("asinMedianClickPrice", "") is None
    assert absent > 0
    assert nulls > 0


def test_downloads_come_in_every_layout(deliveries: list[SampleDelivery]) -> None:
    starts = {b"\xef\xbb\xbf": 0, b'"ASIN or Product=[""': 0, b'ASIN=["': 0}
    padded = dated = short = 0
    for delivery in deliveries:
        if delivery.delivery_format is DeliveryFormat.SELLER_CENTRAL_CSV:
            [(name, content)] = delivery.files.items()
            for start in starts:
                starts[start] += content.startswith(start)
            lines = content.decode("utf-8-sig").splitlines()
            padded += lines[0].endswith(",,,")
            dated += lines[2].split(",")[-1] == f"{delivery.rows.period.end:%-m/%-d/%Y}"
            short += " - " not in lines[0]
            assert "Basket Adds: Basket Add Rate %" in lines[1]
            shown = "Brand" if delivery.report_view is ReportView.BRAND else "ASIN"
            end = f"{delivery.rows.period.end:%Y_%m_%d}"
            assert name.endswith(
                f"UK_Search_Query_Performance_{shown}_View_Comprehensive_Week_{end}.csv"
            )
    assert min(starts.values()) > 0
    assert padded == dated > 0
    assert short > 0


def test_every_file_is_read_back_as_it_was_meant(
    tmp_path: Path, deliveries: list[SampleDelivery]
) -> None:
    summary = write_sample(tmp_path)
    found, unread = find_deliveries([str(tmp_path)], marketplace=None, account=None)
    assert unread == []
    assert len(found) == summary.deliveries == len(deliveries)
    meant = {
        tmp_path / f"delivered={delivery.arrival.day}" / name: delivery
        for delivery in deliveries
        for name in delivery.files
    }
    for delivery in found:
        [sample] = {id(meant[path]): meant[path] for path in delivery.paths}.values()
        assert len(delivery.paths) == len(sample.files)
        assert delivery.delivery_format == sample.delivery_format
        assert delivery.report_view == sample.report_view
        assert delivery.period_type == sample.rows.period.period_type
        assert delivery.marketplace_id == sample.rows.market.marketplace.marketplace_id
        assert delivery.delivered_at.date() == sample.arrival.day
        if sample.delivery_format is DeliveryFormat.SP_API_JSON:
            asked = {sample.rows.market.products[asin].asin for asin in sample.asked}
            assert {key.subject for key in delivery.declared} == asked
        batches = list(read_delivery(delivery))
        assert [rejected for batch in batches for rejected in batch.rejected] == []
        check_read_back(pa.Table.from_batches([b.rows for b in batches], ROW_SCHEMA), sample)


def check_read_back(read: pa.Table, sample: SampleDelivery) -> None:
    """Every row in its place, every number in its unit."""
    rows = sample.rows
    market, period = rows.market, rows.period
    assert len(read) == len(rows)
    assert set(read["period_start"].to_pylist()) <= {period.start}
    assert set(read["period_end"].to_pylist()) <= {period.end}
    assert set(read["currency_code"].to_pylist()) <= {market.marketplace.currency_code}
    texts = [market.queries[position] for position in rows["query"]]
    assert read["search_query"].to_pylist() == texts
    products = [market.products[position] for position in rows["asin"]]
    is_brand = sample.report_view is ReportView.BRAND
    subjects = ["Synthetic Brand" if is_brand else product.asin for product in products]
    assert read["subject"].to_pylist() == subjects
    for name, numbers in rows.columns.items():
        if name in ("asin", "query"):
            continue
        if name.endswith("_price"):
            prices = [None if n == MISSING else Decimal(int(n)) / 100 for n in numbers]
            assert read[name].to_pylist() == prices
        elif name.endswith(("_share", "_rate")):
            assert read[name].to_pylist() == pytest.approx(numbers / 10_000, abs=1e-12)
        else:
            assert read[name].to_pylist() == numbers.tolist()


BULK = {"rows": 2_001, "asins": 30, "queries": 800, "seed": 3, "weeks": 2}


def test_bulk_formats_hold_the_same_rows(tmp_path: Path) -> None:
    write_flat_parquet(tmp_path / "flat.parquet", **BULK)
    write_flat_csv(tmp_path / "flat.csv", **BULK)
    paths = write_report_json(tmp_path / "reports", **BULK)
    table = pq.read_table(tmp_path / "flat.parquet")
    from_csv = pa.csv.read_csv(tmp_path / "flat.csv")
    entries = [entry for path in paths for entry in json.loads(path.read_bytes())["dataByAsin"]]
    assert len(table) == len(from_csv) == len(entries) == 2_001
    for column in ("Child ASIN", "Search Query", "Total Purchase Count", "ASIN Click Count"):
        assert table[column].to_pylist() == from_csv[column].to_pylist()
    assert table["ASIN Click Count"].to_pylist() == [
        entry["clickData"]["asinClickCount"] for entry in entries
    ]
    assert table["ASIN Click Share"].to_pylist() == pytest.approx(
        [100 * entry["clickData"]["asinClickShare"] for entry in entries]
    )
    keys = table.group_by(["Date", "Child ASIN", "Search Query"]).aggregate([])
    assert len(keys) == 2_001
    queries = table.group_by(["Date", "Search Query"]).aggregate([])
    assert len(queries) == BULK["weeks"] * BULK["queries"]


def test_bulk_rows_come_in_small_row_groups(tmp_path: Path) -> None:
    path = tmp_path / "flat.parquet"
    write_flat_parquet(path, rows=150_000, asins=600, queries=9_000, seed=1, weeks=1)
    metadata = pq.ParquetFile(path).metadata
    groups = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
    assert groups == [65_536, 65_536, 150_000 - 2 * 65_536]


@pytest.mark.parametrize("rows", [1, 2 * 30 * 800 + 1])
def test_bulk_refuses_what_cannot_be(tmp_path: Path, rows: int) -> None:
    with pytest.raises(UsageError):
        write_flat_parquet(tmp_path / "flat.parquet", **(BULK | {"rows": rows}))
    assert not (tmp_path / "flat.parquet").exists()
