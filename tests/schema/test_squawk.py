"""squawk over the migrations, as they run: whatever it finds is mended, or explained here."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from types import ModuleType

import pytest

from flows.settings import PROJECT_ROOT
from migrations.operations import LOCK_TIMEOUT, OWNER, STATEMENT_TIMEOUT, ConcurrentIndex

BESIDE_PYTHON = str(Path(sys.executable).parent)
SQUAWK = shutil.which("squawk", path=BESIDE_PYTHON) or shutil.which("squawk")
VERSIONS = sorted((PROJECT_ROOT / "migrations" / "versions").glob("[0-9]*.py"))
FRAME = f"set lock_timeout = '{LOCK_TIMEOUT}';\nset statement_timeout = '{STATEMENT_TIMEOUT}';\n\n"
"""What `migrations/env.py` sets before each migration."""
NO_TRANSACTION = "-- squawk-disable-assume-in-transaction\n"

SAME_RELEASE = "the table is one or two migrations old, of the same release: nobody has filled it"
FEW_ROWS = "a row per connected login or account, some thousand at most: milliseconds"
EXCEPTIONS = {
    "0005": {
        "ban-drop-function": "made anew in the next statement with the same name and arguments:"
        " only its language and its rights differ",
        "prefer-bigint-over-int": "partitions are counted in months or days, at most 1200",
    },
    "0006": {
        "ban-create-domain-with-constraint": "the domain's rule is what a Fernet token looks like"
        " and will not change; a CHECK of the table would show a refused secret in the error",
    },
    "0007": {
        "renaming-object": "the specification's name; the constraint is as old as its table,"
        f" and {SAME_RELEASE}",
        "require-concurrent-index-creation": SAME_RELEASE,
    },
    "0009": {
        "constraint-missing-not-valid": SAME_RELEASE,
        "disallowed-unique-constraint": SAME_RELEASE,
        "require-concurrent-index-creation": SAME_RELEASE,
    },
    "0010": {
        "ban-drop-constraint": "replaced in the same statement by one that allows more",
        "constraint-missing-not-valid": "the table has a few rows per run: its scan takes"
        " milliseconds, and the new list contains the old one",
    },
    "0011": {
        "prefer-bigint-over-int": "pixels, seconds of a film and places in a list, as specified"
    },
    "0012": {"prefer-bigint-over-int": "a job's priority and its tries, as specified"},
    "0013": {"prefer-bigint-over-int": "weeks, percent and tries, as specified"},
    "0014": {"require-concurrent-index-creation": SAME_RELEASE},
    "0017": {
        "ban-drop-default": "only the build writes the column, in a version that sets it",
        "ban-drop-not-null": "only the build reads the column, in a version that expects NULL",
        "require-concurrent-index-creation": "partial, and empty while no slice waits; the table"
        " has a row per slice, which is scanned in milliseconds",
    },
    "0018": {
        "ban-drop-constraint": "replaced in the same statement by one that allows more",
        "constraint-missing-not-valid": "the table has a few rows per run: its scan takes"
        " milliseconds, and the new list contains the old one",
    },
    "0019": {
        "adding-foreign-key-constraint": FEW_ROWS,
        "ban-drop-not-null": "only this version writes rows without an account, and reads them so",
        "constraint-missing-not-valid": FEW_ROWS,
        "disallowed-unique-constraint": FEW_ROWS,
        "require-concurrent-index-creation": FEW_ROWS,
    },
    "0021": {
        "ban-drop-constraint": "replaced in the same statement by one that allows more",
        "constraint-missing-not-valid": "the table has a few rows per run: its scan takes"
        " milliseconds, and the new list contains the old one",
    },
    "0022": {
        "ban-drop-not-null": "only the sync reads the columns, in a version that expects NULL",
        "constraint-missing-not-valid": SAME_RELEASE,
    },
}
"""Revision → rule → why the migration is right as it is. An applied migration never changes."""

pytestmark = pytest.mark.skipif(
    SQUAWK is None, reason="squawk is not installed: it is the package squawk-cli of the dev group"
)


def load(path: Path) -> ModuleType:
    """A module of its own of the migration's file, which a test may change."""
    spec = importlib.util.spec_from_file_location(f"rendered_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def render(path: Path) -> str:
    """What the migration's `upgrade()` sends to the server, in that order.

    All SQL of a migration goes through the functions of `migrations.operations` that it imports.
    """
    module, sent = load(path), []
    assert not hasattr(module, "op"), f"{path.name} goes past migrations.operations"

    def run_sql(statements: str) -> None:
        sent.append(statements.strip())

    def run_as_owner(statements: str) -> None:
        sent.extend([f"set local role {OWNER};", statements.strip(), "set local role none;"])

    def create_concurrently(index: ConcurrentIndex) -> None:
        sent.append(
            f"create index concurrently if not exists {index.name}"
            f" on {index.table} ({index.columns});"
        )

    for replacement in (run_sql, run_as_owner, create_concurrently):
        if hasattr(module, replacement.__name__):
            setattr(module, replacement.__name__, replacement)
    module.upgrade()
    assert sent, f"{path.name} sends nothing: does this test know how it runs its SQL?"
    text = FRAME + "\n".join(sent) + "\n"
    return NO_TRANSACTION + text if hasattr(module, "create_concurrently") else text


def findings(path: Path) -> dict[str, list[str]]:
    """What squawk says about a file, by rule: the line and the message."""
    assert SQUAWK is not None
    ended = subprocess.run(
        [SQUAWK, "--config", PROJECT_ROOT / ".squawk.toml", "--reporter", "json", path],
        capture_output=True,
        text=True,
    )
    assert ended.returncode in (0, 1), ended.stderr
    lines = [*path.read_text().splitlines(), ""]
    found: dict[str, list[str]] = defaultdict(list)
    for one in json.loads(ended.stdout):
        number = one["line"]  # counted from 0
        found[one["rule_name"]].append(f"`{lines[number].strip()}`: {one['message']}")
    return found


@pytest.mark.parametrize("path", VERSIONS, ids=[path.stem for path in VERSIONS])
def test_a_migration_is_clean_but_for_what_is_explained(path, tmp_path):
    rendered = tmp_path / f"{path.stem}.sql"
    rendered.write_text(render(path))
    found = findings(rendered)
    explained = EXCEPTIONS.get(path.stem[:4], {})
    unexplained = [
        f"{rule}: {place}"
        for rule in sorted(found)
        if rule not in explained
        for place in found[rule]
    ]
    assert not unexplained, "\n".join(unexplained)
    assert not set(explained) - set(found), "these exceptions are needed no more"


def test_every_exception_belongs_to_a_migration_and_says_why():
    assert set(EXCEPTIONS) <= {path.stem[:4] for path in VERSIONS}
    assert all(reason for rules in EXCEPTIONS.values() for reason in rules.values())


@pytest.mark.parametrize(
    ("statement", "rule"),
    [
        ("create index on app.users (email);", "require-concurrent-index-creation"),
        ("alter table app.users alter column email type text;", "changing-column-type"),
        ("alter table app.users add column x text not null;", "adding-required-field"),
        ("create table x (id bigint primary key);", "require-table-schema"),
        (
            "create index concurrently on app.users (email);",
            "ban-concurrent-index-creation-in-transaction",
        ),
        ("select from where;", "syntax-error"),
    ],
)
def test_a_planted_fault_is_found(statement, rule, tmp_path):
    path = tmp_path / "planted.sql"
    path.write_text(FRAME + statement + "\n")
    assert rule in findings(path)


def test_the_frame_is_what_satisfies_the_rules_about_timeouts(tmp_path):
    path = tmp_path / "bare.sql"
    path.write_text("alter table app.users add column x text;\n")
    assert {"require-lock-timeout", "require-statement-timeout"} <= set(findings(path))
    path.write_text(FRAME + path.read_text())
    assert not {"require-lock-timeout", "require-statement-timeout"} & set(findings(path))
