"""Put slices and rows into landing by SQL, and say what the summaries must then hold.

`Landing` plays the part of the sync: it writes loads, accepts and holds them. It remembers what is
in force, and `expected_weekly`, `expected_period` compute the summaries from that in exact
arithmetic, sharing nothing with the SQL under test.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal
from fractions import Fraction
from typing import Any, NamedTuple, Protocol
from uuid import uuid4

import psycopg
from psycopg import sql

STAGES = ("click", "cart_add", "purchase")
US = "ATVPDKIKX0DER"
UK = "A1F83G8C2ARO7P"


class SliceOf(NamedTuple):
    """What a slice is about; `period_start` of a week is a Sunday."""

    account_id: str
    marketplace_id: str
    period_type: str
    period_start: date
    subject: str
    report_view: str = "asin"

    @property
    def period_end(self) -> date:
        if self.period_type == "WEEK":
            return self.period_start + timedelta(days=6)
        return last_day(self.period_start, self.period_type.lower())


def week(start: date, asin: str, account: str = "acme", marketplace: str = US) -> SliceOf:
    """The weekly slice of an ASIN."""
    return SliceOf(account, marketplace, "WEEK", start, asin)


@dataclass(frozen=True)
class Row:
    """One delivered row: own and market counts, and the median prices."""

    query: str
    own_impressions: int = 40
    own_clicks: int = 8
    own_cart_adds: int = 4
    own_purchases: int = 2
    impressions: int = 1000
    clicks: int = 100
    cart_adds: int = 50
    purchases: int = 20
    score: int | None = 1
    volume: int | None = 500
    click_price: str | None = "10.00"
    own_click_price: str | None = "11.00"
    purchase_price: str | None = "9.50"
    own_purchase_price: str | None = "9.75"
    currency: str | None = "USD"

    @property
    def digest(self) -> bytes:
        return hashlib.sha256(self.query.encode()).digest()[:16]


@dataclass
class Landing:
    """The sync's part of the warehouse, and what is in force in it."""

    connection: psycopg.Connection
    in_force: dict[SliceOf, tuple[int, list[Row]]] = field(default_factory=dict)
    waiting: dict[SliceOf, tuple[int, list[Row]]] = field(default_factory=dict)

    def start_load(self, sync_type: str = "weekly") -> int:
        """A row of `sqp.sync_log`, for a load to belong to."""
        return self.value(
            "insert into sqp.sync_log (run_id, sync_type, source_table, target_table, lease_until)"
            " values (%s, %s, 'test', 'landing.sqp_asin', now()) returning id",
            [uuid4(), sync_type],
        )

    def deliver(self, about: SliceOf, rows: Iterable[Row], *, held: bool = False) -> int:
        """Land a slice and accept it, or hold it back as a failed check would."""
        rows, load_id = list(rows), self.start_load()
        slice_id = self.value(
            """
            insert into landing.sqp_slices (
                account_id, marketplace_id, report_view, period_type, period_start, period_end,
                subject, load_id, slice_digest, row_count, source_file, delivered_at, loaded_at
            ) values (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, 'test.json', now(), now())
            on conflict on constraint sqp_slices_key do update set
                load_id = excluded.load_id, slice_digest = excluded.slice_digest,
                row_count = excluded.row_count, slice_status = 'landed', held_reason = null
            returning slice_id
            """,
            [
                *[about.account_id, about.marketplace_id, about.report_view, about.period_type],
                *[about.period_start, about.period_end, about.subject],
                *[load_id, repr(rows).encode(), len(rows)],
            ],
        )
        self.connection.execute(
            sql.SQL(
                "delete from landing.{} where slice_id = %s and load_id is distinct from ("
                "select accepted_load_id from landing.sqp_slices where slice_id = %s)"
            ).format(sql.Identifier(f"sqp_{about.report_view}")),
            [slice_id, slice_id],
        )
        for line, row in enumerate(rows, start=1):
            self._insert(about, slice_id, load_id, line, row)
        self.waiting[about] = (load_id, rows)
        if held:
            self.connection.execute(
                "update landing.sqp_slices set slice_status = 'held', held_reason = 'a test'"
                " where slice_id = %s",
                [slice_id],
            )
        else:
            self.accept(about)
        return load_id

    def accept(self, about: SliceOf) -> None:
        """Put the slice's last load in force and drop the one before."""
        load_id, rows = self.waiting.pop(about)
        slice_id = self.value(
            "update landing.sqp_slices set slice_status = 'accepted', held_reason = null,"
            " accepted_load_id = load_id, accepted_digest = slice_digest,"
            " accepted_row_count = row_count, accepted_at = now()"
            " where load_id = %s and account_id = %s and marketplace_id = %s"
            " and period_type = %s and period_start = %s and subject = %s returning slice_id",
            [load_id, *about[:5]],
        )
        self.connection.execute(
            sql.SQL("delete from landing.{} where slice_id = %s and load_id <> %s").format(
                sql.Identifier(f"sqp_{about.report_view}")
            ),
            [slice_id, load_id],
        )
        self.in_force[about] = (load_id, rows)

    def reset(self) -> None:
        """Empty landing and the summaries, as if nothing had ever come."""
        self.connection.execute(
            "truncate landing.sqp_slices, landing.sqp_asin, landing.sqp_brand, sqp.slice_builds,"
            " sqp.changed_queries"
        )
        for summary in ("weekly_summary", "monthly_summary", "quarterly_summary"):
            if self.value("select to_regclass(%s)", [f"sqp.{summary}"]):
                self.connection.execute(sql.SQL("truncate sqp.{}").format(sql.Identifier(summary)))
        self.in_force.clear()
        self.waiting.clear()

    def value(self, query: str, parameters: list[Any] | None = None) -> Any:
        """The first column of the first row."""
        row = self.connection.execute(query, parameters).fetchone()  # type: ignore[arg-type]
        assert row is not None
        return row[0]

    def _insert(self, about: SliceOf, slice_id: int, load_id: int, line: int, row: Row) -> None:
        own = about.report_view
        values: dict[str, Any] = {
            "slice_id": slice_id,
            "load_id": load_id,
            "account_id": about.account_id,
            "marketplace_id": about.marketplace_id,
            "period_type": about.period_type,
            "period_start": about.period_start,
            "period_end": about.period_end,
            own: about.subject,
            "search_query": row.query,
            "query": row.query,
            "query_digest": row.digest,
            "search_query_score": row.score,
            "search_query_volume": row.volume,
            "total_query_impression_count": row.impressions,
            f"{own}_impression_count": row.own_impressions,
            "currency_code": row.currency,
            "source_line": line,
            "slice_digest": b"test",
            "loaded_at": datetime.now(UTC),
            "total_median_click_price": row.click_price,
            f"{own}_median_click_price": row.own_click_price,
            "total_median_purchase_price": row.purchase_price,
            f"{own}_median_purchase_price": row.own_purchase_price,
        }
        for stage in STAGES:
            values[f"total_{stage}_count"] = getattr(row, f"{stage}s")
            values[f"{own}_{stage}_count"] = getattr(row, f"own_{stage}s")
        self.connection.execute(
            "select app.create_monthly_partition(%s, %s)",
            [f"landing.sqp_{own}", about.period_start],
        )
        self.connection.execute(
            sql.SQL("insert into landing.{} ({}) values ({})").format(
                sql.Identifier(f"sqp_{own}"),
                sql.SQL(", ").join(map(sql.Identifier, values)),
                sql.SQL(", ").join([sql.Placeholder()] * len(values)),
            ),
            list(values.values()),
        )


def rounded(value: Fraction | None, places: int) -> Decimal | None:
    """Half away from zero, as SQL's numeric rounds."""
    if value is None:
        return None
    scaled = value * 10**places
    whole = scaled.numerator * 2 // scaled.denominator
    return Decimal((whole + 1) // 2).scaleb(-places)


def divided(own: int, total: int) -> Decimal | None:
    """A rate or share to six places; None without a denominator."""
    return rounded(Fraction(own, total), 6) if total else None


def price(text: str | None) -> Decimal | None:
    """A median price as the summaries store it."""
    return None if text is None else Decimal(text).quantize(Decimal("0.0001"), ROUND_HALF_UP)


def weighted(prices: Iterable[tuple[str | None, int]]) -> Decimal | None:
    """The mean of the prices, weighted by the counts beside them."""
    known = [(Fraction(text), weight) for text, weight in prices if text is not None]
    weights = sum(weight for _, weight in known)
    if not weights:
        return None
    return rounded(sum((value * weight for value, weight in known), Fraction(0)) / weights, 4)


def metrics(row: Row) -> dict[str, Any]:
    """The summary's columns that follow from a row's counts."""
    return {
        "query": row.query,
        "query_digest": row.digest,
        "search_query_score": row.score,
        "search_query_volume": row.volume,
        "total_impressions": row.own_impressions,
        "total_clicks": row.own_clicks,
        "total_purchases": row.own_purchases,
        "cart_adds": row.own_cart_adds,
        "avg_ctr": divided(row.own_clicks, row.own_impressions),
        "avg_cvr": divided(row.own_purchases, row.own_clicks),
        "cart_add_rate": divided(row.own_cart_adds, row.own_clicks),
        "impression_share": divided(row.own_impressions, row.impressions),
        "click_share": divided(row.own_clicks, row.clicks),
        "cart_add_share": divided(row.own_cart_adds, row.cart_adds),
        "purchase_share": divided(row.own_purchases, row.purchases),
        "total_query_impression_count": row.impressions,
        "total_click_count": row.clicks,
        "total_cart_add_count": row.cart_adds,
        "total_purchase_count": row.purchases,
        "total_median_cart_add_price": None,
        "asin_median_cart_add_price": None,
        "currency_code": row.currency,
    }


class Weeks(Protocol):
    """Slices and what each holds: landing's own, or what stands in the weekly summary."""

    @property
    def in_force(self) -> Mapping[SliceOf, tuple[int, list[Row]]]: ...


def expected_weekly(landing: Weeks) -> list[dict[str, Any]]:
    """What `sqp.weekly_summary` must hold, without its bookkeeping and updated_at."""
    return [
        {
            "period_start": about.period_start,
            "period_end": about.period_end,
            "account_id": about.account_id,
            "marketplace_id": about.marketplace_id,
            "asin": about.subject,
            **metrics(row),
            "total_median_click_price": price(row.click_price),
            "asin_median_click_price": price(row.own_click_price),
            "total_median_purchase_price": price(row.purchase_price),
            "asin_median_purchase_price": price(row.own_purchase_price),
        }
        for about, row in weekly_rows(landing)
    ]


def weekly_rows(landing: Weeks) -> list[tuple[SliceOf, Row]]:
    """The rows in force of every week of an ASIN."""
    return [
        (about, row)
        for about, (_, rows) in landing.in_force.items()
        if about.period_type == "WEEK" and about.report_view == "asin"
        for row in rows
    ]


def first_day(day: date, period: str) -> date:
    """First day of the month or quarter of a day."""
    month = day.month if period == "month" else 3 * ((day.month - 1) // 3) + 1
    return date(day.year, month, 1)


def last_day(day: date, period: str) -> date:
    """Last day of the month or quarter of a day."""
    months = 1 if period == "month" else 3
    start = first_day(day, period)
    following = start.month - 1 + months
    return date(start.year + following // 12, following % 12 + 1, 1) - timedelta(days=1)


MARKET = ("impressions", "clicks", "cart_adds", "purchases")


def expected_period(landing: Weeks, period: str) -> list[dict[str, Any]]:
    """What `sqp.monthly_summary` or `sqp.quarterly_summary` must hold, without updated_at."""
    markets: dict[tuple[Any, ...], dict[date, list[Row]]] = defaultdict(lambda: defaultdict(list))
    asins: dict[tuple[Any, ...], dict[date, Row]] = defaultdict(dict)
    for about, row in weekly_rows(landing):
        market = (about[0], about[1], first_day(about.period_start, period), row.query)
        markets[market][about.period_start].append(row)
        asins[(*market, about.subject)][about.period_start] = row

    summary = []
    for (account, marketplace, start, query, asin), own_weeks in asins.items():
        weeks = [largest(rows) for rows in markets[account, marketplace, start, query].values()]
        currencies = {
            row.currency
            for rows in markets[account, marketplace, start, query].values()
            for row in rows
            if row.currency
        }
        own = list(own_weeks.values())
        scores = [row.score for row in own if row.score is not None]
        volumes = [row.volume for row in weeks if row.volume is not None]
        total = Row(
            query,
            **{
                f"own_{count}": sum(getattr(row, f"own_{count}") for row in own) for count in MARKET
            },
            **{count: sum(getattr(row, count) for row in weeks) for count in MARKET},
            score=min(scores, default=None),
            volume=sum(volumes) if volumes else None,
            currency=currencies.copy().pop() if len(currencies) == 1 else None,
        )
        prices = {
            "total_median_click_price": weighted((r.click_price, r.clicks) for r in weeks),
            "total_median_purchase_price": weighted((r.purchase_price, r.purchases) for r in weeks),
            "asin_median_click_price": weighted((r.own_click_price, r.own_clicks) for r in own),
            "asin_median_purchase_price": weighted(
                (r.own_purchase_price, r.own_purchases) for r in own
            ),
        }
        months = {"active_months": len({first_day(day, "month") for day in own_weeks})}
        number = start.month if period == "month" else (start.month + 2) // 3
        summary.append(
            {
                "period_start": start,
                "period_end": last_day(start, period),
                "year": start.year,
                period: number,
                "account_id": account,
                "marketplace_id": marketplace,
                "asin": asin,
                **metrics(total),
                **(prices if len(currencies) <= 1 else dict.fromkeys(prices)),
                "active_weeks": len(own),
                "market_weeks": len(weeks),
                **(months if period == "quarter" else {}),
            }
        )
    return summary


def largest(rows: list[Row]) -> Row:
    """The market of a week: of each total, the largest among the account's ASINs."""

    def most(name: str) -> Any:
        known = [getattr(row, name) for row in rows if getattr(row, name) is not None]
        return max(known, default=None)

    def dearest(name: str) -> str | None:
        known = [getattr(row, name) for row in rows if getattr(row, name) is not None]
        return max(known, key=Decimal, default=None)

    return replace(
        rows[0],
        **{name: most(name) for name in (*MARKET, "volume")},
        **{name: dearest(name) for name in ("click_price", "purchase_price")},
    )
