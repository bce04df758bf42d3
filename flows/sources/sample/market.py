"""A synthetic market: search queries, the ASINs that they find, and what a period counted.

Nothing but integers and integer draws: floating point would differ between machines in the last
digit. Own counts come from the counts of the stage before, so that what must hold holds by
construction: own ≤ total for each ASIN and for all of them together, and a funnel that narrows.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import date, timedelta
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from flows.sources.deliveries import STAGES, PeriodType
from flows.sources.marketplaces import Marketplace
from flows.sources.periods import period_around
from flows.sources.sample.words import search_queries, words_of

IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

BRAND = "Synthetic Brand"
MISSING = -1
"""A median price where nothing was counted."""

SPEEDS = ("same_day", "one_day", "two_day")
MILLE, MILLION = 1_000, 1_000_000
TOP_VOLUME = 60_000
"""Searches a week for the most popular query; the next ones follow Zipf's law."""

ROWS_PER_ASIN = 1_000
"""Amazon reports no more queries of an ASIN than this."""


class Period(NamedTuple):
    """One reporting period, both days included."""

    period_type: PeriodType
    start: date
    end: date

    @classmethod
    def around(cls, period_type: PeriodType, day: date) -> Period:
        """The period of this type that holds `day`."""
        return cls(period_type, *period_around(period_type, day))


class Product(NamedTuple):
    """One ASIN on sale, with its price in hundredths."""

    asin: str
    parent_asin: str
    name: str
    price: int


@dataclass(frozen=True)
class MarketRows:
    """Rows of one marketplace and period, sorted by ASIN and score.

    `columns` are named as in `deliveries.ROW_SCHEMA` and hold integers: counts as they are,
    shares and rates in ten-thousandths, prices in hundredths or `MISSING`. `asin` and `query`
    are positions in the market's `products` and `queries`.
    """

    market: Market
    period: Period
    columns: Mapping[str, IntArray]

    def __len__(self) -> int:
        return len(self.columns["query"])

    def __getitem__(self, column: str) -> IntArray:
        return self.columns[column]

    def take(self, kept: BoolArray | IntArray) -> MarketRows:
        """The rows that are `kept`: a truth a row, or their positions in a new order."""
        return replace(self, columns={name: of[kept] for name, of in self.columns.items()})

    def of_asins(self, positions: list[int]) -> MarketRows:
        """Only the rows of the ASINs at `positions`."""
        return self.take(np.isin(self["asin"], positions))


@dataclass(frozen=True)
class Market:
    """One marketplace with its products and queries; made by `make_market`.

    `traits` has one value a query, `appeal` one a product for each stage (in thousandths of what
    the market does). A *link* says that a product is found by a query: `links` are sorted by
    query, with the product's share of the impressions in millionths.
    """

    marketplace: Marketplace
    seed: int
    products: tuple[Product, ...]
    queries: tuple[str, ...]
    traits: Mapping[str, IntArray]
    appeal: Mapping[str, IntArray]
    links: Mapping[str, IntArray]

    def draws(self, *purpose: object) -> np.random.Generator:
        """Random numbers that depend on nothing but the seed, the marketplace and `purpose`."""
        return draws(self.seed, self.marketplace.country_code, *purpose)

    def rows(self, period: Period) -> MarketRows:
        """Every link's row of a period. Market totals are the same on all rows of a query."""
        draw = self.draws("counts", period.period_type, period.start)
        totals = self._totals(period, draw)
        query, asin = self.links["query"], self.links["asin"]
        columns = {"asin": asin, "query": query}
        columns |= {name: of_query[query] for name, of_query in totals.items()}
        columns |= self._own_counts(columns, draw)
        columns |= self._own_prices(columns, draw)
        return finished(MarketRows(self, period, columns))

    def _totals(self, period: Period, draw: np.random.Generator) -> dict[str, IntArray]:
        """What all sellers together counted, one value a query."""
        traits, size = self.traits, len(self.queries)
        season = _season(period, traits["amplitude"], traits["phase"])
        noise = draw.integers(920, 1080, size)
        volume = np.maximum(10, traits["volume"] * season // (7 * MILLE) * noise // MILLE)
        impressions = volume * traits["impressions_per_search"]
        totals = {
            "search_query_volume": volume,
            "total_query_impression_count": np.maximum(impressions, 2 * traits["links"]),
        }
        count = volume
        for stage in STAGES:
            noise = draw.integers(900, 1100, size)
            count = np.maximum(1, count * traits[f"{stage}_rate"] * noise // MILLION)
            totals[f"total_{stage}_count"] = count
            noise = draw.integers(950, 1050, size)
            totals[f"total_median_{stage}_price"] = traits["price"] * noise // MILLE
            for speed in SPEEDS:
                shipped = count * traits[speed] // MILLE
                totals[f"total_{speed}_shipping_{stage}_count"] = shipped
        return totals

    def _own_counts(
        self, columns: Mapping[str, IntArray], draw: np.random.Generator
    ) -> dict[str, IntArray]:
        """Each product's part of the totals, one value a row."""
        total = columns["total_query_impression_count"]
        own = 1 + self._portions(total * self.links["share"], total // 2, draw)
        counts = {"own_impression_count": own}
        for stage in STAGES:
            before, total = total, columns[f"total_{stage}_count"]
            appeal = self.appeal[stage][columns["asin"]]
            expected = np.minimum(own * total * appeal // before * MILLE, own * MILLION)
            own = self._portions(expected, total, draw)
            counts[f"own_{stage}_count"] = own
        return counts | self._late_purchases(counts, draw)

    def _late_purchases(
        self, counts: Mapping[str, IntArray], draw: np.random.Generator
    ) -> dict[str, IntArray]:
        """A few rows with a purchase more than clicks: it counts up to 24 hours after the click,
        which may lie in the period before.
        """
        bought = counts["own_purchase_count"]
        late = (bought > 0) & (draw.integers(0, 150, len(bought)) == 0)
        return {
            "own_click_count": np.where(late, bought - 1, counts["own_click_count"]),
            "own_cart_add_count": np.where(late, bought, counts["own_cart_add_count"]),
        }

    def _portions(self, expected: IntArray, total: IntArray, draw: np.random.Generator) -> IntArray:
        """Whole numbers around `expected` (in millionths), at most `total` for all of a query.

        Rounding the running sum from one random start a query leaves each expectation as it is.
        """
        first = self.links["first"]
        running = np.cumsum(expected)
        running -= (running - expected)[first]
        start = draw.integers(0, MILLION, len(self.queries))[self.links["query"]]
        upto: IntArray = np.minimum((running + start) // MILLION, total)
        before = np.concatenate(([0], upto[:-1]))
        before[first == np.arange(len(first))] = 0
        return upto - before

    def _own_prices(
        self, columns: Mapping[str, IntArray], draw: np.random.Generator
    ) -> dict[str, IntArray]:
        """Each product's median prices: its price, less what is off this period."""
        listed = np.array([product.price for product in self.products], dtype=np.int64)
        paid = listed * (MILLE - draw.integers(0, 6, len(listed)) * 20) // MILLE
        return {
            f"own_median_{stage}_price": np.where(
                columns[f"own_{stage}_count"] > 0, paid[columns["asin"]], MISSING
            )
            for stage in STAGES
        }


def draws(*purpose: object) -> np.random.Generator:
    """Random numbers that depend on nothing but `purpose`."""
    digest = hashlib.sha256("\x1f".join(map(str, purpose)).encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:16], "big"))


def make_market(
    marketplace: Marketplace, *, asins: int, queries: int, links: int, seed: int
) -> Market:
    """A market of `asins` products and `queries` queries, with exactly `links` rows a period.

    `links` lies between 1 and asins × queries. The most popular queries find the most products.
    """
    country = marketplace.country_code
    products = _products(country, asins, seed)
    topics = len(words_of(country).products)
    rank = np.arange(queries, dtype=np.int64)
    linked = _links_per_query(rank, asins, links)
    draw = draws(seed, country, "market")

    def between(low: int, high: int, size: int = queries) -> IntArray:
        return draw.integers(low, high + 1, size)

    home = rank % topics * asins // topics + between(0, max(1, asins // topics) - 1)
    prices = np.array([product.price for product in products], dtype=np.int64)
    traits = {
        "links": linked,
        "volume": (20 + TOP_VOLUME // (rank + 2)) * between(800, 1200) // MILLE,
        "impressions_per_search": between(18, 42),
        "click_rate": between(280, 620),
        "cart_add_rate": between(150, 350),
        "purchase_rate": between(150, 450),
        "price": prices[home % asins] * between(800, 1100) // MILLE,
        "amplitude": between(50, 350),
        "phase": between(0, 51),
        "same_day": between(50, 250),
        "one_day": between(200, 400),
        "two_day": between(100, 300),
    }
    query = np.repeat(rank, linked)
    first = np.repeat(np.cumsum(linked) - linked, linked)
    distance = np.arange(links, dtype=np.int64) - first
    return Market(
        marketplace=marketplace,
        seed=seed,
        products=products,
        queries=tuple(search_queries(country, queries)),
        traits=traits,
        appeal={stage: between(600, 1400, asins) for stage in STAGES},
        links={
            "query": query,
            "first": first,
            "asin": (home[query] + distance) % asins,
            "share": between(20_000, 120_000)[query] * 9 // (distance + 3) ** 2,
        },
    )


def finished(rows: MarketRows) -> MarketRows:
    """The rows with their shares, rates and scores, sorted by ASIN and score (1 is best)."""
    columns = dict(rows.columns)
    columns["own_impression_share"] = _ten_thousandths(
        rows["own_impression_count"], rows["total_query_impression_count"]
    )
    for stage in STAGES:
        own, total = rows[f"own_{stage}_count"], rows[f"total_{stage}_count"]
        columns[f"own_{stage}_share"] = _ten_thousandths(own, total)
        columns[f"total_{stage}_rate"] = _ten_thousandths(total, rows["search_query_volume"])
    worth = rows["own_impression_count"] + 20 * rows["own_click_count"]
    worth = worth + 100 * rows["own_purchase_count"]
    order = np.lexsort((rows["query"], -worth, rows["asin"]))
    columns = {name: of[order] for name, of in columns.items()}
    asin = columns["asin"]
    columns["search_query_score"] = 1 + np.arange(len(asin)) - np.searchsorted(asin, asin)
    return replace(rows, columns=columns)


def reported(rows: MarketRows) -> MarketRows:
    """What Amazon would report: a tenth of the queries are not seen in a period, none too many."""
    draw = rows.market.draws("seen", rows.period.period_type, rows.period.start)
    seen = finished(rows.take(draw.integers(0, 10, len(rows)) > 0))
    return seen.take(seen["search_query_score"] <= ROWS_PER_ASIN)


def restated(rows: MarketRows) -> MarketRows:
    """A later version of the same slices: counts moved by some per cent, some queries gone."""
    market, period = rows.market, rows.period
    draw = market.draws("restated", period.period_type, period.start)
    kept = draw.integers(0, 12, len(rows)) > 0
    kept[:1] = True
    rows = rows.take(kept)
    columns = dict(rows.columns)
    total_factor = draw.integers(1002, 1030, len(rows))
    own_factor = draw.integers(950, 1080, len(rows))
    for name, counts in rows.columns.items():
        if name.startswith("own_") and name.endswith("_count"):
            columns[name] = (counts * own_factor + MILLE // 2) // MILLE
        elif name.endswith(("_count", "_volume")):
            columns[name] = counts * total_factor // MILLE
    columns["own_impression_count"] = np.maximum(1, columns["own_impression_count"])
    for stage in ("impression", *STAGES):
        total = f"total_{stage}_count" if stage in STAGES else "total_query_impression_count"
        own = f"own_{stage}_count"
        columns[own] = np.minimum(columns[own], columns[total])
    for stage in STAGES:
        price = f"own_median_{stage}_price"
        columns[price] = np.where(columns[f"own_{stage}_count"] > 0, columns[price], MISSING)
    return finished(replace(rows, columns=columns))


def brand_rows(rows: MarketRows) -> MarketRows:
    """The brand's own counts: the sums over its ASINs. `asin` is 0 on every row."""
    order = np.argsort(rows["query"], kind="stable")
    rows = rows.take(order)
    starts = np.flatnonzero(np.diff(rows["query"], prepend=-1))
    columns = {name: of[starts] for name, of in rows.columns.items()}
    columns["asin"] = np.zeros_like(starts)
    for stage in ("impression", *STAGES):
        own = f"own_{stage}_count"
        columns[own] = np.add.reduceat(rows[own], starts)
    for stage in STAGES:
        price = f"own_median_{stage}_price"
        columns[price] = np.maximum.reduceat(rows[price], starts)
    return finished(replace(rows, columns=columns))


def _products(country: str, count: int, seed: int) -> tuple[Product, ...]:
    """The products of the brand: the same ASINs and prices everywhere, named as locals do."""
    nouns = words_of(country).products
    draw = draws(seed, "products")
    topic_prices = draw.integers(9, 60, len(nouns))
    factors = draw.integers(70, 131, count)
    products = []
    for position, factor in enumerate(factors.tolist()):
        topic = position * len(nouns) // count
        products.append(
            Product(
                asin=f"B0SYN{position + 1:05d}",
                parent_asin=f"B0SYNP{topic + 1:04d}",
                name=f"{BRAND} {nouns[topic].title()} {position + 1:03d}",
                price=int(topic_prices[topic]) * factor // 100 * 100 + 99,
            )
        )
    return tuple(products)


def _links_per_query(rank: IntArray, asins: int, links: int) -> IntArray:
    """How many ASINs each query finds: falling with the rank, `links` in all.

    Every query finds one as long as there are links enough.
    """
    least = int(links >= len(rank))

    def linked(scale: int) -> IntArray:
        return np.clip(scale // (rank + 10), least, asins)

    low, high = 0, asins * (len(rank) + 10)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if linked(middle).sum() <= links else (low, middle)
    found = linked(low)
    missing = links - int(found.sum())
    found[np.argsort(found, kind="stable")[:missing]] += 1
    return found


def _season(period: Period, amplitude: IntArray, phase: IntArray) -> IntArray:
    """The searches of a period in thousandths of a plain day's: a yearly wave and sales peaks."""
    searches = np.zeros_like(phase)
    sunday, _ = period_around(PeriodType.WEEK, period.start)
    while sunday <= period.end:
        first = max(sunday, period.start)
        last = min(sunday + timedelta(days=6), period.end)
        wave = MILLE + amplitude * _sine(phase + sunday.toordinal() // 7) // MILLE
        searches += wave * _peak(sunday) // MILLE * ((last - first).days + 1)
        sunday += timedelta(days=7)
    return searches


def _sine(weeks: IntArray) -> IntArray:
    """1000 sin(2π weeks / 52), by Bhaskara's rational approximation."""
    half, week = np.divmod(weeks % 52, 26)
    product = week * (26 - week)
    height: IntArray = 16 * MILLE * product // (5 * 26 * 26 - 4 * product)
    return np.where(half == 0, height, -height)


def _peak(sunday: date) -> int:
    """How much a sale lifts the week, in thousandths: mid July, early October, late November."""
    saturday = sunday + timedelta(days=6)
    for month, day, lift in ((7, 14, 1600), (10, 7, 1400), (11, 27, 1800)):
        if sunday <= date(saturday.year, month, day) <= saturday:
            return lift
    return MILLE


def _ten_thousandths(part: IntArray, whole: IntArray) -> IntArray:
    """part ÷ whole, rounded half up to four decimals."""
    return (part * 20_000 + whole) // (2 * whole)
