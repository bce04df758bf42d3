"""dbt's documentation of the models as one page of the site.

What dbt writes asks for a few things that are not there, and does not fit a phone: it is mended
here, and given a content security policy, so that it loads nothing from elsewhere.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from flows.errors import WarehouseError
from flows.settings import PROJECT_ROOT, get_settings, quiet_environment
from flows.site.pages import Site
from flows.warehouse.dbt_build import PROJECT

PAGE = "dbt.html"

POLICY = (
    "default-src 'none'; script-src 'unsafe-inline' 'unsafe-eval'; style-src 'unsafe-inline';"
    " img-src data: blob:; font-src data:; base-uri 'none'; form-action 'none'"
)
"""dbt's page is one file whose scripts and styles are inline: these may run, and nothing else."""

STYLES = """
@media (max-width: 760px) {
  body, .app { min-width: 0 !important; width: 100% !important; }
  .app.app-row { flex-direction: column !important; }
  .app-menu { flex: none; width: 100% !important; height: 34vh !important; }
  .app-menu > .app-header { display: none !important; }
  .app-menu > .app-body { height: 100%; }
  .app-content { flex: none; width: 100% !important; height: 66vh !important; min-width: 0; }
  .app-frame { width: auto !important; min-width: 0 !important; max-width: 100% !important; }
  .app-pad { padding-left: 12px !important; padding-right: 12px !important; }
  .panel-body { overflow-x: auto; overflow-wrap: anywhere; }
}
@media (prefers-color-scheme: dark) {
  html { background: #f4f5f7; filter: invert(.91) hue-rotate(180deg); }
}
"""

MENDED = {
    '<link rel="shortcut icon" href="${require(\'./assets/favicons/favicon.ico\')}"/>': "",
    '<link rel="canonical" href="/overview/"/>': "",
    'xlink:href="{{ getIcon(': 'ng-attr-href="{{ getIcon(',
    "<title>dbt Docs</title>": "<title>Models · Warehouse</title>",
}
"""What is replaced in dbt's page: an icon and an address that are not there, and icons whose
address a browser would ask for before it is known."""


@dataclass(frozen=True)
class Generating:
    """dbt at work in a process of its own, writing into a folder."""

    process: subprocess.Popen[str]
    folder: Path

    def page(self) -> str:
        """What dbt wrote, once it is done.

        Raises:
            WarehouseError: dbt failed; the message has the end of what it said.
        """
        said, _ = self.process.communicate()
        page = self.folder / "static_index.html"
        if self.process.returncode or not page.is_file():
            lines = [line.strip() for line in said.splitlines() if line.strip()]
            raise WarehouseError(
                "dbt could not write the documentation of the models",
                " ".join(lines[-3:]) or f"it ended with status {self.process.returncode}",
                "run `uv run dbt docs generate --project-dir dbt_project` to see all of it",
            )
        return page.read_text("utf-8")


@contextmanager
def generating() -> Iterator[Generating]:
    """Let dbt read the models and the catalogue while the other pages are written."""
    settings = get_settings()
    with tempfile.TemporaryDirectory(prefix="warehouse-docs-") as folder:
        process = subprocess.Popen(
            [
                *(sys.executable, "-c", "from dbt.cli.main import cli; cli()"),
                *("--quiet", "--no-use-colors", "--log-level-file", "none"),
                *("docs", "generate", "--static"),
                *("--project-dir", str(PROJECT), "--profiles-dir", str(PROJECT_ROOT)),
                *("--target-path", folder),
                *_what_was_parsed(),
            ],
            env=dict(os.environ) | quiet_environment() | settings.dbt_environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        try:
            yield Generating(process, Path(folder))
        finally:
            if process.poll() is None:
                process.kill()
                process.communicate()


def _what_was_parsed() -> list[str]:
    """What another dbt run has read of the project already: half of the time is reading it."""
    parsed = PROJECT / "target" / "partial_parse.msgpack"
    return ["--partial-parse-file-path", str(parsed)] if parsed.is_file() else []


def write_models(site: Site, generated: Generating) -> Path:
    """Mend dbt's page and put it into the site."""
    return site.put(PAGE, mended(generated.page()))


def mended(page: str) -> str:
    """dbt's page without requests for what is not there, fit for a phone and for the dark."""
    for found, instead in MENDED.items():
        page = page.replace(found, instead)
    head = (
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        '<meta name="referrer" content="no-referrer">'
        '<link rel="icon" href="data:,">'
        f"<style>{STYLES}</style>"
    )
    return page.replace("<head>", f"<head>{head}", 1)
