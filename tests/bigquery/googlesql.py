"""Analyses GoogleSQL with Google's own analyser, compiled to WASM: names, types, signatures.

The engine that runs the SQL accepts much that BigQuery does not; this does not run it, and refuses.
Compiling the analyser takes long: its machine code is kept in `.tools`.
"""

from __future__ import annotations

import ctypes
import importlib.metadata
import re
from collections.abc import Iterable, Mapping
from typing import Any

import wasmtime
from zetasql.api import Analyzer, CatalogBuilder, TableBuilder
from zetasql.core import wasm_client
from zetasql.core.exceptions import ServerError
from zetasql.types import (
    AnalyzerOptions,
    LanguageOptions,
    TypeKind,
    ZetaSQLBuiltinFunctionOptions,
)

from flows.settings import PROJECT_ROOT

KINDS = {
    "INTEGER": TypeKind.TYPE_INT64,
    "FLOAT": TypeKind.TYPE_DOUBLE,
    "NUMERIC": TypeKind.TYPE_NUMERIC,
    "BIGNUMERIC": TypeKind.TYPE_BIGNUMERIC,
    "BOOLEAN": TypeKind.TYPE_BOOL,
    "STRING": TypeKind.TYPE_STRING,
    "BYTES": TypeKind.TYPE_BYTES,
    "DATE": TypeKind.TYPE_DATE,
    "DATETIME": TypeKind.TYPE_DATETIME,
    "TIMESTAMP": TypeKind.TYPE_TIMESTAMP,
    "JSON": TypeKind.TYPE_JSON,
}
"""The analyser's kinds by the type names of BigQuery's REST API."""

Columns = Mapping[str, Any]

_PATH = re.compile(r"`([^`.]+)`\.`([^`.]+)`\.`?([\w$-]+)`?")
_TOKEN = re.compile(
    r"(?P<comment>--[^\n]*|\#[^\n]*|/\*.*?\*/)"
    r"|(?P<quoted>'''.*?'''|\"\"\".*?\"\"\"|'(?:\\.|[^'\\])*'|\"(?:\\.|[^\"\\])*\"|`[^`]*`)"
    r"|(?P<end>;)",
    re.DOTALL,
)
_ALIAS = re.compile(r"\bas\s+(?:bigint|integer)\b", re.IGNORECASE)
"""BigQuery's other names of INT64, which the analyser alone does not know."""

_DROP = re.compile(r"drop\s+(?:table|view)\s", re.IGNORECASE)


def _cached_module(engine: wasmtime.Engine, path: str) -> wasmtime.Module:
    versions = "-".join(importlib.metadata.version(name) for name in ("zetasql", "wasmtime"))
    cached = PROJECT_ROOT / ".tools" / f"zetasql-{versions}.cwasm"
    if not cached.exists():
        module = wasmtime.Module.from_file(engine, path)
        draft = cached.with_suffix(".draft")
        draft.write_bytes(module.serialize())
        draft.replace(cached)
        return module
    return wasmtime.Module.deserialize_file(engine, str(cached))


class _Modules:
    from_file = staticmethod(_cached_module)


def _write_bytes(self: Any, ptr: int, data: bytes) -> None:
    ctypes.memmove(ctypes.addressof(self.memory.data_ptr().contents) + ptr, data, len(data))


def _read_bytes(self: Any, ptr: int, size: int) -> bytes:
    return ctypes.string_at(ctypes.addressof(self.memory.data_ptr().contents) + ptr, size)


# Its own copy byte by byte, in Python.
wasm_client.WasmClient.write_bytes = _write_bytes
wasm_client.WasmClient.read_bytes = _read_bytes
wasm_client.Module = _Modules


class GoogleSql:
    """The analyser and the tables that it knows, which grow with what it analyses."""

    def __init__(self, tables: Mapping[str, Columns]) -> None:
        self.tables = dict(tables)
        self._language = LanguageOptions.maximum_features()
        self._functions = ZetaSQLBuiltinFunctionOptions(language_options=self._language)

    def faults(self, scripts: Iterable[str]) -> list[str]:
        """What is wrong with each statement of the scripts, in their order."""
        found = []
        for script in scripts:
            for statement in statements_of(script):
                try:
                    self._analyse(statement)
                except ServerError as error:
                    found.append(f"{error}\n{statement.strip()[:1500]}")
        return found

    def _analyse(self, statement: str) -> None:
        statement = _PATH.sub(r"`\1.\2.\3`", statement)
        statement = _ALIAS.sub("as int64", statement)
        if _DROP.match(statement.strip()):
            return
        catalog = CatalogBuilder("bigquery").with_builtin_functions(self._functions)
        for name, columns in self.tables.items():
            if name in statement:
                table = TableBuilder(name)
                for column, kind in columns.items():
                    table.add_column(column, kind)
                catalog.add_table(table.build())
        analyser = Analyzer(AnalyzerOptions(language_options=self._language), catalog.build())
        resolved = analyser.analyze_statement(statement)
        made = getattr(resolved, "name_path", None)
        columns = getattr(resolved, "output_column_list", None)
        if made and columns and type(resolved).__name__.startswith("ResolvedCreate"):
            self.tables[".".join(made)] = {
                each.name: each.column.type.type_kind for each in columns
            }


def statements_of(script: str) -> list[str]:
    """The statements of a script, without comments."""
    parts, text, last = [], "", 0
    for token in _TOKEN.finditer(script):
        text += script[last : token.start()]
        last = token.end()
        if token["quoted"]:
            text += token["quoted"]
        elif token["end"]:
            parts.append(text)
            text = ""
        else:
            text += " "
    parts.append(text + script[last:])
    return [part for part in parts if part.strip()]
