"""`warehouse site`: what it says, and that it shows the site until it is stopped."""

from __future__ import annotations

import json
import sys
import webbrowser
from http.server import ThreadingHTTPServer
from pathlib import Path

import pytest

from flows import cli
from flows.site.build import FOLDER, SiteReport


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Where the site was written to, without a warehouse."""
    folders: list[Path] = []

    def build(folder: Path) -> SiteReport:
        folders.append(folder)
        return SiteReport(folder, 58, "warning", "Today's numbers can be used, with care", 12.3)

    monkeypatch.setattr("flows.warehouse.ready.ensure_ready", lambda: None)
    monkeypatch.setattr("flows.site.build.build_site", build)
    monkeypatch.setattr(webbrowser, "get", no_browser)
    return folders


def no_browser() -> None:
    raise webbrowser.Error("there is none")


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["warehouse", "site", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return int(ended.value.code or 0)


def test_it_says_where_the_site_is_and_what_it_says(built, monkeypatch, capsys) -> None:
    assert run(monkeypatch) == 0
    said = capsys.readouterr().out
    assert built == [FOLDER]
    assert said == (
        f"58 pages in 12 s: {FOLDER / 'index.html'}\nToday's numbers can be used, with care\n"
    )


def test_for_a_machine_it_is_one_document(built, monkeypatch, capsys, tmp_path) -> None:
    assert run(monkeypatch, "--to", str(tmp_path), "--json") == 0
    said = json.loads(capsys.readouterr().out)
    assert built == [tmp_path]
    assert (said["pages"], said["verdict"]) == (58, "warning")
    assert said["index"] == str(tmp_path / "index.html")


def test_it_is_shown_until_it_is_stopped(built, monkeypatch, capsys, tmp_path) -> None:
    def stopped(serving: ThreadingHTTPServer, *_: object) -> None:
        assert serving.server_address[0] == "127.0.0.1"
        raise KeyboardInterrupt

    monkeypatch.setattr(ThreadingHTTPServer, "serve_forever", stopped)
    assert run(monkeypatch, "--to", str(tmp_path), "--open") == cli.INTERRUPTED
    assert "http://127.0.0.1:" in capsys.readouterr().out
