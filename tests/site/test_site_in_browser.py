"""The whole site in a real browser that knows no name: complete, quiet, readable, and true."""

from __future__ import annotations

import html
import re
from typing import Any

import pytest
from playwright.sync_api import Error as BrowserError
from playwright.sync_api import Page

from flows import numbers
from flows.sources.sample.words import SCRIPT_QUERY
from tests.site.browser import DESK, PHONE, SCREENSHOTS, Watched, watched
from tests.site.conftest import HOSTILE, UNCHECKED, Shown

LOOKED_AT = (
    "index.html",
    "quality.html",
    "plots.html",
    "dbt.html",
    "data_docs/index.html",
    "data_docs/landed_slices.html",
    "runbooks/alerts.html",
    "decisions/index.html",
)


def wrong_with(shown: Shown, view: Watched, pages: list[str], picture: str = "") -> list[str]:
    """What is wrong with pages in a window: each with the page that it is on."""
    found = []
    for page in pages:
        view.wrong.clear()
        view.open(shown.address + page)
        found += [f"{page}: {what}" for what in view.wrong]
        if (overflow := view.overflow()) > 0:
            found.append(f"{page}: {overflow} px wider than the window")
        if picture:
            SCREENSHOTS.mkdir(exist_ok=True)
            name = page.replace("/", "-").removesuffix(".html")
            view.page.screenshot(path=SCREENSHOTS / f"{name}-{picture}.png", full_page=True)
    return found


def cells(page: Page, label: str) -> list[list[str]]:
    """The rows of the table in the region of this name, as its text; closed details count too."""
    return page.evaluate(
        """label => [...document.querySelectorAll(`[aria-label="${CSS.escape(label)}"] tbody tr`)]
            .map(row => [...row.children].map(cell => cell.textContent.trim()))""",
        label,
    )


@pytest.fixture
def view(browser: Any) -> Any:
    with watched(browser) as found:
        yield found


def test_the_browser_reaches_no_other_machine(view: Watched) -> None:
    with pytest.raises(BrowserError, match="ERR_NAME_NOT_RESOLVED"):
        view.page.goto("http://localhost.example/")


def test_what_is_wrong_with_a_page_is_noticed(shown: Shown, view: Watched) -> None:
    broken = shown.folder / "broken.html"
    broken.write_text(
        "<script src='http://cdn.example/x.js'></script><img src='missing.png'>"
        "<script>alert(1); console.error('no'); document.title = nothing.at</script>"
        "<p style='width: 5000px'>wide</p>"
    )
    try:
        found = " ".join(wrong_with(shown, view, ["broken.html"]))
    finally:
        broken.unlink()
    for sign in ("cdn.example", "404", "dialog: 1", "error: no", "uncaught", "wider"):
        assert sign in found


def test_every_page_is_complete_and_fits_a_phone(shown: Shown, browser: Any) -> None:
    assert len(shown.pages()) > 45
    with watched(browser, PHONE) as view:
        assert wrong_with(shown, view, shown.pages()) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(("size", "window"), [(DESK, "desk"), (PHONE, "phone")])
def test_the_main_pages_in_light_and_dark(
    scheme: Any, size: tuple[int, int], window: str, shown: Shown, browser: Any
) -> None:
    assert set(LOOKED_AT) <= set(shown.pages())
    with watched(browser, size, scheme) as view:
        assert wrong_with(shown, view, list(LOOKED_AT), f"{window}-{scheme}") == []
        page = view.open(shown.address + "index.html")
        paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
        light = sum(int(part) for part in paper[4:-1].split(",")) > 3 * 128
        assert light == (scheme == "light")


def test_every_link_leads_to_a_page(shown: Shown) -> None:
    links = {
        (name, html.unescape(link))
        for name in shown.pages()
        if name != "dbt.html"
        for link in re.findall(r'<a [^>]*href="([^"]+)"', (shown.folder / name).read_text())
    }
    assert len(links) > 300
    assert [
        (name, link)
        for name, link in sorted(links)
        if not link.startswith(("https://", "#"))
        and not (shown.folder / name).parent.joinpath(link.partition("#")[0]).is_file()
    ] == []


def test_pages_are_whole_without_a_server(shown: Shown, view: Watched) -> None:
    for name in ("quality.html", "plots.html"):
        view.open((shown.folder / name).as_uri())
    assert view.wrong == []
    assert view.page.locator("#restatements .main-svg").count() > 0


def test_the_models_page_leads_everywhere(shown: Shown, view: Watched) -> None:
    page = view.open(shown.address + "dbt.html")
    page.get_by_role("link", name="quality page").click()
    page.wait_for_url("**/quality.html")
    view.open(shown.address + "dbt.html#!/model/model.warehouse.weekly_summary")
    page.get_by_text("One row per").first.wait_for()
    view.open(shown.address + "dbt.html#!/metric/metric.warehouse.click_share")
    page.get_by_text("Own clicks ÷ the market's").first.wait_for()
    assert view.wrong == []


# What comes from data is text.


def test_a_query_that_is_a_script_is_shown_as_text(shown: Shown, view: Watched) -> None:
    page = view.open(shown.address + "plots.html")
    page.select_option("#panel", label="default · US")
    shown_queries = {
        row[1]
        for number in range(page.locator("#panel option").count())
        for row in page.evaluate(
            """number => [...document.querySelectorAll(
                `[data-panel="${number}"] section[aria-labelledby^="top-"] tbody tr`)]
                .map(row => [...row.children].map(cell => cell.textContent.trim()))""",
            number,
        )
    }
    assert SCRIPT_QUERY in shown_queries
    drawn = page.evaluate(
        """() => [...document.querySelectorAll('.plot text')].map(text => text.textContent)"""
    )
    assert SCRIPT_QUERY in drawn
    assert view.wrong == []


def test_hostile_texts_are_shown_as_they_are(shown: Shown, view: Watched) -> None:
    page = view.open(shown.address + "quality.html")
    [refused] = cells(page, "Refused rows")
    assert refused[:3] == ["default", "bad_text", "1"]
    assert refused[5].startswith(HOSTILE)
    assert HOSTILE in {row[4] for row in cells(page, "Checks that fail or warn")}
    assert page.locator("thead th", has_text=UNCHECKED).count() > 0
    [brand] = [name for name in shown.pages() if "landed_slices-landing_sqp_brand" in name]
    page = view.open(shown.address + brand)
    assert page.get_by_text(f"default / {HOSTILE}", exact=True).count() == 1
    assert page.locator("img").count() == 0
    assert view.wrong == []


@pytest.mark.parametrize("name", LOOKED_AT)
def test_no_page_runs_what_is_written_into_it(name: str, shown: Shown, view: Watched) -> None:
    page = view.open(shown.address + name)
    policy = page.locator("meta[http-equiv=Content-Security-Policy]").get_attribute("content") or ""
    assert "default-src 'none'" in policy
    if name == "dbt.html":  # dbt's own scripts are inline: it may run them, and fetch nothing
        assert "connect-src" not in policy
        return
    assert "unsafe" not in policy.split("style-src")[0]
    page.evaluate(
        """() => {
            const script = document.createElement('script');
            script.textContent = 'window.hacked = true';
            document.body.append(script);
            document.body.insertAdjacentHTML('beforeend', '<img src=x onerror="hacked = true">');
        }"""
    )
    page.wait_for_timeout(100)
    assert page.evaluate("window.hacked") is None


# The numbers are those of the database.


def query(shown: Shown, statement: str) -> list[tuple[Any, ...]]:
    return shown.connection.execute(statement).fetchall()  # type: ignore[call-overload]


def test_the_quality_page_says_what_the_database_says(shown: Shown, view: Watched) -> None:
    page = view.open(shown.address + "quality.html")
    newest = """
        select distinct on (
            check_type, check_name, table_name, column_name,
            check_metadata ->> 'report_view', check_metadata ->> 'period_type'
        ) *
        from sqp.data_quality_checks
        order by
            check_type, check_name, table_name, column_name,
            check_metadata ->> 'report_view', check_metadata ->> 'period_type', id desc
    """
    [(checks, amiss, failed)] = query(
        shown,
        f"""
        select
            count(*), count(*) filter (where check_status <> 'passed'),
            count(*) filter (where check_status = 'failed')
        from ({newest}) as newest
        """,
    )
    assert page.locator("#checks").inner_text() == numbers.count(checks)
    assert page.locator("#problems").inner_text() == numbers.count(amiss)
    assert len(cells(page, "Checks that fail or warn")) == amiss
    assert f"{failed} of the newest checks fail" in page.locator("#verdict").inner_text()

    for table in ("sqp.weekly_summary", "sqp.monthly_summary", "landing.sqp_asin"):
        wanted = query(
            shown,
            f"""
            select check_name, source_value, target_value, difference_pct
            from ({newest}) as newest
            where
                table_name = '{table}' and check_type <> 'dbt_test'
                and source_value is not null and target_value is not null
            """,
        )
        assert len(wanted) > 5
        assert sorted(
            (row[1], *row[3:6]) for row in cells(page, f"Source and target of {table}")
        ) == sorted(
            (
                name,
                numbers.count(source),
                numbers.count(target),
                numbers.deviation(difference) or "–",
            )
            for name, source, target, difference in wanted
        )


def test_freshness_and_history_are_those_of_the_database(shown: Shown, view: Watched) -> None:
    page = view.open(shown.address + "quality.html")
    fresh = query(
        shown,
        """
        select
            account_id, table_name, is_stale, latest_period::text,
            days_old || ' of ' || stale_after_days
        from sqp.account_freshness
        """,
    )
    assert sorted((row[0], row[2], row[3], row[4], row[5]) for row in cells(page, "Freshness")) == (
        sorted(
            (account, table, "stale" if stale else "fresh", day or "–", age or "–")
            for account, table, stale, day, age in fresh
        )
    )
    [first] = query(
        shown,
        """
        select sum(records_processed), sum(records_inserted), count(*)
        from sqp.sync_log
        where run_id = (select run_id from sqp.sync_log order by id limit 1)
        """,
    )
    runs = cells(page, "Runs")
    assert len(runs) == 2
    assert runs[1][4:6] == [numbers.count(first[0]), numbers.count(first[1])]
    assert runs[1][1].startswith("fails")
    assert runs[0][1].startswith("unknown")


def test_a_table_that_no_check_looked_at_is_not_green(shown: Shown, view: Watched) -> None:
    page = view.open(shown.address + "quality.html")
    accounts = page.evaluate(
        """() => [...document.querySelector('[aria-label="Verdicts"] thead tr').children]
            .map(cell => cell.textContent)"""
    )
    [table] = [row for row in cells(page, "Verdicts") if row[0] == "landing.sqp_asin"]
    verdicts = dict(zip(accounts, table, strict=True))
    assert verdicts[UNCHECKED].startswith("unknown")
    assert "no check" in verdicts[UNCHECKED]
    assert verdicts["default"].startswith(("ok", "warns"))


def test_the_plots_are_drawn_from_what_sql_says(shown: Shown, view: Watched) -> None:
    page = view.open(shown.address + "plots.html")
    panels = page.locator("#panel option").all_inner_texts()
    number = panels.index("default · US")
    page.select_option("#panel", str(number))
    assert page.locator("[data-panel]:visible").count() == 1
    for key in ("share", "top", "funnel", "calendar"):
        page.locator(f"#{key}-{number} .main-svg").first.wait_for()

    top = query(
        shown,
        """
        select share_rank, query, own_count, market_count, share
        from sqp.top_queries
        where
            stage = 'click' and account_id = 'default' and marketplace_id = 'ATVPDKIKX0DER'
            and period_start = (
                select max(period_start) from sqp.top_queries
                where account_id = 'default' and marketplace_id = 'ATVPDKIKX0DER'
            )
        order by share_rank
        """,
    )
    section = f"section[aria-labelledby={{}}-{number}-title] tbody tr"
    rows = table_of(page, section.format("top"))
    assert [[row[0], row[1][:100], *row[2:5]] for row in rows] == [
        [
            numbers.count(rank),
            name[:100],
            numbers.count(own),
            numbers.count(market),
            numbers.percent(share),
        ]
        for rank, name, own, market, share in top
    ]
    assert len(top) > 3

    steps = query(
        shown,
        """
        select own_kept, own_entered, 1 - own_drop, market_kept, market_entered, 1 - market_drop
        from sqp.account_funnels
        where
            account_id = 'default' and marketplace_id = 'ATVPDKIKX0DER'
            and period_start = (select max(period_start) from sqp.account_funnels)
        order by step_number
        """,
    )
    assert [row[1:7] for row in table_of(page, section.format("funnel"))] == [
        [
            numbers.count(own),
            numbers.count(of_own),
            numbers.percent(goes_on),
            numbers.count(market),
            numbers.count(of_market),
            numbers.percent(market_goes_on),
        ]
        for own, of_own, goes_on, market, of_market, market_goes_on in steps
    ]

    late = query(
        shown,
        """
        select
            period_start::text,
            count(*) filter (where delivered_at <= period_end + 8),
            count(*) filter (where delivered_at > period_end + 8)
        from landing.sqp_slices
        where
            account_id = 'default' and marketplace_id = 'ATVPDKIKX0DER'
            and report_view = 'asin' and period_type = 'WEEK'
        group by period_start
        order by period_start desc
        """,
    )
    assert [tuple(row[:3]) for row in table_of(page, section.format("calendar"))] == [
        (week, str(on_time), str(after)) for week, on_time, after in late
    ]
    assert sum(after for _, _, after in late) > 0


def table_of(page: Page, rows: str) -> list[list[str]]:
    """The cells of some rows, also of a closed table."""
    return page.evaluate(
        """rows => [...document.querySelectorAll(rows)]
            .map(row => [...row.children].map(cell => cell.textContent.trim()))""",
        rows,
    )


def test_plots_follow_the_colours_of_the_page(shown: Shown, view: Watched) -> None:
    page = view.open(shown.address + "plots.html")
    ink = "getComputedStyle(document.querySelector('#restatements .xtick text')).fill"
    light = page.evaluate(ink)
    page.emulate_media(color_scheme="dark")
    for _ in range(100):
        if page.evaluate(ink) != light:
            break
        page.wait_for_timeout(100)
    else:
        pytest.fail("the plots kept their colours")
    assert view.wrong == []
