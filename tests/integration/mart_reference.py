"""What the marts must hold, computed from the deliveries in force: in Python, not in their SQL."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal
from fractions import Fraction
from statistics import median
from typing import Any

from tests.integration.landing_rows import (
    MARKET,
    Landing,
    Row,
    divided,
    expected_period,
    first_day,
    largest,
    last_day,
    rounded,
    weekly_rows,
)

Rows = list[dict[str, Any]]
OWN = ("total_impressions", "total_clicks", "cart_adds", "total_purchases")
TOTALS = (
    "total_query_impression_count",
    "total_click_count",
    "total_cart_add_count",
    "total_purchase_count",
)
STAGES = ("impression", "click", "cart_add", "purchase")


@dataclass(frozen=True)
class Thresholds:
    """The vars of the project that decide which rows a mart has."""

    top_queries_kept: int
    top_queries_min_market_count: int
    year_over_year_min_clicks: int
    bleeding_min_clicks: int
    bleeding_cvr_ratio: float
    ctr_recent_weeks: int
    ctr_baseline_weeks: int
    ctr_deterioration_ratio: float
    ctr_min_week_impressions: int
    ctr_min_impressions: int
    anomaly_history_weeks: int
    anomaly_min_weeks: int
    anomaly_min_market_count: int
    anomaly_min_score: float
    anomaly_min_share_change: float


def exactly(number: float) -> Fraction:
    """A threshold as it is written."""
    return Fraction(str(number))


def with_rates(counts: dict[str, Any]) -> dict[str, Any]:
    """Counts with the rates and shares that follow from them."""
    shares = {
        f"{stage}_share": divided(counts[own], counts[total])
        for stage, own, total in zip(STAGES, OWN, TOTALS, strict=True)
    }
    return {
        **counts,
        "avg_ctr": divided(counts["total_clicks"], counts["total_impressions"]),
        "avg_cvr": divided(counts["total_purchases"], counts["total_clicks"]),
        **shares,
    }


def summed(rows: Iterable[dict[str, Any]]) -> dict[str, int]:
    """Own counts and market totals, added up."""
    kept = list(rows)
    return {name: sum(row[name] for row in kept) for name in (*OWN, *TOTALS)}


def query_weeks(landing: Landing) -> Rows:
    """One row per account, marketplace, week and query."""
    groups: dict[tuple[Any, ...], list[Row]] = defaultdict(list)
    for about, row in weekly_rows(landing):
        groups[about.account_id, about.marketplace_id, about.period_start, row.query].append(row)
    found = []
    for (account, marketplace, start, query), rows in groups.items():
        market = largest(rows)
        counts = {
            own: sum(getattr(row, f"own_{name}") for row in rows)
            for own, name in zip(OWN, MARKET, strict=True)
        } | {total: getattr(market, name) for total, name in zip(TOTALS, MARKET, strict=True)}
        found.append(
            {
                "account_id": account,
                "marketplace_id": marketplace,
                "query": query,
                "query_digest": rows[0].digest,
                "asins": len(rows),
                "search_query_volume": market.volume,
                **with_rates(counts),
                "period_start": start,
                "period_end": start + timedelta(days=6),
            }
        )
    return found


def query_months(landing: Landing) -> Rows:
    """One row per account, marketplace, month and query: from its weeks, not from months."""
    groups: dict[tuple[Any, ...], Rows] = defaultdict(list)
    asins: dict[tuple[Any, ...], set[str]] = defaultdict(set)
    for about, delivered in weekly_rows(landing):
        month = first_day(about.period_start, "month")
        asins[about.account_id, about.marketplace_id, month, delivered.query].add(about.subject)
    for week in query_weeks(landing):
        month = first_day(week["period_start"], "month")
        groups[week["account_id"], week["marketplace_id"], month, week["query"]].append(week)
    found = []
    for key, weeks in groups.items():
        account, marketplace, month, query = key
        volumes = [
            week["search_query_volume"] for week in weeks if week["search_query_volume"] is not None
        ]
        found.append(
            {
                "account_id": account,
                "marketplace_id": marketplace,
                "query": query,
                "query_digest": weeks[0]["query_digest"],
                "asins": len(asins[key]),
                "market_weeks": len(weeks),
                "search_query_volume": sum(volumes) if volumes else None,
                **with_rates(summed(weeks)),
                "period_start": month,
                "period_end": last_day(month, "month"),
            }
        )
    return found


def account_months(landing: Landing) -> Rows:
    """One row per account, marketplace and month."""
    groups: dict[tuple[Any, ...], Rows] = defaultdict(list)
    for row in query_months(landing):
        groups[row["account_id"], row["marketplace_id"], row["period_start"]].append(row)
    return [
        {
            "account_id": account,
            "marketplace_id": marketplace,
            "queries": len(rows),
            "weeks": max(row["market_weeks"] for row in rows),
            **with_rates(summed(rows)),
            "period_start": month,
            "period_end": last_day(month, "month"),
        }
        for (account, marketplace, month), rows in groups.items()
    ]


def months_before(day: date, months: int) -> date:
    """The first of the month that lies so many months before."""
    number = day.year * 12 + day.month - 1 - months
    return date(number // 12, number % 12 + 1, 1)


def top_queries(landing: Landing, limits: Thresholds) -> Rows:
    """The largest shares of each month and stage, against the month before."""
    months = query_months(landing)
    known = {
        (row["account_id"], row["marketplace_id"], row["period_start"], row["query"]): row
        for row in months
    }
    ranking: dict[tuple[Any, ...], Rows] = defaultdict(list)
    for row in months:
        for stage, own, total in zip(STAGES, OWN, TOTALS, strict=True):
            if row[own] and row[total] >= limits.top_queries_min_market_count:
                key = (row["account_id"], row["marketplace_id"], row["period_start"], stage)
                ranking[key].append(row)
    found = []
    for (account, marketplace, month, stage), rows in ranking.items():
        own, total = OWN[STAGES.index(stage)], TOTALS[STAGES.index(stage)]
        share = f"{stage}_share"
        rows.sort(key=lambda row: (-row[share], -row[own], row["query_digest"]))
        for rank, row in enumerate(rows[: limits.top_queries_kept], start=1):
            before = known.get((account, marketplace, months_before(month, 1), row["query"]), {})
            found.append(
                {
                    "account_id": account,
                    "marketplace_id": marketplace,
                    "query_digest": row["query_digest"],
                    "query": row["query"],
                    "stage": stage,
                    "share_rank": rank,
                    "own_count": row[own],
                    "market_count": row[total],
                    "previous_own_count": before.get(own),
                    "share": row[share],
                    "previous_share": before.get(share),
                    "share_change": difference(row[share], before.get(share)),
                    "period_start": month,
                    "period_end": last_day(month, "month"),
                }
            )
    return found


def difference(new: Decimal | None, old: Decimal | None) -> Decimal | None:
    """`new` − `old`; None where one is unknown."""
    return None if new is None or old is None else new - old


def year_over_year_queries(landing: Landing, limits: Thresholds) -> Rows:
    """Each query's month against the same month a year before."""
    weeks = {
        (row["account_id"], row["marketplace_id"], row["period_start"]): row["weeks"]
        for row in account_months(landing)
    }
    months = {
        (row["account_id"], row["marketplace_id"], row["period_start"], row["query"]): row
        for row in query_months(landing)
    }
    found = []
    for account, marketplace, month in weeks:
        before = months_before(month, 12)
        if (account, marketplace, before) not in weeks:
            continue
        queries = {
            query
            for (holder, place, start, query) in months
            if (holder, place) == (account, marketplace) and start in (month, before)
        }
        for query in queries:
            now = months.get((account, marketplace, month, query), {})
            then = months.get((account, marketplace, before, query), {})
            clicks = now.get("total_clicks", 0), then.get("total_clicks", 0)
            purchases = now.get("total_purchases", 0), then.get("total_purchases", 0)
            if sum(clicks) < limits.year_over_year_min_clicks:
                continue
            row = {
                "account_id": account,
                "marketplace_id": marketplace,
                "query_digest": (now or then)["query_digest"],
                "query": query,
                "weeks": weeks[account, marketplace, month],
                "previous_weeks": weeks[account, marketplace, before],
                "search_query_volume": now.get("search_query_volume"),
                "previous_search_query_volume": then.get("search_query_volume"),
                "total_clicks": clicks[0],
                "previous_clicks": clicks[1],
                "clicks_change": clicks[0] - clicks[1],
                "total_purchases": purchases[0],
                "previous_purchases": purchases[1],
                "purchases_change": purchases[0] - purchases[1],
                "period_start": month,
                "period_end": last_day(month, "month"),
            }
            for share in ("click_share", "purchase_share"):
                row[share], row[f"previous_{share}"] = now.get(share), then.get(share)
                row[f"{share}_change"] = difference(now.get(share), then.get(share))
            found.append(row)
    return found


def bleeding_queries(landing: Landing, limits: Thresholds) -> Rows:
    """Queries of a month that win an ASIN clicks and do not sell."""
    found = []
    for row in expected_period(landing, "month"):
        clicks, purchases = row["total_clicks"], row["total_purchases"]
        market_clicks, market_purchases = row["total_click_count"], row["total_purchase_count"]
        if clicks < limits.bleeding_min_clicks or not market_clicks or not market_purchases:
            continue
        market_cvr = divided(market_purchases, market_clicks)
        assert market_cvr is not None
        bleeds = Fraction(row["avg_cvr"]) < exactly(limits.bleeding_cvr_ratio) * Fraction(
            market_cvr
        )
        if purchases and not bleeds:
            continue
        names = ("account_id", "marketplace_id", "asin", "query_digest", "query", "period_start")
        found.append(
            {
                **{name: row[name] for name in names},
                **{name: row[name] for name in ("avg_cvr", "click_share", "purchase_share")},
                "total_clicks": clicks,
                "total_purchases": purchases,
                "market_cvr": market_cvr,
                "lost_purchases": (clicks * market_cvr - purchases).quantize(
                    Decimal("0.0001"), "ROUND_HALF_UP"
                ),
                "is_zero_purchase": purchases == 0,
                "is_bleeding": bleeds,
                "period_end": row["period_end"],
            }
        )
    return found


def ctr_deterioration(landing: Landing, limits: Thresholds) -> Rows:
    """ASINs and queries whose click-through rate has fallen."""
    series: dict[tuple[Any, ...], dict[date, Row]] = defaultdict(dict)
    for about, row in weekly_rows(landing):
        key = (about.account_id, about.marketplace_id, about.subject, row.query)
        series[key][about.period_start] = row
    found = []
    for (account, marketplace, asin, query), weeks in series.items():
        for week, row in weeks.items():
            if row.own_impressions < limits.ctr_min_week_impressions:
                continue
            edge = week - timedelta(weeks=limits.ctr_recent_weeks)
            start = edge - timedelta(weeks=limits.ctr_baseline_weeks)
            recent = [weeks[day] for day in weeks if edge < day <= week]
            baseline = [weeks[day] for day in weeks if start < day <= edge]
            counts = {
                f"{name}_{count}": sum(getattr(each, f"own_{count}") for each in window)
                for name, window in (("recent", recent), ("baseline", baseline))
                for count in ("impressions", "clicks")
            }
            if min(counts["recent_impressions"], counts["baseline_impressions"]) < (
                limits.ctr_min_impressions
            ):
                continue
            rates = {
                name: divided(counts[f"{name}_clicks"], counts[f"{name}_impressions"])
                for name in ("recent", "baseline")
            }
            market = {
                name: divided(
                    sum(each.clicks for each in window), sum(each.impressions for each in window)
                )
                for name, window in (("recent", recent), ("baseline", baseline))
            }
            now, before = rates["recent"], rates["baseline"]
            assert now is not None
            assert before is not None
            fallen = Fraction(now) <= exactly(limits.ctr_deterioration_ratio) * Fraction(before)
            if not before or not fallen:
                continue
            lost = counts["recent_impressions"] * before - counts["recent_clicks"]
            found.append(
                {
                    "account_id": account,
                    "marketplace_id": marketplace,
                    "asin": asin,
                    "query_digest": row.digest,
                    "query": query,
                    **counts,
                    "baseline_weeks": len(baseline),
                    "recent_ctr": now,
                    "baseline_ctr": before,
                    "ctr_ratio": quotient(now, before),
                    "recent_market_ctr": market["recent"],
                    "baseline_market_ctr": market["baseline"],
                    "market_ctr_ratio": quotient(market["recent"], market["baseline"]),
                    "lost_clicks": lost.quantize(Decimal("0.0001"), "ROUND_HALF_UP"),
                    "period_start": week,
                    "period_end": week + timedelta(days=6),
                }
            )
    return found


def quotient(new: Decimal | None, old: Decimal | None) -> Decimal | None:
    """A ratio of two rates to six places."""
    if new is None or not old:
        return None
    return rounded(Fraction(new) / Fraction(old), 6)


def share_anomalies(landing: Landing, limits: Thresholds) -> Rows:
    """Shares that are far from the query's own history."""
    series: dict[tuple[Any, ...], dict[date, dict[str, Any]]] = defaultdict(dict)
    for row in query_weeks(landing):
        for stage in ("click", "purchase"):
            if row[TOTALS[STAGES.index(stage)]] >= limits.anomaly_min_market_count:
                key = (row["account_id"], row["marketplace_id"], stage, row["query"])
                series[key][row["period_start"]] = row
    found = []
    for (account, marketplace, stage, query), weeks in series.items():
        own, total = OWN[STAGES.index(stage)], TOTALS[STAGES.index(stage)]
        for week, row in weeks.items():
            oldest = week - timedelta(weeks=limits.anomaly_history_weeks)
            history = [
                Fraction(weeks[day][f"{stage}_share"]) for day in weeks if oldest <= day < week
            ]
            if len(history) < limits.anomaly_min_weeks:
                continue
            middle = median(history)
            distances = [abs(share - middle) for share in history]
            usual, spread, mean = (
                rounded(value, 6)
                for value in (middle, median(distances), sum(distances) / len(distances))
            )
            assert usual is not None
            assert spread is not None
            assert mean is not None
            change = row[f"{stage}_share"] - usual
            score = None
            if spread:
                score = signed(Fraction("0.6745") * Fraction(change) / Fraction(spread))
            elif mean:
                score = signed(Fraction(change) / (Fraction("1.253314") * Fraction(mean)))
            size = Decimal(999999) if score is None else abs(score)
            if abs(change) < Decimal(str(limits.anomaly_min_share_change)) or size < Decimal(
                str(limits.anomaly_min_score)
            ):
                continue
            found.append(
                {
                    "account_id": account,
                    "marketplace_id": marketplace,
                    "query_digest": row["query_digest"],
                    "query": query,
                    "stage": stage,
                    "own_count": row[own],
                    "market_count": row[total],
                    "history_weeks": len(history),
                    "share": row[f"{stage}_share"],
                    "median_share": usual,
                    "median_deviation": spread,
                    "share_change": change,
                    "robust_score": score,
                    "absolute_score": size,
                    "period_start": week,
                    "period_end": row["period_end"],
                }
            )
    return found


def signed(value: Fraction) -> Decimal:
    """Four places, half away from zero on either side of it."""
    size = rounded(abs(value), 4)
    assert size is not None
    return -size if value < 0 else size


def brand_share_quarterly(landing: Landing) -> Rows:
    """The account's share of its market by quarter, against the quarter and the year before."""
    quarters: dict[tuple[Any, ...], Rows] = defaultdict(list)
    weeks: dict[tuple[Any, ...], int] = defaultdict(int)
    for row in query_weeks(landing):
        quarter = first_day(row["period_start"], "quarter")
        quarters[row["account_id"], row["marketplace_id"], quarter].append(row)
    for month in account_months(landing):
        quarter = first_day(month["period_start"], "quarter")
        weeks[month["account_id"], month["marketplace_id"], quarter] += month["weeks"]
    totals = {key: with_rates(summed(rows)) for key, rows in quarters.items()}
    found = []
    for (account, marketplace, quarter), row in totals.items():
        before = totals.get((account, marketplace, months_before(quarter, 3)), {})
        year = totals.get((account, marketplace, months_before(quarter, 12)), {})
        changes = {}
        for stage in STAGES:
            share = row[f"{stage}_share"]
            changes[f"{stage}_share_change"] = difference(share, before.get(f"{stage}_share"))
            changes[f"{stage}_share_year_change"] = difference(share, year.get(f"{stage}_share"))
        found.append(
            {
                "account_id": account,
                "marketplace_id": marketplace,
                "weeks": weeks[account, marketplace, quarter],
                **row,
                **changes,
                "period_start": quarter,
                "period_end": last_day(quarter, "quarter"),
            }
        )
    return found


def funnel(row: dict[str, Any], ids: tuple[str, ...]) -> Rows:
    """The three steps of one row's counts."""
    found = []
    for number in (1, 2, 3):
        entered, kept = row[OWN[number - 1]], row[OWN[number]]
        market_entered, market_kept = row[TOTALS[number - 1]], row[TOTALS[number]]
        own_rate, market_rate = divided(kept, entered), divided(market_kept, market_entered)
        found.append(
            {
                **{name: row[name] for name in (*ids, "period_start", "period_end")},
                "step": STAGES[number],
                "step_number": number,
                "own_entered": entered,
                "own_kept": kept,
                "market_entered": market_entered,
                "market_kept": market_kept,
                "own_drop": difference(Decimal(1), own_rate),
                "market_drop": difference(Decimal(1), market_rate),
                "drop_gap": difference(market_rate, own_rate),
            }
        )
    return found


def account_funnels(landing: Landing) -> Rows:
    """The funnel of each account's months."""
    return [
        step
        for row in account_months(landing)
        for step in funnel(row, ("account_id", "marketplace_id"))
    ]


def query_funnels(landing: Landing) -> Rows:
    """The funnel of each ASIN's and query's months."""
    ids = ("account_id", "marketplace_id", "asin", "query_digest", "query")
    return [step for row in expected_period(landing, "month") for step in funnel(row, ids)]


MARTS: dict[str, Callable[[Landing, Thresholds], Rows]] = {
    "query_weeks": lambda landing, _: query_weeks(landing),
    "query_months": lambda landing, _: query_months(landing),
    "account_months": lambda landing, _: account_months(landing),
    "top_queries": top_queries,
    "year_over_year_queries": year_over_year_queries,
    "bleeding_queries": bleeding_queries,
    "ctr_deterioration": ctr_deterioration,
    "share_anomalies": share_anomalies,
    "brand_share_quarterly": lambda landing, _: brand_share_quarterly(landing),
    "account_funnels": lambda landing, _: account_funnels(landing),
    "query_funnels": lambda landing, _: query_funnels(landing),
}
"""Each mart that is compared row by row, with its reference."""
