"""What tests share: a real PostgreSQL, a fresh database each, a real Prefect server, the CLI.

With PGHOST set the tests use that server (its user must be allowed to create databases);
otherwise they start an embedded one of their own and stop it at the end.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, settings
from psycopg import sql

from flows.settings import PROJECT_ROOT, Connection, get_settings, quiet_environment
from flows.warehouse import migrate
from flows.warehouse.embedded import delete_server, ensure_server, stop_server
from flows.warehouse.policies import ensure_policies
from tests import debian_server

PG_VARIABLES = ("PGHOST", "PGPORT", "PGUSER", "PGPASSWORD", "PGDATABASE")
PREFECT_START_SECONDS = 120
OWN_SERVER, DEBIAN_SERVER = "own", "debian15"

RunCli = Callable[..., subprocess.CompletedProcess[str]]

settings.register_profile(
    "default",
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
settings.register_profile("ci", settings.get_profile("default"), max_examples=200, print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))


def pytest_configure(config: pytest.Config) -> None:
    """No telemetry, and folders of this process's own for Prefect and dbt, before any import."""
    scratch = Path(tempfile.mkdtemp(prefix="wh-tests-"))
    config.add_cleanup(lambda: shutil.rmtree(scratch, ignore_errors=True))
    os.environ.update(
        quiet_environment()
        | {"PREFECT_HOME": str(scratch), "DBT_TARGET_PATH": str(scratch / "dbt")}
    )


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """What shares a costly set-up goes to one worker: a file, or all tables on one server."""
    from xdist.scheduler import LoadScopeScheduling

    class BySetUp(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            path, _, test = nodeid.partition("::")
            if not path.startswith("tests/schema/"):
                return path
            return f"tests/schema on {DEBIAN_SERVER if DEBIAN_SERVER in test else OWN_SERVER}"

    return BySetUp(config, log)


@pytest.fixture
def short_folder() -> Iterator[Path]:
    """An empty folder with a short path that any user may pass through: fit for a server."""
    folder = Path(tempfile.mkdtemp(prefix="wh-", dir="/tmp"))
    folder.chmod(0o711)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def own_home(short_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder for an embedded server of this test's own, which is stopped at the end."""
    home = short_folder / ".warehouse"
    use_home(monkeypatch, home)
    yield home
    use_home(monkeypatch, home)
    (short_folder / ".env").unlink(missing_ok=True)
    delete_server(get_settings())


@pytest.fixture(scope="session")
def server(request: pytest.FixtureRequest) -> Iterator[Connection]:
    """A running PostgreSQL whose user may create databases and roles.

    The one place that starts it, also where a folder asks for several versions as parameters: what
    rests on a server, such as the template, goes when the server goes.
    """
    external = get_settings().connection() if get_settings().uses_external_server else None
    if getattr(request, "param", OWN_SERVER) == DEBIAN_SERVER:
        if external:
            pytest.skip("PGHOST names the server to test on")
        with debian_server.debian_postgres() as connection:
            yield connection
    elif external:
        yield external
    else:
        with embedded_server() as connection:
            yield connection


@contextmanager
def embedded_server() -> Iterator[Connection]:
    """An embedded server in a folder of its own, stopped and deleted at the end."""
    folder = Path(tempfile.mkdtemp(prefix="wh-", dir="/tmp"))
    folder.chmod(0o711)
    with pytest.MonkeyPatch.context() as patch:
        use_home(patch, folder / ".warehouse")
        connection = ensure_server(get_settings())
    yield connection
    with pytest.MonkeyPatch.context() as patch:
        use_home(patch, folder / ".warehouse")
        stop_server(get_settings())
    get_settings.cache_clear()
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def template(server: Connection) -> Iterator[str]:
    """The name of a migrated, empty database with its policies, to clone."""
    name = f"wh_template_{os.getpid()}"
    execute(server, sql.SQL("create database {}").format(sql.Identifier(name)))
    with pytest.MonkeyPatch.context() as patch:
        use_database(patch, server.model_copy(update={"database": name}))
        migrate.upgrade()
        ensure_policies()
    get_settings.cache_clear()
    # A template can be cloned only while nobody is connected to it.
    execute(
        server, sql.SQL("alter database {} allow_connections false").format(sql.Identifier(name))
    )
    execute(
        server,
        sql.SQL(
            "select pg_terminate_backend(pid, 5000) from pg_stat_activity where datname = {}"
        ).format(name),
    )
    yield name
    drop_database(server, name)


@pytest.fixture
def database(
    server: Connection,
    template: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Connection]:
    """A migrated, empty database that settings, dbt and subprocesses use for this test."""
    monkeypatch.setenv("WAREHOUSE_HOME", str(tmp_path / ".warehouse"))
    name = f"wh_test_{os.getpid()}_{time.monotonic_ns()}"
    with cloned_database(server, template, name, monkeypatch) as connection:
        yield connection


@pytest.fixture(autouse=True)
def settings_of_this_test() -> Iterator[None]:
    """No test sees settings that another one read."""
    get_settings.cache_clear()
    yield
    get_settings.cache_clear()


@pytest.fixture(scope="session")
def prefect_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a running Prefect server, which this process and its children use."""
    home = tmp_path_factory.mktemp("prefect")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    url = f"http://127.0.0.1:{port}/api"
    environment = os.environ | {
        "PREFECT_HOME": str(home),
        "PREFECT_SERVER_UI_ENABLED": "false",
        "PREFECT_UI_API_URL": url,
    }
    environment.pop("PREFECT_API_URL", None)
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1"]
    with (home / "server.log").open("wb") as log:
        process = subprocess.Popen(
            [*command, "--port", port],
            env=environment,
            cwd=home,
            stdout=log,
            stderr=log,
            stdin=subprocess.DEVNULL,
        )
    try:
        wait_for_health(url, process, home / "server.log")
        from prefect.logging.handlers import APILogWorker
        from prefect.settings import PREFECT_API_URL, temporary_settings

        with pytest.MonkeyPatch.context() as patch, temporary_settings({PREFECT_API_URL: url}):
            patch.setenv("PREFECT_API_URL", url)
            yield url
            APILogWorker.drain_all(timeout=5)
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@pytest.fixture
def run_cli() -> RunCli:
    """Runs `warehouse` with arguments in a process of its own; `env` adds or (None) removes."""

    def run(
        *arguments: str, env: dict[str, str | None] | None = None, timeout: float = 300
    ) -> subprocess.CompletedProcess[str]:
        changed = {**os.environ, **(env or {})}
        return subprocess.run(
            [sys.executable, "-m", "flows.cli", *arguments],
            cwd=PROJECT_ROOT,
            env={name: value for name, value in changed.items() if value is not None},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
        )

    return run


def use_home(patch: pytest.MonkeyPatch, home: Path) -> None:
    """Make `home` the embedded server's folder, and forget every server of the environment."""
    for name in PG_VARIABLES:
        patch.delenv(name, raising=False)
        patch.delenv(f"WAREHOUSE_{name}", raising=False)
    patch.setenv("WAREHOUSE_HOME", str(home))
    get_settings.cache_clear()


def use_database(patch: pytest.MonkeyPatch, connection: Connection) -> None:
    """Make `connection` the server of this process and of those that it starts."""
    for name, value in connection.environment().items():
        patch.setenv(name, value)
    get_settings.cache_clear()


@contextmanager
def cloned_database(
    server: Connection, template: str, name: str, patch: pytest.MonkeyPatch
) -> Iterator[Connection]:
    """A migrated, empty database of this name, which settings and subprocesses use within."""
    connection = server.model_copy(update={"database": name})
    execute(
        server,
        sql.SQL("create database {} template {}").format(
            sql.Identifier(name), sql.Identifier(template)
        ),
    )
    try:
        use_database(patch, connection)
        with psycopg.connect(**connection.libpq(), autocommit=True) as session:
            migrate.settle_database(session)
        yield connection
    finally:
        drop_database(server, name)


def execute(server: Connection, statement: sql.Composable) -> None:
    """Run one statement outside a transaction on the server's maintenance database."""
    with psycopg.connect(**server.libpq(), autocommit=True) as connection:
        connection.execute(statement)


def drop_database(server: Connection, name: str) -> None:
    """Drop a database, whoever is still in it."""
    execute(server, sql.SQL("drop database {} with (force)").format(sql.Identifier(name)))


def wait_for_health(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    """Return when the Prefect server answers; fail with its log when it ends or is too slow."""
    give_up = time.monotonic() + PREFECT_START_SECONDS
    while process.poll() is None and time.monotonic() < give_up:
        try:
            with urllib.request.urlopen(f"{url}/health", timeout=2):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    pytest.fail(f"the Prefect server did not start:\n{log.read_text(errors='replace')[-2000:]}")
