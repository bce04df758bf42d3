"""The site: every page of it, written from the warehouse as it is now.

dbt reads the models in a process of its own while the pages of numbers are written.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from flows.settings import PROJECT_ROOT
from flows.site.data_docs import write_data_docs
from flows.site.documents import write_documents
from flows.site.models import generating, write_models
from flows.site.pages import NAVIGATION, Site
from flows.site.plots import write_plots
from flows.site.quality import Quality, write_quality
from flows.site.rows import reading

FOLDER = PROJECT_ROOT / "site"
INDEX = "index.html"
DOCUMENTS = ("guide.html", "contributing.html", "changelog.html", "coverage.html")
"""The documents that the index links beside the navigation."""


@dataclass(frozen=True)
class SiteReport:
    """What was written, and what the quality page says."""

    folder: Path
    pages: int
    verdict: str
    headline: str
    seconds: float

    @property
    def index(self) -> Path:
        """Where to begin to read."""
        return self.folder / INDEX


def build_site(folder: Path = FOLDER) -> SiteReport:
    """Write every page into a folder, and remove what an earlier build left there.

    Raises:
        WarehouseError: the warehouse cannot be read, or dbt cannot write its page.
    """
    started = time.perf_counter()
    site = Site(folder)
    with generating() as models:
        with reading() as session:
            _, quality = write_quality(site, session)
            write_plots(site, session)
            write_data_docs(site, session)
        write_index(site, quality)
        write_models(site, models)
    site.remove_others()
    return SiteReport(
        folder=folder,
        pages=sum(path.suffix == ".html" for path in site.written),
        verdict=quality.verdict.word,
        headline=quality.headline,
        seconds=time.perf_counter() - started,
    )


def write_index(site: Site, quality: Quality) -> Path:
    """Write the documents, and the page that everything begins at."""
    documents = {document.address: document for document in write_documents(site)}
    return site.write(
        INDEX,
        "index.html",
        title="Overview",
        quality=quality,
        places=NAVIGATION[1:],
        documents=[documents[address] for address in DOCUMENTS if address in documents],
    )
