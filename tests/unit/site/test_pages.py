"""The frame of the pages, the documents in it, dbt's page made fit, and how they are served."""

from __future__ import annotations

import base64
import hashlib
import http.client
import re
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path

import pytest
import yaml

from flows.errors import UsageError
from flows.settings import PROJECT_ROOT
from flows.site import quality
from flows.site.documents import Document, read_documents, to_html, write_documents
from flows.site.models import MENDED, POLICY, mended
from flows.site.pages import NAVIGATION, Site, policy
from flows.site.plots import MAP_STYLES, plotly_script
from flows.site.serve import HEADERS, served, server

SCRIPT = "<script>alert(1)</script>"


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path / "site", built_at=datetime(2026, 11, 27, tzinfo=UTC))


def test_a_page_allows_its_own_style_sheet_and_no_script(site: Site) -> None:
    page = site.write("a/b.html", "document.html", title=SCRIPT, body="").read_text()
    [sheet] = re.findall("<style>(.*?)</style>", page, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(sheet.encode()).digest()).decode()
    [allowed] = re.findall('Content-Security-Policy" content="([^"]+)"', page)
    allowed = allowed.replace("&#39;", "'")
    assert f"style-src 'sha256-{digest}';" in allowed
    assert "script-src 'none'" in allowed
    assert SCRIPT not in page
    assert page.count("<script") == 0
    for link in NAVIGATION:
        assert f'href="../{link.address}"' in page


def test_scripts_are_files_of_the_site(site: Site) -> None:
    page = site.write(
        "plots.html", "document.html", title="x", body="", scripts=["assets/plots.js"]
    ).read_text()
    assert '<script src="assets/plots.js" defer></script>' in page
    assert "script-src 'self'" in policy(runs_scripts=True)
    assert "unsafe" not in policy(runs_scripts=True)


def test_what_an_earlier_build_left_goes_and_nothing_else(site: Site, tmp_path: Path) -> None:
    Site(site.folder).put("data_docs/old.html", "old")
    for name in ("mine.html", "data_docs/notes.txt"):
        (site.folder / name).write_text("mine")
    site.put("data_docs/new.html", "new")
    site.put("index.html", "new")
    site.remove_others()
    assert sorted(str(path.relative_to(site.folder)) for path in site.folder.rglob("*.*")) == [
        "data_docs/new.html",
        "data_docs/notes.txt",
        "index.html",
        "mine.html",
    ]


def document(text: str, source: str = "docs/runbooks/a.md") -> Document:
    return Document(source, "runbooks/a.html", "a", "", "", text)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("[b](b.md#part)", '<a href="b.html#part">b</a>'),
        ("[d](../decisions/d.md)", '<a href="../decisions/d.html">d</a>'),
        ("[all](../decisions/)", '<a href="../decisions/index.html">all</a>'),
        ("[code](../../flows/cli.py)", "<a>code</a>"),
        ("[out](https://example.com/)", '<a href="https://example.com/" rel="noreferrer">out</a>'),
        (SCRIPT, "&lt;script&gt;alert(1)&lt;/script&gt;"),
        ("[x](javascript:alert(1))", "[x](javascript:alert(1))"),
    ],
)
def test_links_of_documents_lead_to_pages_and_markup_is_text(text: str, shown: str) -> None:
    pages = {
        "docs/runbooks/b.md": "runbooks/b.html",
        "docs/decisions/d.md": "decisions/d.html",
        "docs/decisions": "decisions/index.html",
    }
    assert shown in to_html(document(text), pages)


def test_numbers_of_tables_stand_right_without_a_style_of_their_own() -> None:
    page = to_html(document("| a | b |\n|---|--:|\n| x | 1 |\n"), {})
    assert "style=" not in page
    assert '<td class="number">1</td>' in page


def test_every_runbook_and_decision_has_a_page(site: Site) -> None:
    documents = write_documents(site)
    sources = {each.source for each in documents}
    for folder in ("docs/runbooks", "docs/decisions"):
        written = {f"{folder}/{path.name}" for path in (PROJECT_ROOT / folder).glob("*.md")}
        assert written - sources <= {f"{folder}/README.md"}
    assert all(each.title and (site.folder / each.address).is_file() for each in documents)
    index = (site.folder / "decisions/index.html").read_text()
    days = re.findall(r"<span>(\d{4}-\d{2}-\d{2})\. ", index)
    assert days == sorted(days, reverse=True)
    assert len(days) == len([each for each in documents if each.dated])


def test_documents_that_are_not_there_have_no_page(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("# Title\n\nShort. A sentence that says more.\n")
    [only] = read_documents(tmp_path)
    assert (only.title, only.about) == ("Title", "A sentence that says more.")


def test_dbts_page_is_mended_where_it_is_broken() -> None:
    page = files("dbt.task.docs").joinpath("index.html").read_text("utf-8")
    assert [found for found in MENDED if found not in page] == []
    whole = mended(page)
    assert [found for found in MENDED if found in whole] == []
    assert whole.index(POLICY) < whole.index("<script")


def test_plotlys_script_asks_for_the_sheet_that_the_page_stands_in_for() -> None:
    assert len(MAP_STYLES.findall(plotly_script().decode())) == 1


def test_the_history_is_as_long_as_the_models_say() -> None:
    project = yaml.safe_load((PROJECT_ROOT / "dbt_project/dbt_project.yml").read_text())
    assert project["vars"]["quality_history_days"] == quality.HISTORY_DAYS


def asked(address: str, path: str, **headers: str) -> tuple[int, http.client.HTTPMessage, bytes]:
    host = address.removeprefix("http://").rstrip("/")
    connection = http.client.HTTPConnection(host, timeout=10)
    try:
        connection.request("GET", path, headers={"Host": host} | headers)
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read()
    finally:
        connection.close()


def test_the_site_is_served_to_this_machine_alone(site: Site) -> None:
    site.put("index.html", "<p>it</p>")
    site.put("a/b.html", "b")
    (site.folder.parent / "secret").write_text("secret")
    with served(site.folder) as address:
        assert address.startswith("http://127.0.0.1:")
        status, headers, body = asked(address, "/")
        assert (status, body) == (200, b"<p>it</p>")
        assert {name: headers[name] for name in HEADERS} == HEADERS
        for path in ("/a/", "/missing.html", "/../secret", "/%2e%2e/secret"):
            status, headers, body = asked(address, path)
            assert (status, headers["X-Content-Type-Options"]) == (404, "nosniff")
            assert b"secret" not in body.replace(b"/secret", b"")
        assert asked(address, "/index.html", Host="rebound.example")[0] == 421


def test_a_port_that_is_taken_is_said(site: Site) -> None:
    site.put("index.html", "")
    with server(site.folder) as first, pytest.raises(UsageError, match="cannot be used"):
        server(site.folder, first.server_port)
