"""Debian's Chromium, driven by Playwright, with every name but this machine's address unknown."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from playwright.sync_api import Browser, Page, sync_playwright

from flows.settings import PROJECT_ROOT

PROGRAM = Path("/usr/bin/chromium")
MISSING = "Chromium is not installed: Debian has it as the package chromium"
SCREENSHOTS = PROJECT_ROOT / "screenshots"

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
)

Scheme = Literal["light", "dark"]
DESK, PHONE = (1280, 900), (390, 844)


@dataclass
class Watched:
    """A page, and everything that went wrong while it was shown."""

    page: Page
    wrong: list[str] = field(default_factory=list)

    def watch(self) -> None:
        """Note failed requests, errors on the console, uncaught errors and dialogs."""
        page = self.page
        page.on("requestfailed", lambda request: self.wrong.append(f"failed: {request.url}"))
        page.on("response", self._answered)
        page.on("console", self._said)
        page.on("pageerror", lambda error: self.wrong.append(f"uncaught: {error}"))
        page.on("dialog", self._asked)

    def _answered(self, response: Any) -> None:
        if response.status >= 400:
            self.wrong.append(f"{response.status}: {response.url}")

    def _said(self, message: Any) -> None:
        if message.type not in ("log", "info", "debug"):
            self.wrong.append(f"{message.type}: {message.text}")

    def _asked(self, dialog: Any) -> None:
        self.wrong.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    def open(self, url: str) -> Page:
        """Show an address until all is loaded: of pages with scripts, until they are quiet."""
        self.page.goto(url)
        if self.page.locator("script").count():
            self.page.wait_for_load_state("networkidle")
        return self.page

    def overflow(self) -> int:
        """By how many pixels the page is wider than the window."""
        return int(
            self.page.evaluate(
                "document.documentElement.scrollWidth - document.documentElement.clientWidth"
            )
        )


@contextmanager
def chromium() -> Iterator[Browser]:
    """A browser with a profile of its own, which goes with it."""
    with tempfile.TemporaryDirectory(prefix="wh-browser-") as home, sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=str(PROGRAM), args=list(FLAGS), env={"HOME": home}
        )
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def watched(
    browser: Browser, size: tuple[int, int] = DESK, scheme: Scheme = "light"
) -> Iterator[Watched]:
    """A page in a window of this size, of a person who likes it light or dark."""
    context = browser.new_context(
        viewport={"width": size[0], "height": size[1]}, color_scheme=scheme
    )
    try:
        found = Watched(context.new_page())
        found.watch()
        yield found
    finally:
        context.close()
