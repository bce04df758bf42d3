"""Everything that dbt documents is described, by its manifest; the overview and its dictionary."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import pytest

from flows.settings import PROJECT_ROOT
from flows.site.documents import ROOT_DOCUMENTS
from flows.site.pages import NAVIGATION

OURS = "warehouse"
DBTS_OWN_TESTS = {"not_null", "unique", "accepted_values", "relationships"}
"""Generic tests that dbt brings and explains itself."""

KINDS = ("exposures", "metrics", "groups", "semantic_models", "unit_tests")


def undescribed(manifest: dict[str, Any]) -> list[str]:
    """What has no description: relations, columns, sources, macros, arguments, tests, metrics …"""
    silent = []

    def look(described: dict[str, Any], name: str, key: str = "description") -> None:
        if not (described[key] or "").strip():
            silent.append(name)

    for node in manifest["nodes"].values():
        if node["resource_type"] in ("model", "seed", "snapshot"):
            look(node, node["name"])
        for name, column in node["columns"].items():
            look(column, f"{node['name']}.{name}")
        if node["resource_type"] == "test" and not node.get("test_metadata"):
            look(node, node["name"])
    for source in manifest["sources"].values():
        look(source, source["name"])
        look(source, source["source_name"], "source_description")
        for name, column in source["columns"].items():
            look(column, f"{source['name']}.{name}")
    for macro in manifest["macros"].values():
        if macro["package_name"] == OURS:
            look(macro, macro["name"])
            silent += [f"{macro['name']}({name})" for name in unexplained_arguments(macro)]
    for kind in KINDS:
        for each in manifest[kind].values():
            look(each, each["name"])
    for model in manifest["semantic_models"].values():
        for part in (*model["entities"], *model["dimensions"], *model["measures"]):
            look(part, f"{model['name']}.{part['name']}")
    return silent


def unexplained_arguments(macro: dict[str, Any]) -> list[str]:
    """The arguments of a macro that its YAML does not explain.

    Of generic tests dbt takes no list of arguments: their description has to name each.
    """
    signature = re.search(r"{% (?:macro|test) \w+\((.*?)\)", macro["macro_sql"], re.DOTALL)
    named = signature[1].split(",") if signature and signature[1] else []
    explained = {each["name"] for each in macro["arguments"] if (each["description"] or "").strip()}
    arguments = [name.split("=")[0].strip() for name in named]
    if macro["name"].startswith("test_"):
        explained |= {"model", *re.findall(r"`(\w+)`", macro["description"])}
    return [name for name in arguments if name and name not in explained]


def test_everything_is_described(manifest: dict[str, Any]) -> None:
    assert undescribed(manifest) == []


def test_every_test_is_one_that_is_explained(manifest: dict[str, Any]) -> None:
    explained = {
        macro["name"].removeprefix("test_")
        for macro in manifest["macros"].values()
        if macro["package_name"] == OURS and macro["description"]
    }
    used = {
        node["test_metadata"]["name"]
        for node in manifest["nodes"].values()
        if node.get("test_metadata")
    }
    assert used <= explained | DBTS_OWN_TESTS


def forget(described: dict[str, Any], key: str = "description") -> None:
    described[key] = " "


def first(described: dict[str, Any]) -> Any:
    return next(iter(described.values()))


def ours(manifest: dict[str, Any], kind: str) -> Any:
    return next(n for n in manifest["nodes"].values() if n["resource_type"] == kind)


BREAKS = {
    "a model": lambda read: forget(ours(read, "model")),
    "a model's column": lambda read: forget(first(ours(read, "model")["columns"])),
    "a snapshot": lambda read: forget(ours(read, "snapshot")),
    "a singular test": lambda read: forget(
        next(
            node
            for node in read["nodes"].values()
            if node["resource_type"] == "test" and not node.get("test_metadata")
        )
    ),
    "a source": lambda read: forget(first(read["sources"]), "source_description"),
    "a source's table": lambda read: forget(first(read["sources"])),
    "a source's column": lambda read: forget(first(first(read["sources"])["columns"])),
    "a macro": lambda read: forget(read["macros"]["macro.warehouse.ratio"]),
    "a macro's argument": lambda read: read["macros"]["macro.warehouse.ratio"]["arguments"].pop(),
    **{kind: lambda read, kind=kind: forget(first(read[kind])) for kind in KINDS},
}


@pytest.mark.parametrize("what", BREAKS)
def test_what_is_not_described_is_found(what: str, manifest: dict[str, Any]) -> None:
    broken = copy.deepcopy(manifest)
    BREAKS[what](broken)
    assert len(undescribed(broken)) == 1


def test_relations_and_columns_are_described_in_postgres_too(manifest: dict[str, Any]) -> None:
    assert {
        (node["name"], tuple(node["config"]["persist_docs"].items()))
        for node in manifest["nodes"].values()
        if node["resource_type"] in ("model", "seed", "snapshot")
        and node["config"]["persist_docs"] != {"relation": True, "columns": True}
    } == set()


def overview(manifest: dict[str, Any]) -> str:
    return str(manifest["docs"]["doc.warehouse.__overview__"]["block_contents"])


def test_the_overview_has_five_things_for_day_one(manifest: dict[str, Any]) -> None:
    _, _, rest = overview(manifest).partition("## Five things to do on day one")
    assert re.findall(r"^(\d)\. \*\*", rest.partition("\n## ")[0], re.MULTILINE) == list("12345")


def test_the_dictionary_has_every_metric(manifest: dict[str, Any]) -> None:
    rows = re.findall(r"^\| `(\w+)` \| (.*) \|$", overview(manifest), re.MULTILINE)
    assert sorted(name for name, _ in rows) == sorted(
        metric["name"] for metric in manifest["metrics"].values()
    )
    units = {name: row.split(" | ")[1] for name, row in rows}
    assert {
        metric["name"]: "fraction" if metric["type"] == "ratio" else "count"
        for metric in manifest["metrics"].values()
    } == units
    for name, row in rows:
        assert all(row.split(" | ")[:3]), name


def test_the_overview_leads_to_pages_of_the_site(manifest: dict[str, Any]) -> None:
    pages = {link.address for link in NAVIGATION} | set(ROOT_DOCUMENTS.values())
    links = re.findall(r"\]\(([^)]+)\)", overview(manifest))
    assert len(links) > 5
    assert set(links) <= pages
    assert all((PROJECT_ROOT / Path(source)).is_file() for source in ROOT_DOCUMENTS)
