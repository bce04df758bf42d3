"""The plots: shares, funnels, what was delivered when, what was restated; a table behind each.

Python says what is drawn and writes every number (`flows.numbers`); `assets/plots.js` draws it with
plotly in the colours of the page.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from enum import StrEnum
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from flows import numbers
from flows.errors import WarehouseError
from flows.site.pages import ASSETS, Site
from flows.site.rows import Session, rows, rows_of
from flows.warehouse.rows import Row

PAGE = "plots.html"
PLOTLY, DRAWING = "assets/plotly.min.js", "assets/plots.js"

QUERIES_DRAWN = 5
WEEKS_OF_SHARES = 52
WEEKS_OF_CALENDAR = 26
ASINS_DRAWN = 40
RUNS_DRAWN = 30
NAME_LETTERS = 60

MAP_STYLES = re.compile(r'getElementById\("([0-9a-f]{64})"\)')
"""How plotly's script looks whether the style sheets of its maps are there, before it adds them.

The page has no maps and allows no such sheet: it brings empty elements of these ids.
"""

ON_TIME = timedelta(days=7)
"""A slice whose delivery in force came later than this after its week is late, or was restated."""

Panel = tuple[str, str]
"""An account and a marketplace."""

STEPS = {"click": "click", "cart_add": "cart add", "purchase": "purchase"}
WEEK = timedelta(weeks=1)


class Arrival(StrEnum):
    """How an ASIN's week arrived."""

    ON_TIME = "on time"
    LATE = "late or restated"
    HELD = "held back"
    MISSING = "missing"
    AHEAD = "not sold yet"


@dataclass(frozen=True)
class Figure:
    """A plot for `plots.js`, and the table behind it.

    Attributes:
        kind: `lines`, `bars`, `stack` or `calendar`.
        drawing: what is drawn: `x`, `series` with `name`, `y` and `text`, and what the kind needs.
        columns, table: the table; columns whose names begin with `#` hold numbers.
    """

    key: str
    title: str
    about: str
    kind: str
    drawing: dict[str, Any]
    columns: list[str]
    table: list[list[str | None]]
    empty: str = ""

    def for_script(self) -> dict[str, Any]:
        """The figure as `plots.js` reads it."""
        return {"key": self.key, "kind": self.kind, "title": self.title, **self.drawing}


@dataclass(frozen=True)
class PanelPage:
    """The plots of one account and marketplace."""

    label: str
    figures: list[Figure] = field(default_factory=list)


def write_plots(site: Site, session: Session) -> Path:
    """Read the marts, write the page and the scripts that it runs."""
    plotly = plotly_script()
    site.put(PLOTLY, plotly)
    site.put(DRAWING, (ASSETS / "plots.js").read_bytes())
    panels = read_panels(session)
    history = restatements(_runs(session))
    figures = [figure for panel in panels for figure in panel.figures] + [history]
    return site.write(
        PAGE,
        "plots.html",
        title="Plots",
        scripts=(PLOTLY, DRAWING),
        panels=panels,
        history=history,
        map_styles=MAP_STYLES.findall(plotly.decode()),
        drawings=[figure.for_script() for figure in figures if not figure.empty],
    )


def plotly_script() -> bytes:
    """plotly's script, as its Python package brings it.

    Raises:
        WarehouseError: the package is not there or is another than expected.
    """
    package = find_spec("plotly")
    places = package.submodule_search_locations if package else None
    script = Path(next(iter(places or [""]))) / "package_data" / "plotly.min.js"
    if not script.is_file():
        raise WarehouseError(
            "the plots have no script to draw with",
            "the package plotly is not installed, or does not bring plotly.min.js",
            "run `make` to install what uv.lock says",
        )
    return script.read_bytes()


def read_panels(session: Session) -> list[PanelPage]:
    """Every account and marketplace with its plots."""
    countries = {
        row["marketplace_id"]: row["country_code"]
        for row in rows_of(
            session, "sqp.marketplaces", "select marketplace_id, country_code from sqp.marketplaces"
        )
    }
    top, shares = _by_panel(_top_queries(session)), _by_panel(_weekly_shares(session))
    funnels, slices = _by_panel(_funnels(session)), _by_panel(_slices(session))
    return [
        PanelPage(
            label=f"{account} · {countries.get(marketplace, marketplace)}",
            figures=[
                share_trend(f"share-{number}", top[panel], shares[panel]),
                top_queries(f"top-{number}", top[panel]),
                funnel(f"funnel-{number}", funnels[panel]),
                calendar(f"calendar-{number}", slices[panel]),
            ],
        )
        for number, panel in enumerate(
            sorted(set(top) | set(funnels) | set(slices), key=lambda each: (each not in top, each))
        )
        for account, marketplace in [panel]
    ]


def share_trend(key: str, top: Sequence[Row], shares: Sequence[Row]) -> Figure:
    """The click shares of the month's top queries, week by week."""
    drawn = [row for row in top if row["share_rank"] <= QUERIES_DRAWN]
    weeks = _weeks_between(row["period_start"] for row in shares)
    by_query = {
        digest: {row["period_start"]: row for row in shares if row["query_digest"] == digest}
        for digest in (row["query_digest"] for row in drawn)
    }

    def share(digest: bytes, week: date) -> Any:
        return by_query[digest].get(week, {}).get("click_share")

    return Figure(
        key=key,
        title="Share of the top queries",
        about="Own clicks of the market's clicks, of the queries with the largest share in the"
        " newest month. A gap is a week in which no ASIN appeared for the query.",
        kind="lines",
        drawing={
            "x": [numbers.day(week) for week in weeks],
            "unit": " %",
            "series": [
                {
                    "name": _short(row["query"]),
                    "y": [
                        numbers.percent_value(share(row["query_digest"], week)) for week in weeks
                    ],
                    "text": [numbers.percent(share(row["query_digest"], week)) for week in weeks],
                }
                for row in drawn
            ],
        },
        columns=["week of", *(f"#{_short(row['query'])}" for row in drawn)],
        table=[
            [
                numbers.day(week),
                *(numbers.percent(share(row["query_digest"], week)) for row in drawn),
            ]
            for week in reversed(weeks)
        ],
        empty="" if drawn and weeks else "No month has queries to rank yet.",
    )


def top_queries(key: str, top: Sequence[Row]) -> Figure:
    """The newest month's top queries as bars of the first, and all that are kept in the table."""
    drawn = list(reversed(top[: 2 * QUERIES_DRAWN]))
    month = f"{top[0]['period_start']:%Y-%m}" if top else ""
    return Figure(
        key=key,
        title=f"Top queries of {month}" if month else "Top queries",
        about="Click share of the month, the ten largest; the table has all that are kept.",
        kind="bars",
        drawing={
            "x": [_short(row["query"]) for row in drawn],
            "unit": " %",
            "series": [
                {
                    "name": "own share of clicks",
                    "y": [numbers.percent_value(row["share"]) for row in drawn],
                    "text": [numbers.percent(row["share"]) for row in drawn],
                }
            ],
        },
        columns=["#rank", "query", "#own clicks", "#all clicks", "#share", "#against last month"],
        table=[
            [
                numbers.count(row["share_rank"]),
                _short(row["query"], 3 * NAME_LETTERS),
                numbers.count(row["own_count"]),
                numbers.count(row["market_count"]),
                numbers.percent(row["share"]),
                numbers.points(row["share_change"]),
            ]
            for row in top
        ],
        empty="" if top else "No month has queries to rank yet.",
    )


def funnel(key: str, steps: Sequence[Row]) -> Figure:
    """What goes on at each step of the newest month's funnel, own against the market."""
    sides = {"own": "own_drop", "market": "market_drop"}

    def kept(step: Row, side: str) -> Any:
        return None if step[sides[side]] is None else 1 - step[sides[side]]

    month = f"{steps[0]['period_start']:%Y-%m}" if steps else ""
    upwards = list(reversed(steps))
    return Figure(
        key=key,
        title=f"Funnel against the market, {month}" if month else "Funnel against the market",
        about="Of impressions, how many are clicked; of clicks, how many are added to the cart; of"
        " those, how many are bought.",
        kind="bars",
        drawing={
            "x": [STEPS.get(step["step"], step["step"]) for step in upwards],
            "unit": " %",
            "series": [
                {
                    "name": side,
                    "y": [numbers.percent_value(kept(step, side)) for step in upwards],
                    "text": [numbers.percent(kept(step, side)) for step in upwards],
                }
                for side in ("market", "own")
            ],
        },
        columns=[
            "step",
            *("#own", "#of own", "#goes on"),
            *("#market", "#of market", "#goes on"),
            "#gap",
        ],
        table=[
            [
                STEPS.get(step["step"], step["step"]),
                numbers.count(step["own_kept"]),
                numbers.count(step["own_entered"]),
                numbers.percent(kept(step, "own")),
                numbers.count(step["market_kept"]),
                numbers.count(step["market_entered"]),
                numbers.percent(kept(step, "market")),
                numbers.points(None if step["drop_gap"] is None else -step["drop_gap"]),
            ]
            for step in steps
        ],
        empty="" if steps else "No month has been summed up yet.",
    )


def calendar(key: str, slices: Sequence[Row]) -> Figure:
    """Weeks × ASINs: what came on time, late, is held back or missing."""
    weeks = _weeks_between(row["period_start"] for row in slices)
    arrived: dict[str, dict[date, Arrival]] = defaultdict(dict)
    for row in slices:
        arrived[row["asin"]][row["period_start"]] = _arrival(row)
    known_since = {row["asin"]: row["first_week"] for row in slices}

    def at(asin: str, week: date) -> Arrival:
        if week < known_since[asin]:
            return Arrival.AHEAD
        return arrived[asin].get(week, Arrival.MISSING)

    def amiss(asin: str) -> int:
        return sum(at(asin, week) in (Arrival.MISSING, Arrival.HELD) for week in weeks)

    asins = sorted(arrived, key=lambda asin: (-amiss(asin), asin))
    drawn = list(reversed(asins[:ASINS_DRAWN]))
    kinds = list(Arrival)
    more = len(asins) - len(drawn)
    table = []
    for week in reversed(weeks):
        counted = Counter(at(asin, week) for asin in asins)
        absent = [asin for asin in asins if at(asin, week) is Arrival.MISSING]
        table.append(
            [
                numbers.day(week),
                *(numbers.count(counted[kind]) for kind in kinds if kind is not Arrival.AHEAD),
                _listed(absent),
            ]
        )
    return Figure(
        key=key,
        title="What was delivered when",
        about=f"Each week of each ASIN. Late or restated: the delivery in force came more than"
        f" {ON_TIME.days} days after the week."
        + (f" {more:,} more ASINs, with no more gaps than these, are not drawn." if more else ""),
        kind="calendar",
        drawing={
            "x": [numbers.day(week) for week in weeks],
            "y": drawn,
            "kinds": [str(kind) for kind in kinds],
            "cells": [[kinds.index(at(asin, week)) for week in weeks] for asin in drawn],
        },
        columns=[
            "week of",
            *(f"#{kind}" for kind in kinds if kind is not Arrival.AHEAD),
            "missing ASINs",
        ],
        table=table,
        empty="" if slices else "No week has been delivered yet.",
    )


def restatements(runs: Sequence[Row]) -> Figure:
    """What each run that changed something added, changed and removed."""
    parts = {"new": "inserted", "changed": "updated", "vanished": "deleted"}
    return Figure(
        key="restatements",
        title="Restatement history",
        about="Rows that each sync added, found changed, or found gone since they were delivered"
        f" before: the last {RUNS_DRAWN} syncs that changed something, of all accounts.",
        kind="stack",
        drawing={
            "x": [numbers.moment(row["started_at"]) for row in runs],
            "unit": "",
            "series": [
                {
                    "name": name,
                    "y": [int(row[column]) for row in runs],
                    "text": [numbers.count(row[column]) for row in runs],
                }
                for name, column in parts.items()
            ],
        },
        columns=["sync began", *(f"#{name}" for name in parts), "#slices", "first period", "last"],
        table=[
            [
                numbers.moment(row["started_at"]),
                *(numbers.count(row[column]) for column in parts.values()),
                numbers.count(row["slices_changed"]),
                numbers.day(row["period_start"]),
                numbers.day(row["period_end"]),
            ]
            for row in reversed(runs)
        ],
        empty="" if runs else "No sync has changed anything yet.",
    )


def _arrival(row: Row) -> Arrival:
    if row["slice_status"] != "accepted":
        return Arrival.HELD
    return Arrival.ON_TIME if row["came_after"] <= ON_TIME else Arrival.LATE


def _weeks_between(starts: Any) -> list[date]:
    """Every Sunday from the first to the last, without gaps."""
    known = sorted(set(starts))
    if not known:
        return []
    return [known[0] + number * WEEK for number in range((known[-1] - known[0]) // WEEK + 1)]


def _short(text: str, letters: int = NAME_LETTERS) -> str:
    return text if len(text) <= letters else text[: letters - 1].rstrip() + "…"


def _listed(names: Sequence[str], most: int = 8) -> str:
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more:,} more" if more > 0 else "")


def _by_panel(found: Sequence[Row]) -> dict[Panel, list[Row]]:
    panels: dict[Panel, list[Row]] = defaultdict(list)
    for row in found:
        panels[row["account_id"], row["marketplace_id"]].append(row)
    return panels


def _top_queries(session: Session) -> list[Row]:
    """The top queries by clicks of each account's newest month."""
    return rows_of(
        session,
        "sqp.top_queries",
        """
        select
            account_id, marketplace_id, query_digest, query, share_rank, own_count, market_count,
            share, share_change, period_start
        from (
            select
                *,
                max(period_start) over (partition by account_id, marketplace_id) as newest_month
            from sqp.top_queries
            where stage = 'click'
        ) as ranked
        where period_start = newest_month
        order by account_id, marketplace_id, share_rank
        """,
    )


def _weekly_shares(session: Session) -> list[Row]:
    """The weeks of the queries that are drawn."""
    return rows_of(
        session,
        "sqp.query_weeks",
        """
        with drawn as (
            select distinct on (account_id, marketplace_id, share_rank)
                account_id, marketplace_id, query_digest, share_rank
            from sqp.top_queries
            where stage = 'click' and share_rank <= %(queries)s
            order by account_id, marketplace_id, share_rank, period_start desc
        ),

        newest as (
            select max(period_start) as week
            from sqp.query_weeks
        )

        select
            weeks.account_id, weeks.marketplace_id, weeks.query_digest, weeks.period_start,
            weeks.click_share
        from drawn
        cross join newest
        inner join sqp.query_weeks as weeks
            on
                drawn.account_id = weeks.account_id
                and drawn.marketplace_id = weeks.marketplace_id
                and drawn.query_digest = weeks.query_digest
        where weeks.period_start > newest.week - 7 * %(weeks)s
        order by weeks.period_start
        """,
        {"queries": QUERIES_DRAWN, "weeks": WEEKS_OF_SHARES},
    )


def _funnels(session: Session) -> list[Row]:
    """The steps of each account's newest month."""
    return rows_of(
        session,
        "sqp.account_funnels",
        """
        select *
        from (
            select
                *,
                max(period_start) over (partition by account_id, marketplace_id) as newest_month
            from sqp.account_funnels
        ) as funnels
        where period_start = newest_month
        order by account_id, marketplace_id, step_number
        """,
    )


def _slices(session: Session) -> list[Row]:
    """The weeks of ASINs that lie in the calendar, and since when each ASIN is known."""
    return rows(
        session,
        """
        with slices as (
            select
                account_id,
                marketplace_id,
                subject as asin,
                period_start,
                slice_status,
                delivered_at - (period_end + 1)::timestamp at time zone 'UTC' as came_after,
                min(period_start) over (
                    partition by account_id, marketplace_id, subject
                ) as first_week,
                max(period_start) over (partition by account_id, marketplace_id) as newest_week
            from landing.sqp_slices
            where report_view = 'asin' and period_type = 'WEEK'
        )

        select account_id, marketplace_id, asin, period_start, slice_status, came_after, first_week
        from slices
        where period_start > newest_week - 7 * %(weeks)s
        order by account_id, marketplace_id, asin, period_start
        """,
        {"weeks": WEEKS_OF_CALENDAR},
    )


def _runs(session: Session) -> list[Row]:
    """The newest runs that changed something, oldest first."""
    found = rows(
        session,
        """
        select
            min(started_at) as started_at,
            sum(records_inserted) as inserted,
            sum(records_updated) as updated,
            sum(records_deleted) as deleted,
            sum(slices_changed) as slices_changed,
            min(period_start) as period_start,
            max(period_end) as period_end
        from sqp.sync_log
        group by run_id
        having sum(slices_changed) > 0
        order by max(id) desc
        limit %(runs)s
        """,
        {"runs": RUNS_DRAWN},
    )
    return list(reversed(found))
