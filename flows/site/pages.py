"""What the pages of the site share: one frame, one style sheet, and a content security policy each.

Everything from data is escaped by the templates. A page allows exactly its own style sheet, by its
digest, and no script but those that it names as files of the site.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from flows import numbers

HERE = Path(__file__).parent
TEMPLATES, ASSETS = HERE / "templates", HERE / "assets"
STYLES = ASSETS / "site.css"


@dataclass(frozen=True)
class Link:
    """An entry of the navigation: its title, its address from the site's root, what it holds."""

    title: str
    address: str
    about: str


NAVIGATION = (
    Link("Overview", "index.html", "Where to begin."),
    Link("Quality", "quality.html", "Whether today's numbers can be used, table by table."),
    Link("Plots", "plots.html", "Shares, funnels, what was delivered when, what was restated."),
    Link("Models", "dbt.html", "Every table, column, metric and test explained, with lineage."),
    Link("Data Docs", "data_docs/index.html", "Each expectation and what it found, run by run."),
    Link("Runbooks", "runbooks/index.html", "What an operator does, alert by alert."),
    Link("Decisions", "decisions/index.html", "Why it is as it is."),
)


class Site:
    """A folder that pages are written into; `written` is what was."""

    def __init__(self, folder: Path, *, built_at: datetime | None = None) -> None:
        self.folder = folder
        self.built_at = built_at or datetime.now(UTC)
        self.written: set[Path] = set()

    def write(
        self,
        address: str,
        template: str,
        *,
        title: str,
        scripts: Sequence[str] = (),
        **values: Any,
    ) -> Path:
        """Write one page.

        Args:
            address: where in the site, such as `runbooks/alerts.html`.
            scripts: files of the site that the page runs, from the site's root.
        """
        frame = self.frame(address, title=title, scripts=scripts)
        return self.put(address, environment().get_template(template).render(frame | values))

    def frame(
        self,
        address: str,
        *,
        title: str,
        scripts: Sequence[str] = (),
        own_styles_only: bool = True,
    ) -> dict[str, Any]:
        """What `layout.html` needs of a page.

        Args:
            own_styles_only: False where a library writes `style` attributes into the page.
        """
        root = "../" * address.count("/")
        return {
            "root": root,
            "here": address,
            "title": title,
            "styles": styles(),
            "policy": policy(runs_scripts=bool(scripts), own_styles_only=own_styles_only),
            "scripts": [root + script for script in scripts],
            "navigation": NAVIGATION,
            "built_at": self.built_at,
        }

    def put(self, address: str, content: str | bytes) -> Path:
        """Write one file; nobody ever sees half of it."""
        path = self.folder / address
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_name(f".{path.name}.draft")
        draft.write_bytes(content.encode("utf-8") if isinstance(content, str) else content)
        self.written.add(path)
        return draft.replace(path)

    def remove_others(self) -> None:
        """Remove the pages that an earlier build wrote and this one did not.

        Only pages in folders that this build wrote into: what else lies there is not ours.
        """
        for folder in {path.parent for path in self.written} - {self.folder}:
            for page in folder.glob("*.html"):
                if page not in self.written:
                    page.unlink()


@cache
def environment() -> Environment:
    """The templates, with everything escaped and the formats of `flows.numbers`."""
    made = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= formats()
    return made


def formats() -> dict[str, Any]:
    """How templates write numbers: by the name of their kind, a dash where there is none."""
    kinds = (
        numbers.percent,
        numbers.points,
        numbers.deviation,
        numbers.count,
        numbers.day,
        numbers.moment,
        numbers.duration,
    )

    def dashed(kind: Any) -> Any:
        return lambda value: numbers.NOTHING if (text := kind(value)) is None else text

    return {kind.__name__: dashed(kind) for kind in kinds}


@cache
def styles() -> str:
    """The one style sheet, as it stands in every page."""
    return STYLES.read_text("utf-8").strip()


def policy(*, runs_scripts: bool, own_styles_only: bool = True) -> str:
    """A page's content security policy: nothing comes from elsewhere, and nothing inline runs.

    A script may add an empty style element and fill it with rules, as plotly does.
    """
    allowed = f"{digest(styles())} {digest('')}" if runs_scripts else digest(styles())
    if not own_styles_only:
        allowed = "'unsafe-inline'"
    scripts = "'self'" if runs_scripts else "'none'"
    return (
        f"default-src 'none'; script-src {scripts};"
        f" style-src {allowed};"
        " img-src 'self' data: blob:; base-uri 'none'; form-action 'none'"
    )


def digest(text: str) -> str:
    """How a content security policy names an inline style or script."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
