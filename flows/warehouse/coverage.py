"""How the objects that the specifications name stand: as specified, corrected, or missing.

The list of them is `docs/specification/objects.yml`. Each is looked up under its name in the live
catalogue; what dbt builds is looked up in dbt's contract, so that no build is needed; what is no
object of a database (a query, a step, a rule) is held by files and the names in them.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, LiteralString

import psycopg
import yaml

from flows.errors import WarehouseError
from flows.settings import PROJECT_ROOT

LIST = PROJECT_ROOT / "docs/specification/objects.yml"
CONTRACT = PROJECT_ROOT / "dbt_project/models/sqp/summaries/_summaries__models.yml"
COMMAND = "warehouse seed-coverage --write docs/seed-coverage.md"
SCHEMAS = ("app", "sqp", "reporting")
"""Where a name without a schema is looked for, in this order."""


class Kind(StrEnum):
    """What an object is; the value is its key in the list."""

    SCHEMA = "schemas"
    TYPE = "types"
    TABLE = "tables"
    COLUMN = "columns"
    KEY = "keys"
    FOREIGN_KEY = "foreign_keys"
    CHECK = "checks"
    LIST = "lists"
    INDEX = "indexes"
    FUNCTION = "functions"
    TRIGGER = "triggers"
    ROW_SECURITY = "row_security"
    POLICY = "policies"
    PARTITIONS = "partitions"
    RETENTION = "retention"
    STEP = "steps"
    BACKUP = "backups"
    QUERY = "queries"
    DOCUMENT = "documents"
    RULE = "rules"


HEADINGS = {
    Kind.SCHEMA: "Schemas",
    Kind.TYPE: "Enum types",
    Kind.TABLE: "Tables",
    Kind.COLUMN: "Columns",
    Kind.KEY: "Primary and unique keys",
    Kind.FOREIGN_KEY: "Foreign keys",
    Kind.CHECK: "Checks",
    Kind.LIST: "Lists of values",
    Kind.INDEX: "Indexes",
    Kind.FUNCTION: "Functions",
    Kind.TRIGGER: "Triggers",
    Kind.ROW_SECURITY: "Row security",
    Kind.POLICY: "Row policies",
    Kind.PARTITIONS: "Partitions",
    Kind.RETENTION: "Retention",
    Kind.STEP: "Migration and rollback steps",
    Kind.BACKUP: "Backup and recovery",
    Kind.QUERY: "Example and monitoring queries",
    Kind.DOCUMENT: "JSON documents",
    Kind.RULE: "Operating and performance rules",
}


class State(StrEnum):
    """Where an object stands."""

    AS_SPECIFIED = "as specified"
    CORRECTED = "corrected"
    MISSING = "missing"


@dataclass(frozen=True)
class Specified:
    """An object as a specification has it.

    Attributes:
        definition: what it is, in the words of `Catalogue`; None where only its name is said.
        body: a part of a function's body that is the specification's own way.
        stands_as: its name in the catalogue, where that is another one.
        held_by: files (`path` or `path::name`) or relations that hold it, instead of a look-up.
        instead: why it stands differently, in sentences.
    """

    specification: str
    kind: Kind
    name: str
    definition: str | None
    body: str | None
    stands_as: str | None
    held_by: tuple[str, ...]
    instead: tuple[str, ...]


@dataclass(frozen=True)
class Standing:
    """What was found of a specified object.

    Attributes:
        place: its full name, or what holds it; None if it is missing.
        definition: what it is there, where that differs from the specification.
        differs: whether the look-up found a difference; None where none can be seen by looking.
    """

    specified: Specified
    place: str | None
    definition: str | None
    differs: bool | None

    @property
    def state(self) -> State:
        """A difference makes a correction; a reason does too where no look-up can tell."""
        if self.place is None:
            return State.MISSING
        corrected = bool(self.specified.instead) if self.differs is None else self.differs
        return State.CORRECTED if corrected else State.AS_SPECIFIED


@dataclass(frozen=True)
class Catalogue:
    """What stands, by kind and full name, each with its definition in short words."""

    objects: Mapping[Kind, Mapping[str, str]]
    bodies: Mapping[str, str]
    relations: frozenset[str]


def load_list(path: Path = LIST) -> list[Specified]:
    """The objects of the specifications, in the order of the list.

    Raises:
        WarehouseError: the list has a key or a kind that is not known, or an object twice.
    """
    content = yaml.safe_load(path.read_text())
    reasons: dict[str, str] = content["reasons"]
    found: list[Specified] = []
    used: set[str] = set()
    for specification in content["specifications"]:
        title = specification["title"]
        for kind, entries in specification["objects"].items():
            for entry in entries:
                fields = {"name": entry} if isinstance(entry, str) else dict(entry)
                used.update(reason for reason in _texts(fields.get("instead")) if reason in reasons)
                found.append(
                    Specified(
                        specification=title,
                        kind=Kind(kind),
                        name=fields.pop("name"),
                        definition=fields.pop("is", None),
                        body=fields.pop("body", None),
                        stands_as=fields.pop("stands_as", None),
                        held_by=tuple(_texts(fields.pop("held_by", None))),
                        instead=tuple(
                            reasons.get(reason, reason)
                            for reason in _texts(fields.pop("instead", None))
                        ),
                    )
                )
                if fields:
                    raise _bad_list(path, f"{found[-1].name} has the keys {sorted(fields)}")
    names = Counter((entry.specification, entry.kind, entry.name) for entry in found)
    twice = [name for (_, _, name), times in names.items() if times > 1]
    if twice:
        raise _bad_list(path, f"listed twice: {', '.join(twice)}")
    if unused := sorted(reasons.keys() - used):
        raise _bad_list(path, f"reasons that nothing gives: {', '.join(unused)}")
    return found


def _texts(value: str | list[str] | None) -> list[str]:
    return [value] if isinstance(value, str) else list(value or [])


def _bad_list(path: Path, why: str) -> WarehouseError:
    return WarehouseError("the list of specified objects is wrong", why, f"correct {path}")


def read_catalogue(connection: psycopg.Connection[Any]) -> Catalogue:
    """Everything in the schemas of the warehouse, and what dbt's contract promises."""
    with connection.transaction():
        connection.execute("set local search_path = ''")
        objects = {
            kind: {
                f"{schema}.{name}" if schema else name: short(definition)
                for schema, name, definition in connection.execute(COMMON + query).fetchall()
            }
            for kind, query in QUERIES.items()
        }
        bodies = {
            f"{schema}.{name}": _one_line(body)
            for schema, name, body in connection.execute(COMMON + BODIES).fetchall()
        }
        relations = frozenset(name for (name,) in connection.execute(COMMON + RELATIONS).fetchall())
    for kind, name, definition in _contract():
        objects[kind][name] = short(definition)
    return Catalogue(objects, bodies, relations)


def _contract() -> Iterator[tuple[Kind, str, str]]:
    """Tables, columns and keys of the summaries as dbt promises to build them."""
    for model in yaml.safe_load(CONTRACT.read_text())["models"]:
        table = f"sqp.{model['name']}"
        yield Kind.TABLE, table, "table"
        for test in model.get("data_tests", []):
            if "unique_grain" in test:
                columns = ", ".join(test["unique_grain"]["arguments"]["columns"])
                yield Kind.KEY, f"{table} ({columns})", "unique"
        for column in model["columns"]:
            rules = {rule["type"] for rule in column.get("constraints", [])}
            filled = " not null" if "not_null" in rules else ""
            yield Kind.COLUMN, f"{table}.{column['name']}", _on_postgres(column) + filled


def _on_postgres(column: Mapping[str, Any]) -> str:
    """The type of a contract's column; a conditional one names PostgreSQL's beside BigQuery's."""
    data_type = str(column["data_type"])
    if "{{" not in data_type:
        return data_type
    first, second = re.findall(r"'([^']+)' if|else '([^']+)'", data_type)
    return str(first[0] if "== 'postgres'" in data_type else second[1])


COMMON: LiteralString = """
    with tables as (
        select
            classes.oid, namespaces.nspname, classes.relname, classes.relkind,
            classes.relrowsecurity, classes.relforcerowsecurity
        from pg_catalog.pg_class as classes
        inner join pg_catalog.pg_namespace as namespaces on classes.relnamespace = namespaces.oid
        where
            namespaces.nspname in ('app', 'sqp', 'reporting')
            and classes.relkind in ('r', 'p', 'v', 'm')
            and not classes.relispartition
    ),
    functions as (
        select namespaces.nspname, procedures.proname, procedures.oid, procedures.prosrc
        from pg_catalog.pg_proc as procedures
        inner join pg_catalog.pg_namespace as namespaces
            on procedures.pronamespace = namespaces.oid
        where namespaces.nspname in ('app', 'sqp', 'reporting')
    ),
    labels as (
        select
            enumtypid as type_oid,
            string_agg(enumlabel, ', ' order by enumsortorder) as words
        from pg_catalog.pg_enum
        group by enumtypid
    )
"""
QUERIES: dict[Kind, LiteralString] = {
    Kind.SCHEMA: "select null, nspname, 'schema' from pg_catalog.pg_namespace",
    Kind.TYPE: """
        select namespaces.nspname, types.typname, 'enum (' || labels.words || ')'
        from labels
        inner join pg_catalog.pg_type as types on labels.type_oid = types.oid
        inner join pg_catalog.pg_namespace as namespaces on types.typnamespace = namespaces.oid
    """,
    Kind.TABLE: """
        select nspname, relname, 'table' from tables
        where relkind in ('r', 'p')
    """,
    Kind.COLUMN: """
        select
            tables.nspname,
            tables.relname || '.' || columns.attname,
            concat(
                format_type(columns.atttypid, columns.atttypmod),
                case when columns.attnotnull then ' not null' end,
                case when columns.attidentity <> '' then ' generated as identity' end,
                ' default ' || pg_get_expr(defaults.adbin, defaults.adrelid)
            )
        from tables
        inner join pg_catalog.pg_attribute as columns on tables.oid = columns.attrelid
        left join pg_catalog.pg_attrdef as defaults
            on columns.attrelid = defaults.adrelid and columns.attnum = defaults.adnum
        where
            tables.relkind in ('r', 'p', 'v')
            and columns.attnum > 0
            and not columns.attisdropped
    """,
    Kind.KEY: """
        select
            tables.nspname,
            tables.relname || ' (' || (
                select string_agg(
                    replace(pg_get_indexdef(keys.indexrelid, place, true), '::text', ''),
                    ', ' order by place
                )
                from generate_series(1, keys.indnkeyatts) as place
            ) || ')',
            concat(
                case when keys.indisprimary then 'primary key' else 'unique' end,
                case when keys.indnullsnotdistinct then ' nulls not distinct' end,
                ' where ' || pg_get_expr(keys.indpred, keys.indrelid, true)
            )
        from tables
        inner join pg_catalog.pg_index as keys on tables.oid = keys.indrelid
        where keys.indisunique and keys.indisvalid
    """,
    Kind.FOREIGN_KEY: """
        select
            tables.nspname,
            tables.relname || substring(
                pg_get_constraintdef(constraints.oid, true) from '^FOREIGN KEY( [(].*?[)]) REF'
            ),
            substring(pg_get_constraintdef(constraints.oid, true) from 'REFERENCES .*')
        from tables
        inner join pg_catalog.pg_constraint as constraints on tables.oid = constraints.conrelid
        where constraints.contype = 'f'
    """,
    Kind.CHECK: """
        select
            tables.nspname,
            tables.relname || ': '
            || replace(pg_get_expr(constraints.conbin, constraints.conrelid, true), '::text', ''),
            'check'
        from tables
        inner join pg_catalog.pg_constraint as constraints on tables.oid = constraints.conrelid
        where constraints.contype = 'c'
    """,
    Kind.LIST: """
        select
            tables.nspname,
            tables.relname || '.' || columns.attname,
            coalesce(labels.words, (
                select string_agg(literals.word[1], ', ')
                from regexp_matches(
                    pg_get_expr(constraints.conbin, constraints.conrelid), '''([^'']+)''::', 'g'
                ) as literals (word)
            ))
        from tables
        inner join pg_catalog.pg_attribute as columns on tables.oid = columns.attrelid
        left join labels on columns.atttypid = labels.type_oid
        left join pg_catalog.pg_constraint as constraints
            on
                tables.oid = constraints.conrelid
                and constraints.contype = 'c'
                and constraints.conkey = array[columns.attnum]
                and pg_get_expr(constraints.conbin, constraints.conrelid) like '%= ANY (%ARRAY%'
        where
            coalesce(labels.type_oid, constraints.oid) is not null
    """,
    Kind.INDEX: """
        select
            tables.nspname,
            indexes.relname,
            concat(
                case when keys.indisunique then 'unique ' end,
                'on ' || tables.relname || ' ',
                substring(pg_get_indexdef(keys.indexrelid, 0, true) from 'USING (.*)')
            )
        from tables
        inner join pg_catalog.pg_index as keys on tables.oid = keys.indrelid
        inner join pg_catalog.pg_class as indexes on keys.indexrelid = indexes.oid
        where keys.indisvalid
    """,
    Kind.FUNCTION: """
        select
            functions.nspname,
            functions.proname,
            '(' || pg_get_function_arguments(functions.oid) || ') returns '
            || pg_get_function_result(functions.oid)
        from functions
    """,
    Kind.TRIGGER: """
        select
            tables.nspname,
            tables.relname || '.' || triggers.tgname,
            regexp_replace(
                substring(
                    pg_get_triggerdef(triggers.oid, true)
                    from '((BEFORE|AFTER|INSTEAD OF) .*)'
                ),
                ' ON [^ ]+', ''
            )
        from tables
        inner join pg_catalog.pg_trigger as triggers on tables.oid = triggers.tgrelid
        where not triggers.tgisinternal
    """,
    Kind.ROW_SECURITY: """
        select
            tables.nspname,
            tables.relname,
            case when tables.relforcerowsecurity then 'enabled and forced' else 'enabled' end
        from tables
        where tables.relrowsecurity
    """,
    Kind.POLICY: """
        select
            schemaname,
            tablename || '.' || policyname,
            concat(
                'for ' || cmd,
                ' to ' || array_to_string(roles, ', '),
                ' using ' || case when qual like '(%' then qual else '(' || qual || ')' end,
                ' with check '
                || case when with_check like '(%' then with_check else '(' || with_check || ')' end
            )
        from pg_catalog.pg_policies
        where schemaname in ('app', 'sqp', 'reporting')
    """,
    Kind.PARTITIONS: """
        select
            tables.nspname,
            tables.relname,
            concat(
                'by ' || pg_get_partkeydef(tables.oid),
                ', one a ' || policies.partition_unit,
                ', ' || policies.partitions_behind || ' behind',
                ', ' || policies.partitions_ahead || ' ahead'
            )
        from tables
        inner join app.table_policies as policies
            on tables.nspname || '.' || tables.relname = policies.relation
        where tables.relkind = 'p'
    """,
    Kind.RETENTION: """
        select
            split_part(relation, '.', 1),
            split_part(relation, '.', 2),
            concat(
                retention_keep || ' after ' || retention_key,
                ' when ' || retention_when_column,
                ' is ' || array_to_string(retention_when_values, ', ')
            )
        from app.table_policies
        where retention_key is not null
    """,
}
BODIES: LiteralString = "select nspname, proname, prosrc from functions"
RELATIONS: LiteralString = "select nspname || '.' || relname from tables"

SHORTER = (
    (r"\btimestamp with time zone\b", "timestamptz"),
    (r"\bcharacter varying\b", "varchar"),
    (r"::[a-z_.]+(\(\d+\))?(\[\])?", ""),
    (r"\b(app|sqp|reporting)\.", ""),
    (r"\busing btree (?=\()|\bbtree (?=\()", ""),
    (r"\bcurrent_timestamp\b", "now()"),
    (r"\(\((\w+)\)\)", r"(\1)"),
    (r" = true\b", ""),
    (r"(?<=[\w)]) as uid\b", ""),
    (r"(?<=\d),(?=\d)", ", "),
)


def short(definition: str) -> str:
    """A definition in small letters and one line, without schemas, casts and other spellings."""
    text = _one_line(definition)
    for pattern, replacement in SHORTER:
        text = re.sub(pattern, replacement, text)
    text = re.sub(r"where \((\w[^()]*)\)$", r"where \1", text)
    return text.replace("( ", "(")


def _one_line(text: str) -> str:
    return re.sub(r"\s+", " ", text).strip().lower()


def look_up(specified: Iterable[Specified], catalogue: Catalogue) -> list[Standing]:
    """Find each object by its name, and compare what it is with what was specified."""
    return [
        _held(entry, catalogue) if entry.held_by else _found(entry, catalogue)
        for entry in specified
    ]


def _held(entry: Specified, catalogue: Catalogue) -> Standing:
    """Whether every file and relation that is said to hold the object is there."""
    there = all(_is_there(reference, catalogue) for reference in entry.held_by)
    return Standing(entry, ", ".join(entry.held_by) if there else None, None, None)


def _is_there(reference: str, catalogue: Catalogue) -> bool:
    path, _, name = reference.partition("::")
    if "/" not in path and "." in path and (PROJECT_ROOT / path).suffix not in {".md", ".toml"}:
        return path in catalogue.relations
    file = PROJECT_ROOT / path
    if not file.exists():
        return False
    return not name or re.search(rf"\b{re.escape(name)}\b", file.read_text()) is not None


def _found(entry: Specified, catalogue: Catalogue) -> Standing:
    objects = catalogue.objects[entry.kind]
    name = entry.stands_as or entry.name
    places = [name, *(f"{schema}.{name}" for schema in SCHEMAS)]
    place = next((place for place in places if place in objects), None)
    if place is None:
        return Standing(entry, None, None, None)
    stands, wanted = objects[place], entry.definition
    same = wanted is None or _comparable(entry.kind, wanted) == _comparable(entry.kind, stands)
    own_body = entry.body is None or _one_line(entry.body) in catalogue.bodies[place]
    differs = not (same and own_body and entry.stands_as is None)
    return Standing(entry, place, None if same else stands, differs)


def _comparable(kind: Kind, definition: str) -> str:
    """Lists have no order."""
    text = short(definition)
    return ", ".join(sorted(text.split(", "))) if kind is Kind.LIST else text


def faults(standings: Iterable[Standing]) -> list[str]:
    """What is missing, what differs without a reason, and reasons for what does not differ."""
    found = []
    for standing in standings:
        entry = standing.specified
        who = f"{entry.specification}, {entry.kind}, {entry.name}"
        if standing.state is State.MISSING:
            found.append(f"{who}: missing")
        elif standing.differs and not entry.instead:
            was = f"{entry.definition!r}, is {standing.definition!r}"
            found.append(f"{who}: differs and no reason is given: specified {was}")
        elif standing.differs is False and entry.instead:
            found.append(f"{who}: a reason is given and nothing differs")
    return found


def summary(standings: Iterable[Standing]) -> dict[str, Counter[State]]:
    """How many objects of each specification stand how."""
    counts: dict[str, Counter[State]] = {}
    for standing in standings:
        counts.setdefault(standing.specified.specification, Counter())[standing.state] += 1
    return counts


def page(standings: list[Standing]) -> str:
    """The page in Markdown: a section per specification, a table per kind of object."""
    lines = [
        "# Where the objects of the specifications stand",
        "",
        f"Generated by `{COMMAND}` from `docs/specification/objects.yml` and the"
        " live catalogue. Do not edit it.",
        "",
        "*As specified*: found, and nothing differs. *Corrected*: found, and differs, for the"
        " reason given. What a specification writes without a schema stands in the first of"
        f" {', '.join(SCHEMAS)} that has it; all are on the search path. `NOW()` and"
        " `CURRENT_TIMESTAMP` count as one, and so do the spellings of types.",
        "",
        "| specification | objects | as specified | corrected | missing |",
        "|---|---:|---:|---:|---:|",
    ]
    for title, counts in summary(standings).items():
        numbers = " | ".join(str(counts[state]) for state in State)
        lines.append(f"| {title} | {counts.total()} | {numbers} |")
    section: tuple[str, Kind] | None = None
    for standing in standings:
        entry = standing.specified
        if section is None or section[0] != entry.specification:
            lines += ["", f"## {entry.specification}"]
        if section != (entry.specification, entry.kind):
            lines += [
                "",
                f"### {HEADINGS[entry.kind]}",
                "",
                "| object | stands as | state | why it differs |",
                "|---|---|---|---|",
            ]
        section = (entry.specification, entry.kind)
        cells = (
            _object_cell(entry),
            _place_cell(standing),
            str(standing.state),
            " ".join(entry.instead),
        )
        lines.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
    return "\n".join(lines) + "\n"


def _object_cell(entry: Specified) -> str:
    in_prose = entry.kind in {Kind.STEP, Kind.BACKUP, Kind.QUERY, Kind.DOCUMENT, Kind.RULE}
    name = entry.name if in_prose else f"`{entry.name}`"
    return f"{name}: `{short(entry.definition)}`" if entry.definition else name


def _place_cell(standing: Standing) -> str:
    if standing.place is None:
        return ""
    place = ", ".join(f"`{part}`" for part in standing.specified.held_by) or f"`{standing.place}`"
    return f"{place}: `{standing.definition}`" if standing.definition else place
