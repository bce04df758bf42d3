"""Serves the local engine over REST and gRPC with what it lacks of BigQuery's ways.

Runs in the engine's own environment: `python engine_launcher.py DATA_FOLDER`. Prints one line of
JSON, its two ports, once it serves. What is added:

- a job of CREATE TABLE AS tells its destination table, which dbt-bigquery asks for;
- `SET (a, b) = (SELECT AS STRUCT …)`; GRANT and REVOKE, which it takes and forgets;
- a row access policy that is true of all rows lets through to the table;
- copies and loads into partitions, `table$202610`;
- bytes: a query costs the logical bytes of the columns that it names, in the partitions that its
  condition leaves; a dry run says so, and `maximumBytesBilled` is obeyed; a read session likewise;
- a table's change time moves with its rows, and each partition has one of its own;
- a response of the Storage API holds some thousand rows, not a million;
- its extensions are found without a network, and its fingerprints are DuckDB's hashes;
- faults on demand, `POST /_faults`, those to come, `GET /_planned`, what was asked for, `GET
  /_asked`, and the SQL of
  every job, `GET /_statements`.
"""

import functools
import json
import re
import sys
import threading
import time
from datetime import UTC, datetime
from pathlib import Path

import duckdb
import duckdb_extension_ducklake
import grpc
import uvicorn
from local_bigquery.app import app
from local_bigquery.catalog import metadata, row_access, tables
from local_bigquery.engine import database
from local_bigquery.errors import STATUSES, BigQueryError
from local_bigquery.grpc import read, server
from local_bigquery.jobs import copy, query, runner
from local_bigquery.models import JobStatistics2
from local_bigquery.settings import settings
from local_bigquery.sql import params, script
from local_bigquery.sql.rules import information_schema
from local_bigquery.sql.translate import Context, translate
from sqlglot import exp
from starlette.requests import Request
from starlette.responses import JSONResponse

CELL_BYTES = 8
RESPONSE_ROWS = 8_192
NO_TABLE_HAS = 10 * 2**30
"""Bytes: a limit of so many need not be looked at, which takes a dry run of every statement."""

STATUSES["bytesBilledLimitExceeded"] = (400, "INVALID_ARGUMENT")
GRPC_CODES = {code.name: code for code in grpc.StatusCode}


def bridge_extensions() -> None:
    """DuckLake comes from its wheel and time zones from DuckDB itself: nothing is downloaded,
    and geography, which would have to be, is left out."""
    plain = duckdb.connect
    folder = Path(duckdb_extension_ducklake.__file__).parent
    [ducklake] = folder.glob("**/*.duckdb_extension")
    database.FUNCTIONS = [path for path in database.FUNCTIONS if path.stem != "geography"]

    def connect(*args, config=None, **kwargs):
        connection = plain(*args, **kwargs)
        connection.execute(f"load icu; load '{ducklake}'")
        for name, value in (config or {}).items():
            connection.execute(f"set global {name} = '{value}'")
        return connection

    duckdb.connect = connect


def bridge_fingerprints() -> None:
    """The engine hashes in Python, some milliseconds a row: DuckDB's own hash takes none."""
    plain = database._connect

    @functools.cache
    def connect():
        connection = plain()
        connection.execute(
            "create or replace macro bq.main.farm_fingerprint(x)"
            " as (hash(bq.main._bytes(x))::hugeint - 9223372036854775808)::bigint"
        )
        return connection

    database._connect = connect


def bridge_destination_of_create_table_as() -> None:
    plain = query.execute

    def execute(*args, **kwargs):
        statistics, children, destination = plain(*args, **kwargs)
        made = [
            each.ddlTargetTable
            for each in [*children, statistics]
            if each.ddlTargetTable and each.statementType == "CREATE_TABLE_AS_SELECT"
        ]
        return statistics, children, destination or (made[-1] if made else None)

    query.execute = execute


def bridge_grants() -> None:
    """Grants are taken and change nothing: the engine lets everybody read every table."""
    plain = query._run

    def run(cur, tree, *args):
        if isinstance(tree, exp.Grant | exp.Revoke):
            return JobStatistics2(statementType=type(tree).__name__.upper())
        return plain(cur, tree, *args)

    query._run = run


def bridge_true_filters() -> None:
    """Who is granted all rows works on the table itself, which the engine's MERGE needs."""
    plain = row_access.predicate

    def predicate(*reference):
        condition = plain(*reference)
        return None if condition and "(true)" in condition.split(" OR ") else condition

    row_access.predicate = predicate


def bridge_set_of_a_struct() -> None:
    plain = script.Interpreter.set

    def assign(self, statement):
        found = re.match(
            r"\s*set\s*\(([^)]*)\)\s*=\s*\(\s*select\s+as\s+struct\s(.*)\)\s*;?\s*$",
            statement.text,
            re.IGNORECASE | re.DOTALL,
        )
        if not found:
            return plain(self, statement)
        wanted = [name.strip() for name in found[1].split(",")]
        select = script.sqlglot.parse_one(f"select {found[2]}", dialect=script.BigQueryDialect)
        for name, column in zip(wanted, list(select.expressions), strict=True):
            one = select.copy()
            one.set("expressions", [column.copy()])
            self.assign(self.variable(name), exp.Subquery(this=one))
        return None

    script.Interpreter.set = assign
    plain_init = script.Interpreter.__init__

    def init(self, *args, **kwargs):
        plain_init(self, *args, **kwargs)
        for attribute, value in vars(self).items():
            if isinstance(value, dict) and "SET" in value:
                value["SET"] = self.set
                setattr(self, attribute, value)

    script.Interpreter.__init__ = init


PARTITION = re.compile(r"(?P<table>.+)\$(?P<day>\d{6,8})")


def bridge_copies_of_partitions() -> None:
    plain = copy.run

    def run(cur, config, upload):
        sources = config.sourceTables or [config.sourceTable]
        decorated = PARTITION.fullmatch(config.destinationTable.tableId)
        if not decorated:
            return plain(cur, config, upload)
        target = tables.reference(config.destinationTable.replace(tableId=decorated["table"]))
        source_id = PARTITION.fullmatch(sources[0].tableId)
        source = tables.reference(
            sources[0].replace(tableId=source_id["table"] if source_id else sources[0].tableId)
        )
        partitioning = tables.load(*target).timePartitioning
        day = decorated["day"]
        unit = {6: "month", 8: "day"}[len(day)]
        first = f"date '{day[:4]}-{day[4:6]}-{day[6:] or '01'}'"
        condition = f"date_trunc('{unit}', \"{partitioning.field}\") = {first}"
        with database.writing(*target):
            if config.writeDisposition == "WRITE_TRUNCATE":
                cur.execute(f"delete from {tables.name(*target)} where {condition}")
            cur.execute(
                f"insert into {tables.name(*target)} by name"
                f" select * from {tables.name(*source)} where {condition}"
            )
        return copy.JobStatistics5(copiedRows="0", copiedLogicalBytes="0")

    runner.HANDLERS["copy"] = run


def bridge_loads_of_partitions() -> None:
    plain = runner.HANDLERS["load"]

    def run(cur, config, upload):
        decorated = PARTITION.fullmatch(config.destinationTable.tableId)
        if not decorated:
            return plain(cur, config, upload)
        part = config.destinationTable.replace(tableId=f"part_of_{decorated['table']}")
        done = plain(cur, config.replace(destinationTable=part), upload)
        copies = copy.JobConfigurationTableCopy.model_validate(
            {
                "sourceTable": part,
                "destinationTable": config.destinationTable,
                "writeDisposition": "WRITE_TRUNCATE",
            }
        )
        runner.HANDLERS["copy"](cur, copies, None)
        tables.delete(*tables.reference(part))
        return done

    runner.HANDLERS["load"] = run


def logical_bytes(cur, table, columns, condition="true", parameters=None) -> int:
    """The bytes of these columns in the rows of a condition, as BigQuery counts them.

    A text counts its bytes and two, all else eight, and a NULL nothing.
    """
    texts = {field.name.casefold() for field in tables.fields(table) if field.type == "STRING"}
    sizes = " + ".join(
        f"coalesce(sum(2 + strlen({database.quote(name)})), 0)"
        if name.casefold() in texts
        else f"{CELL_BYTES} * count({database.quote(name)})"
        for name in columns
    )
    reference = table.tableReference
    name = tables.name(reference.projectId, reference.datasetId, reference.tableId)
    [(size,)] = cur.execute(
        f"select {sizes or 0} from {name} where {condition}", parameters
    ).fetchall()
    return int(size)


def pruned_bytes(cur, tree, table, config) -> int:
    """What a query of one table costs: its columns, in the partitions that its condition leaves."""
    partitioning = table.timePartitioning
    names = [field.name for field in tables.fields(table)]
    asked = {column.name.casefold() for column in tree.find_all(exp.Column)}
    if all(isinstance(star.parent, exp.Count) for star in tree.find_all(exp.Star)):
        names = [name for name in names if name.casefold() in asked]
    where = tree.find(exp.Where)
    key = partitioning and partitioning.field
    if where is None or {column.name for column in where.find_all(exp.Column)} != {key}:
        return logical_bytes(cur, table, names)
    reference = table.tableReference
    context = Context(
        reference.projectId, reference.datasetId, *params.bind(config.queryParameters or [])
    )
    condition, bound = translate(exp.select("1").where(where.this.copy()), context)
    return logical_bytes(cur, table, names, condition.partition(" WHERE ")[2], bound)


def bridge_bytes() -> None:
    def cost(cur, config, statistics, children) -> int:
        references = {
            tables.reference(reference)
            for each in [statistics, *children]
            for reference in each.referencedTables or []
        }
        try:
            found = [tables.load(*reference) for reference in references]
        except BigQueryError:
            return 0
        [tree, *others] = script.sqlglot.parse(config.query, dialect=script.BigQueryDialect)
        if len(found) == 1 and isinstance(tree, exp.Query) and not others:
            return pruned_bytes(cur, tree, found[0], config)
        return sum(CELL_BYTES * int(each.numRows or 0) * len(tables.fields(each)) for each in found)

    plain = query.execute

    def execute(cur, project_id, job_id, config, dry_run=False, session=None):
        costs = None
        if job_id and int(config.maximumBytesBilled or NO_TABLE_HAS) < NO_TABLE_HAS:
            try:
                estimated, children, _ = plain(cur, project_id, None, config, dry_run=True)
                costs = cost(cur, config, estimated, children)
            except Exception:
                costs = None
            if (costs or 0) > int(config.maximumBytesBilled):
                raise BigQueryError(
                    "bytesBilledLimitExceeded",
                    f"Query exceeded limit for bytes billed: {config.maximumBytesBilled}."
                    f" {costs} or higher required.",
                )
        statistics, children, destination = plain(
            cur, project_id, job_id, config, dry_run=dry_run, session=session
        )
        if costs is None:
            try:
                costs = cost(cur, config, statistics, children)
            except Exception:
                costs = 0
        return (
            statistics.replace(totalBytesProcessed=str(costs), totalBytesBilled=str(costs)),
            children,
            destination,
        )

    query.execute = execute
    plain_done = runner._done

    def done(job, statistics, error=None):
        if statistics.query and statistics.query.totalBytesProcessed:
            statistics = statistics.replace(
                totalBytesProcessed=statistics.query.totalBytesProcessed
            )
        return plain_done(job, statistics, error)

    runner._done = done


def bridge_read_sessions() -> None:
    """Sessions that estimate in logical bytes, and responses as small as BigQuery's."""
    create = read.create_session

    def create_session(request):
        session = create(request)
        options = request.read_session.read_options
        table = tables.load(*read.table(request.read_session.table))
        names = options.selected_fields or [field.name for field in tables.fields(table)]
        select = f"select 1 from t where {options.row_restriction or 'true'}"
        tree = script.sqlglot.parse_one(select, dialect=script.BigQueryDialect)
        condition, _ = translate(exp.select("1").where(tree.args["where"].this), Context("p", None))
        with database.cursor() as cur:
            condition = condition.partition(" WHERE ")[2]
            session.estimated_total_bytes_scanned = logical_bytes(cur, table, names, condition)
        return session

    def read_rows(request):
        stream = read._lookup(request.read_stream)
        position, size = request.offset, stream.end - stream.start
        with database.cursor() as cur:
            reader = cur.sql(
                f"SELECT * FROM ({stream.query}) LIMIT {size - position}"
                f" OFFSET {stream.start + position}"
            ).to_arrow_reader(RESPONSE_ROWS)
            schema = read._schema(None, reader.schema)
            for batch in reader:
                rows = {"serialized_record_batch": batch.serialize().to_pybytes()}
                yield read.types.ReadRowsResponse(
                    row_count=batch.num_rows,
                    stats=read._progress(stream, position, position + batch.num_rows),
                    arrow_record_batch=read.types.ArrowRecordBatch(**rows),
                    **schema,
                )
                position += batch.num_rows
                stream.allocated = max(stream.allocated, position)
                schema = {}

    read.create_session, read.read_rows = create_session, read_rows


def bridge_change_times() -> None:
    changed: dict[tuple[str, ...], str] = {}
    plain_writing, plain_load = database.writing, tables.load

    def writing(*table):
        changed[tuple(part.casefold() for part in table)] = metadata.now()
        return plain_writing(*table)

    def load(*reference):
        found = plain_load(*reference)
        moved = changed.get(tuple(part.casefold() for part in reference))
        return found.replace(lastModifiedTime=moved) if moved else found

    database.writing, tables.load = writing, load

    known: dict[tuple[str, ...], tuple[tuple, str]] = {}

    def partitions(project_id, dataset_id):
        columns, rows = plain_partitions(project_id, dataset_id)
        timed = []
        for *identity, partition, count, tier in rows:
            table = tables.load(*identity)
            key = table.timePartitioning and table.timePartitioning.field
            if key is None or partition is None:
                timed.append([*identity, partition, count, tier, None])
                continue
            unit = information_schema.PARTITION_FORMATS[table.timePartitioning.type or "DAY"]
            [(content,)] = database.fetch(
                f"select sum(hash(t)::hugeint) from {tables.name(*identity)} t"
                f" where coalesce(strftime({database.quote(key)}, '{unit}'), '__NULL__') = $1",
                [partition],
            )
            state = (table.creationTime, count, content)
            was, moment = known.get((*identity, partition), (None, ""))
            if was != state:
                moment = datetime.now(UTC).isoformat()
                known[*identity, partition] = state, moment
            timed.append([*identity, partition, count, tier, moment])
        return [*columns, "last_modified_time TIMESTAMP"], timed

    plain_partitions = information_schema.VIEWS["PARTITIONS"]
    information_schema.VIEWS["PARTITIONS"] = partitions


class Faults:
    """What is to go wrong: each fault matches a path or a method, so many times."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.planned: list[dict] = []
        self.asked: list[str] = []

    def take(self, what: str) -> dict | None:
        with self.lock:
            self.asked.append(what)
            for fault in self.planned:
                if re.search(fault["at"], what) and fault["times"]:
                    fault["times"] -= 1
                    return fault
        return None


def bridge_faults() -> None:
    faults = Faults()
    statements: list[dict] = []
    plain_submit = runner.submit

    def submit(project_id, job_id, configuration, upload=None):
        if configuration.query and not configuration.dryRun:
            statements.append(
                {
                    "sql": configuration.query.query,
                    "labels": dict(configuration.labels or {}),
                    "maximum_bytes_billed": configuration.query.maximumBytesBilled,
                }
            )
        return plain_submit(project_id, job_id, configuration, upload)

    runner.submit = submit

    @app.middleware("http")
    async def fail(request: Request, call_next):
        if request.url.path == "/_faults":
            faults.planned = await request.json()
            faults.asked = []
            return JSONResponse({})
        if request.url.path == "/_planned":
            return JSONResponse(faults.planned)
        if request.url.path == "/_statements":
            return JSONResponse(statements)
        if request.url.path == "/_asked":
            return JSONResponse(faults.asked)
        fault = faults.take(f"{request.method} {request.url.path}")
        if fault is None:
            return await call_next(request)
        time.sleep(fault.get("seconds", 0))
        error = {
            "code": fault["status"],
            "message": fault["message"],
            "errors": [{"reason": fault.get("reason"), "message": fault["message"]}],
        }
        return JSONResponse({"error": error}, status_code=fault["status"])

    create, rows = read.create_session, read.read_rows

    def create_session(request):
        if fault := faults.take("CreateReadSession"):
            raise read.StorageError(GRPC_CODES[fault["code"]], fault["message"])
        faults.take("restriction " + request.read_session.read_options.row_restriction)
        return create(request)

    def read_rows(request):
        fault = faults.take("ReadRows")
        for number, response in enumerate(rows(request)):
            if fault and number >= fault.get("after", 0):
                raise read.StorageError(GRPC_CODES[fault["code"]], fault["message"])
            yield response
        if fault:
            raise read.StorageError(GRPC_CODES[fault["code"]], fault["message"])

    read.create_session, read.read_rows = create_session, read_rows
    methods = server.SERVICES["google.cloud.bigquery.storage.v1.BigQueryRead"]
    methods["CreateReadSession"] = server._unary(
        create_session, server.types.CreateReadSessionRequest, server.types.ReadSession
    )
    methods["ReadRows"] = server._streaming(
        read_rows, server.types.ReadRowsRequest, server.types.ReadRowsResponse
    )


def main() -> None:
    settings.data_dir = Path(sys.argv[1])
    settings.default_project_id = "warehouse-test"
    settings.default_dataset_id = "seller"
    if len(sys.argv) > 2:
        read.STREAM_ROWS = int(sys.argv[2])
    bridge_extensions()
    bridge_fingerprints()
    bridge_destination_of_create_table_as()
    bridge_grants()
    bridge_true_filters()
    bridge_set_of_a_struct()
    bridge_copies_of_partitions()
    bridge_loads_of_partitions()
    bridge_bytes()
    bridge_read_sessions()
    bridge_change_times()
    bridge_faults()
    grpc_server, grpc_port = server.start("127.0.0.1", 0)
    config = uvicorn.Config(app, host="127.0.0.1", port=0, log_level="warning")
    http = uvicorn.Server(config)
    thread = threading.Thread(target=http.run)
    thread.start()
    while not http.started:
        time.sleep(0.01)
    port = http.servers[0].sockets[0].getsockname()[1]
    print(json.dumps({"http": port, "grpc": grpc_port}), flush=True)
    thread.join()
    grpc_server.stop(None)


if __name__ == "__main__":
    main()
