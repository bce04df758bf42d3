"""The project's own documents as pages: the guide, the runbooks, the decisions."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token

from flows.settings import PROJECT_ROOT
from flows.site.pages import Site

ROOT_DOCUMENTS = {
    "README.md": "guide.html",
    "CONTRIBUTING.md": "contributing.html",
    "CHANGELOG.md": "changelog.html",
    "benchmarks/RESULTS.md": "benchmarks.html",
    "docs/seed-coverage.md": "coverage.html",
}
"""Documents outside the folders that are rendered whole, and their pages."""

FOLDERS = {"docs/runbooks": "runbooks", "docs/decisions": "decisions"}
FOLDER_TITLES = {"runbooks": "Runbooks", "decisions": "Decisions"}
SHORT_SENTENCE = 3
"""Sentences of so few words, such as `Decided.`, say nothing about a document."""

DATED = re.compile(r"^(\d{4}-\d{2}-\d{2})-")


@dataclass(frozen=True)
class Document:
    """A Markdown file of the project and its page.

    Attributes:
        source: the file, from the project's root.
        address: the page, from the site's root.
        about: its first sentence of more than a few words.
        dated: the day in its name, if there is one.
    """

    source: str
    address: str
    title: str
    about: str
    dated: str
    text: str


def write_documents(site: Site, root: Path = PROJECT_ROOT) -> list[Document]:
    """Write a page for every document, and an index for each folder."""
    documents = read_documents(root)
    pages = {document.source: document.address for document in documents}
    pages |= {folder: f"{name}/index.html" for folder, name in FOLDERS.items()}
    for document in documents:
        site.write(
            document.address,
            "document.html",
            title=document.title,
            body=to_html(document, pages),
        )
    for name in FOLDERS.values():
        listed = [each for each in documents if each.address.startswith(f"{name}/")]
        site.write(
            f"{name}/index.html",
            "folder.html",
            title=FOLDER_TITLES[name],
            documents=sorted(sorted(listed, key=_title), key=_dated, reverse=True),
        )
    return documents


def read_documents(root: Path) -> list[Document]:
    """Every document that has a page; READMEs of folders are replaced by their index."""
    addresses = {
        source: address for source, address in ROOT_DOCUMENTS.items() if (root / source).is_file()
    }
    for folder, name in FOLDERS.items():
        for path in sorted((root / folder).glob("*.md")):
            if path.name != "README.md":
                addresses[f"{folder}/{path.name}"] = f"{name}/{path.stem}.html"
    return [_read(root, source, address) for source, address in addresses.items()]


def _title(document: Document) -> str:
    return document.title.lower()


def _dated(document: Document) -> str:
    return document.dated


def _read(root: Path, source: str, address: str) -> Document:
    text = (root / source).read_text("utf-8")
    tokens = _markdown().parse(text)
    inlines = [
        (before.type, token.children or [])
        for before, token in pairwise(tokens)
        if token.type == "inline"
    ]
    titles = [_plain(children) for kind, children in inlines if kind == "heading_open"]
    paragraphs = [_plain(children) for kind, children in inlines if kind == "paragraph_open"]
    dated = DATED.match(Path(source).name)
    return Document(
        source=source,
        address=address,
        title=titles[0] if titles else Path(source).stem,
        about=_first_sentence(" ".join(paragraphs[:3])),
        dated=dated[1] if dated else "",
        text=text,
    )


def to_html(document: Document, pages: dict[str, str]) -> str:
    """A document as HTML: its links lead to pages of the site, and HTML in it is shown as text."""
    markdown = _markdown()
    tokens = markdown.parse(document.text)
    for token in tokens:
        if "right" in str(token.attrs.pop("style", "")):
            token.attrs["class"] = "number"
        for child in token.children or []:
            if child.type == "link_open":
                _lead(child, document, pages)
    return str(markdown.renderer.render(tokens, markdown.options, {}))


def _lead(link: Token, document: Document, pages: dict[str, str]) -> None:
    """Turn a link to a document into one to its page; what has no page is no link any more."""
    target = str(link.attrs["href"])
    if target.startswith(("https://", "http://", "#")):
        link.attrs["rel"] = "noreferrer"
        return
    path, _, anchor = target.partition("#")
    source = posixpath.normpath(posixpath.join(posixpath.dirname(document.source), path))
    page = pages.get(source)
    if page is None:
        del link.attrs["href"]
        return
    here = posixpath.dirname(document.address) or "."
    link.attrs["href"] = posixpath.relpath(page, here) + (f"#{anchor}" if anchor else "")


def _markdown() -> MarkdownIt:
    return MarkdownIt("commonmark", {"html": False}).enable("table")


def _plain(children: Sequence[Token]) -> str:
    return " ".join(
        "".join(" " if each.type == "softbreak" else each.content for each in children).split()
    )


def _first_sentence(text: str) -> str:
    sentences = re.split(r"(?<=[.:!?])\s", text)
    telling = (each for each in sentences if len(each.split()) > SHORT_SENTENCE)
    return next(telling, "").rstrip(":")
