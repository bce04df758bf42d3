"""What the table in BigQuery must look like: its columns and their types, as committed.

The contract is `schemas/bigquery_sqp.json`. A table that breaks it is not read at all.
"""

from __future__ import annotations

import difflib
import json
import logging
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from google.cloud.bigquery import SchemaField

from flows.sources.bigquery_client import BigQueryError

CONTRACT = Path(__file__).parent / "schemas" / "bigquery_sqp.json"
STANDARD_NAMES = {"INTEGER": "INT64", "FLOAT": "FLOAT64", "BOOLEAN": "BOOL"}

log = logging.getLogger(__name__)


@cache
def contract() -> dict[str, tuple[str, ...]]:
    """Of each column the types that it may have, as GoogleSQL names them."""
    columns = json.loads(CONTRACT.read_text())["columns"]
    return {name: tuple(types) for name, types in columns.items()}


def check_schema(schema: Sequence[SchemaField], table: str) -> str:
    """Compare a table's schema with the contract; columns beyond it are told in the log.

    Returns:
        the type of `Date`.

    Raises:
        BigQueryError: columns are missing, renamed or of another type; it names each.
    """
    found = {field.name: field for field in schema}
    added = [name for name in found if name not in contract()]
    faults = []
    for name, types in contract().items():
        if name not in found:
            alike = difflib.get_close_matches(name, added, n=1, cutoff=0.8)
            hint = f", perhaps renamed to `{alike[0]}`" if alike else ""
            faults.append(f"column `{name}` is missing{hint} (expected {' or '.join(types)})")
        elif (kind := _type_of(found[name])) not in types:
            faults.append(f"column `{name}` is {kind} (expected {' or '.join(types)})")
    if faults:
        raise BigQueryError(
            f"{table} has changed and was not read",
            "; ".join(faults),
            "give the table its columns back, or change flows/sources/schemas/bigquery_sqp.json"
            " and what reads them",
        )
    for name in added:
        log.warning("%s has a new column `%s`: it is not read", table, name)
    return _type_of(found["Date"])


def _type_of(field: SchemaField) -> str:
    kind = STANDARD_NAMES.get(field.field_type, field.field_type)
    return f"ARRAY<{kind}>" if field.mode == "REPEATED" else kind
