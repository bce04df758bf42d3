"""Starts the local engine in an environment of its own, and talks to it."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import tempfile
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from google.auth.credentials import AnonymousCredentials
from google.cloud import bigquery

from flows.settings import PROJECT_ROOT

HERE = Path(__file__).parent
REQUIREMENTS, OVERRIDES = HERE / "engine-requirements.in", HERE / "engine-overrides.txt"
FILES = ("--requirement", REQUIREMENTS, "--override", OVERRIDES)
ENVIRONMENT = PROJECT_ROOT / ".tools" / "bigquery-engine"
PROJECT, DATASET = "warehouse-test", "seller"
OLDEST = (3, 13)


class EngineMissing(Exception):
    """The engine cannot be had on this machine; says why."""


@dataclass(frozen=True)
class Engine:
    """A running engine."""

    endpoint: str
    storage_endpoint: str

    def client(self) -> bigquery.Client:
        return bigquery.Client(
            project=PROJECT,
            credentials=AnonymousCredentials(),
            client_options={"api_endpoint": self.endpoint},
        )

    def sql(self, statement: str) -> list[Any]:
        return list(self.client().query_and_wait(statement))

    def faults(self, *planned: dict[str, Any]) -> None:
        """Plan what goes wrong next, and forget what was asked for before."""
        self._call("/_faults", json.dumps([{"times": 1, **each} for each in planned]).encode())

    def faults_left(self) -> int:
        """How many of the planned faults have not come yet."""
        planned: list[dict[str, Any]] = self._call("/_planned", None)
        return sum(each["times"] for each in planned)

    def asked(self) -> list[str]:
        return self._call("/_asked", None)

    def statements(self) -> list[dict[str, Any]]:
        """Every query job so far: its `sql`, `labels` and `maximum_bytes_billed`."""
        found: list[dict[str, Any]] = self._call("/_statements", None)
        return found

    def _call(self, path: str, body: bytes | None) -> Any:
        request = urllib.request.Request(self.endpoint + path, body)
        with urllib.request.urlopen(request, timeout=10) as answer:
            return json.load(answer)

    def settings(self) -> dict[str, str]:
        return {
            "BIGQUERY_PROJECT": PROJECT,
            "BIGQUERY_DATASET": DATASET,
            "BIGQUERY_ENDPOINT": self.endpoint,
            "BIGQUERY_STORAGE_ENDPOINT": self.storage_endpoint,
            "BIGQUERY_MARKETPLACE": "US",
            "BIGQUERY_RETRY_SECONDS": "5",
        }


def find_python() -> str | None:
    """A Python that the engine runs on; None where there is none."""
    found = [path for minor in range(13, 16) if (path := shutil.which(f"python3.{minor}"))]
    versions = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    found += [str(path) for path in sorted(versions.glob("3.1[3-9]*/bin/python3"))]
    for python in found:
        asked = subprocess.run(
            [python, "-c", "import sys; print(*sys.version_info[:2])"],
            capture_output=True,
            text=True,
        )
        if asked.returncode == 0 and tuple(map(int, asked.stdout.split())) >= OLDEST:
            return python
    return None


def environment() -> Path:
    """The engine's Python, installed when it is first asked for, by one of several workers."""
    ENVIRONMENT.parent.mkdir(exist_ok=True)
    with ENVIRONMENT.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return _installed()


def _installed() -> Path:
    python = ENVIRONMENT / "bin" / "python"
    stamp = ENVIRONMENT / ".installed"
    wanted = REQUIREMENTS.read_text() + OVERRIDES.read_text()
    if stamp.exists() and stamp.read_text() == wanted:
        return python
    base = find_python()
    if base is None:
        raise EngineMissing(
            "the local engine of BigQuery needs Python 3.13, and there is none here"
        )
    uv = next((PROJECT_ROOT / ".tools").glob("uv-*/bin/uv"), None) or shutil.which("uv")
    if uv is None:
        raise EngineMissing("the local engine of BigQuery is installed with uv: run `make test`")
    shutil.rmtree(ENVIRONMENT, ignore_errors=True)
    commands = (
        [uv, "venv", "--quiet", "--python", base, ENVIRONMENT],
        [uv, "pip", "install", "--quiet", "--python", python, *FILES],
    )
    for command in commands:
        ran = subprocess.run(command, capture_output=True, text=True, timeout=300)
        if ran.returncode:
            raise EngineMissing(
                f"the local engine of BigQuery cannot be installed: {ran.stderr[-300:]}"
            )
    stamp.write_text(wanted)
    return python


@contextmanager
def engine_or_skip(*arguments: str) -> Iterator[Engine]:
    """A running engine for tests, which are skipped where it cannot be had."""
    import pytest

    try:
        environment()
    except EngineMissing as error:
        pytest.skip(str(error))
    with running_engine(*arguments) as engine:
        yield engine


@contextmanager
def running_engine(*arguments: str) -> Iterator[Engine]:
    """An empty engine on ports that the kernel chose, stopped at the end."""
    python = environment()
    folder = Path(tempfile.mkdtemp(prefix="wh-bigquery-"))
    with (folder / "engine.log").open("wb") as log:
        process = subprocess.Popen(
            [python, HERE / "engine_launcher.py", folder / "data", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            env={**os.environ, "PYTHONPATH": ""},
        )
    try:
        assert process.stdout is not None
        said = process.stdout.readline()
        if not said:
            log_text = (folder / "engine.log").read_text()
            raise RuntimeError(f"the engine did not start:\n{log_text[-2000:]}")
        ports = json.loads(said)
        yield Engine(f"http://127.0.0.1:{ports['http']}", f"127.0.0.1:{ports['grpc']}")
    finally:
        process.kill()
        process.wait()
        shutil.rmtree(folder, ignore_errors=True)
