"""The conventions of the dbt project: all hold, and each is seen to fail where it is broken."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from flows.settings import PROJECT_ROOT

CONFIG = PROJECT_ROOT / "dbt-bouncer.yml"
RULES = [rule["name"] for rule in yaml.safe_load(CONFIG.read_text())["manifest_checks"]]

Manifest = dict[str, Any]


def broken_rules(manifest: Manifest, folder: Path) -> set[tuple[str, str]]:
    """The rule (by name and place in dbt-bouncer.yml) and the object of each failure."""
    (folder / "manifest.json").write_text(json.dumps(manifest))
    config = yaml.safe_load(CONFIG.read_text()) | {
        "dbt_artifacts_dir": str(folder),
        "custom_checks_dir": str(PROJECT_ROOT / "conventions"),
    }
    (folder / "dbt-bouncer.yml").write_text(yaml.safe_dump(config))
    found = folder / "found.json"
    subprocess.run(
        [
            *(Path(sys.executable).with_name("dbt-bouncer"), "run"),
            *("--config-file", folder / "dbt-bouncer.yml", "--output-file", found),
        ],
        check=False,
        capture_output=True,
        cwd=folder,
    )
    outcomes = json.loads(found.read_text())
    outcomes = outcomes["results"] if isinstance(outcomes, dict) else outcomes
    assert len(outcomes) > 1000, "rules that looked at nothing hold"
    failed = (each["check_run_id"].split(":") for each in outcomes if each["outcome"] != "success")
    return {(f"{name}:{place}", named) for name, place, named, *_ in failed}


def model(manifest: Manifest, name: str) -> Any:
    return manifest["nodes"][f"model.warehouse.{name}"]


def macro(manifest: Manifest, name: str) -> Any:
    return manifest["macros"][f"macro.warehouse.{name}"]


def describe(name: str, description: str) -> Callable[[Manifest], None]:
    return lambda read: model(read, name).update(description=description)


def forget_grain(read: Manifest) -> None:
    for key, node in list(read["nodes"].items()):
        if node.get("attached_node") == "model.warehouse.seat_inventory" and (
            node.get("test_metadata", {}).get("name") in ("unique", "unique_grain")
        ):
            del read["nodes"][key]


def forget_exposure(read: Manifest) -> None:
    for exposure in read["exposures"].values():
        exposure["depends_on"]["nodes"] = [
            name for name in exposure["depends_on"]["nodes"] if not name.endswith(".week_gaps")
        ]


def column(name: str, called: str, data_type: str | None) -> Callable[[Manifest], None]:
    def break_it(read: Manifest) -> None:
        columns = model(read, name)["columns"]
        like = copy.deepcopy(next(iter(columns.values())))
        columns[called] = like | {"name": called, "data_type": data_type}

    return break_it


def rename(name: str, called: str) -> Callable[[Manifest], None]:
    return lambda read: model(read, name).update(name=called)


def code(name: str, added: str) -> Callable[[Manifest], None]:
    def break_it(read: Manifest) -> None:
        model(read, name)["raw_code"] += added

    return break_it


def macro_code(name: str, added: str) -> Callable[[Manifest], None]:
    def break_it(read: Manifest) -> None:
        macro(read, name)["macro_sql"] += added

    return break_it


def no_contract(read: Manifest) -> None:
    broken = model(read, "top_queries")
    broken["contract"]["enforced"] = broken["config"]["contract"]["enforced"] = False


BREAKS: list[tuple[str, str, Callable[[Manifest], None]]] = [
    ("check_model_description_contains_regexp_pattern", "brand_weekly", describe(
        "brand_weekly", "Brands by week."
    )),
    ("check_source_says_its_grain", "sqp_sync_log", lambda read: read["sources"][
        "source.warehouse.sqp.sync_log"
    ].update(description="Runs.")),
    ("check_model_has_unique_test", "seat_inventory", forget_grain),
    ("check_model_has_contracts_enforced", "top_queries", no_contract),
    ("check_model_columns_have_types", "query_weeks", column("query_weeks", "score", None)),
    ("check_model_has_exposure", "week_gaps", forget_exposure),
    ("check_model_has_an_owner", "sync_alerts", lambda read: model(read, "sync_alerts")[
        "config"
    ].update(group=None)),
    ("check_exposure_has_owner", "brand_reports", lambda read: read["exposures"][
        "exposure.warehouse.brand_reports"
    ]["owner"].update(name=None)),
    ("check_model_names", "stg_landing__sqp_slices", rename(
        "stg_landing__sqp_slices", "landing_slices"
    )),
    ("check_model_names", "int_sqp__slices_to_rebuild", rename(
        "int_sqp__slices_to_rebuild", "slices_to_rebuild"
    )),
    ("check_model_names", "seat_changes", rename("seat_changes", "stg_app__seats")),
    ("check_model_column_names", "query_trends", column("query_trends", "avgCTR", "numeric")),
    ("check_model_column_type_complies_to_column_name", "account_health", column(
        "account_health", "stale", "boolean"
    )),
    ("check_model_column_name_complies_to_column_type", "bleeding_queries", column(
        "bleeding_queries", "is_new", "integer"
    )),
    ("check_model_column_type_complies_to_column_name", "query_months", column(
        "query_months", "built", "timestamptz"
    )),
    ("check_model_column_name_complies_to_column_type", "account_months", column(
        "account_months", "built_at", "text"
    )),
    ("check_model_column_type_complies_to_column_name", "ctr_deterioration", column(
        "ctr_deterioration", "since", "date"
    )),
    ("check_model_column_name_complies_to_column_type", "share_anomalies", column(
        "share_anomalies", "first_date", "text"
    )),
    ("check_properties_file_of_folder", "brand_monthly", lambda read: model(
        read, "brand_monthly"
    ).update(patch_path="warehouse://models/sqp/brand/models.yml")),
    ("check_macro_is_in_its_file", "ratio", lambda read: macro(read, "ratio").update(
        original_file_path="macros/metrics/utils.sql"
    )),
    ("check_macro_arguments_have_types", "rounded", lambda read: macro(read, "rounded")[
        "arguments"
    ][0].update(type=None)),
    ("check_model_code_does_not_contain_regexp_pattern", "account_freshness", code(
        "account_freshness", "\ngroup by 1"
    )),
    ("check_macro_code_does_not_contain_regexp_pattern", "query_totals", macro_code(
        "query_totals", "\nGROUP BY 1, 2"
    )),
    ("check_model_has_no_dead_code", "incomplete_weeks", code(
        "incomplete_weeks", "\n-- and period_start > current_date\n"
    )),
    ("check_macro_has_no_dead_code", "by_stage", macro_code("by_stage", "{# {{ stages() }} #}")),
    ("check_model_hard_coded_references", "data_freshness", code(
        "data_freshness", "\nleft join sqp.weekly_summary as weeks on true"
    )),
    ("check_model_has_semi_colon", "sync_status", code("sync_status", ";")),
]  # fmt: skip
"""In the order of dbt-bouncer.yml: a rule, and one way to break it on an object of its own."""


def test_every_rule_is_broken_once() -> None:
    assert [name for name, *_ in BREAKS] == RULES


def test_all_conventions_hold(manifest: Manifest, tmp_path: Path) -> None:
    assert broken_rules(manifest, tmp_path) == set()


def test_each_broken_convention_is_found(manifest: Manifest, tmp_path: Path) -> None:
    broken = copy.deepcopy(manifest)
    for _, _, break_it in BREAKS:
        break_it(broken)
    assert broken_rules(broken, tmp_path) == {
        (f"{name}:{place}", named) for place, (name, named, _) in enumerate(BREAKS)
    }


def test_sentences_in_comments_are_no_dead_code(manifest: Manifest, tmp_path: Path) -> None:
    told = copy.deepcopy(manifest)
    for sentence in (
        "-- From BigQuery's copy of landing, where there is no register.",
        "-- And so on: a week belongs to its first day.",
        "-- depends_on: {{ ref('weekly_summary') }}",
        "{# Where nothing was noted, all counts as changed. #}",
    ):
        code("week_gaps", f"\n{sentence}\n")(told)
    assert broken_rules(told, tmp_path) == set()
