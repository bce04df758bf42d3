"""A Prefect server, a worker and the deployments on this machine, until they are told to stop.

server → pool → deployments → automations → worker. Everything is started by this process on free
ports of loopback, and ended by it.
"""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flows.errors import Busy, WarehouseError
from flows.settings import (
    CONSOLE_LOG,
    PROJECT_ROOT,
    TELEMETRY_OFF,
    get_settings,
    warehouse_home,
)

POOL = "warehouse"
LOOPBACK = "127.0.0.1"
START_SECONDS = 180
STOP_SECONDS = 10


@dataclass(frozen=True)
class Served:
    """What is up, and the process ids that keep it so.

    Attributes:
        environment: for a process that talks to this server.
    """

    ui_url: str
    api_url: str
    server: subprocess.Popen[bytes]
    worker: subprocess.Popen[bytes]
    environment: Mapping[str, str]


@contextmanager
def serving(
    say: Callable[[str], None] = lambda _: None,
    *,
    home: Path | None = None,
    port: int = 0,
    extra: Mapping[str, str] | None = None,
) -> Iterator[Served]:
    """A server with everything deployed and a worker at work, within.

    Args:
        say: is told what happens, a line at a time.
        home: the folder of the server's database and logs.
        port: of the server; 0 takes a free one.
        extra: more of the environment, for server and worker.

    Raises:
        Busy: another process serves from this folder.
        WarehouseError: something did not start; it names the log that says why.
    """
    folder = (home or warehouse_home()) / "prefect"
    folder.mkdir(parents=True, exist_ok=True)
    port = port or _free_port()
    ui_url = f"http://{LOOPBACK}:{port}"
    environment = {
        **os.environ,
        **TELEMETRY_OFF,
        CONSOLE_LOG: "INFO",  # what is off the console of a command is what these logs are for
        "PREFECT_HOME": str(folder),
        "PREFECT_API_URL": f"{ui_url}/api",
        "PREFECT_UI_API_URL": f"{ui_url}/api",
        **(extra or {}),
    }
    with ExitStack() as stack:
        stack.enter_context(_alone(folder))
        say("the Prefect server starts; the first time this takes half a minute")
        # A server that were told of an API would ask that one instead of being it.
        of_server = {key: value for key, value in environment.items() if key != "PREFECT_API_URL"}
        server = stack.enter_context(
            _process(
                ["server", "start", "--host", LOOPBACK, "--port", str(port)],
                of_server,
                folder / "server.log",
            )
        )
        _await(server, f"{ui_url}/api/health", folder / "server.log")
        say("pool, deployments and automations are brought up to date")
        _prefect(["work-pool", "create", POOL, "--type", "process", "--overwrite"], environment)
        _prefect(["deploy", "--all"], environment)
        _run([sys.executable, "-m", "flows.cli", "automations"], environment)
        for paused in pause_what_cannot_run(environment["PREFECT_API_URL"]):
            say(paused)
        worker = stack.enter_context(
            _process(
                ["worker", "start", "--pool", POOL, "--name", "this-machine", "--limit", "2"],
                environment,
                folder / "worker.log",
            )
        )
        yield Served(ui_url, f"{ui_url}/api", server, worker, environment)


def pause_what_cannot_run(api_url: str) -> list[str]:
    """Pause the schedules of deployments whose remote side is not set up here, and say so."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterTags
    from prefect.settings import PREFECT_API_URL, temporary_settings

    settings, said = get_settings(), []
    with temporary_settings({PREFECT_API_URL: api_url}), get_client(sync_client=True) as client:
        for tag, (name, value) in {
            "bigquery": ("BIGQUERY_PROJECT", settings.bigquery_project),
            "amazon": ("AMAZON_CLIENT_ID", settings.amazon_client_id),
        }.items():
            if value:
                continue
            tagged = DeploymentFilter(tags=DeploymentFilterTags(all_=[tag]))
            found = client.read_deployments(deployment_filter=tagged)
            for deployment in found:
                for schedule in deployment.schedules:
                    client.update_deployment_schedule(deployment.id, schedule.id, active=False)
            said.append(f"{len(found)} deployments of {tag} are paused: {name} is not set")
    return said


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Nobody else serves from this folder.

    Raises:
        Busy: somebody does.
    """
    with (folder / "serve.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Busy(
                "the deployments of this warehouse are served already",
                f"another `warehouse serve` holds {lock.name}",
                "use that one, or end it with Ctrl-C",
            ) from None
        yield


def watch(served: Served) -> None:
    """Wait for an interrupt, which a termination counts as, and see that both keep running.

    Raises:
        KeyboardInterrupt: it has come.
        WarehouseError: one of them is gone.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    while True:
        for name, process in (("server", served.server), ("worker", served.worker)):
            if (code := process.poll()) is not None:
                log = Path(served.environment["PREFECT_HOME"]) / f"{name}.log"
                raise WarehouseError(
                    f"the Prefect {name} has ended by itself",
                    f"exit status {code}: {_last_line(log)}",
                    f"read {log}, and serve again",
                )
        time.sleep(1)


@contextmanager
def _process(
    arguments: list[str], environment: Mapping[str, str], log: Path
) -> Iterator[subprocess.Popen[bytes]]:
    """A process of Prefect in a group of its own, which is ended at the end, group and all."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "prefect", *arguments],
            cwd=PROJECT_ROOT,
            env=dict(environment),
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a process and what it has started: asked first, made to after a while."""
    for sign in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
        if process.poll() is not None:
            break
        process.send_signal(sign)
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            continue
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def _await(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    """Return when the server answers."""
    give_up = time.monotonic() + START_SECONDS
    while time.monotonic() < give_up:
        if process.poll() is not None:
            break
        try:
            with urllib.request.urlopen(url, timeout=5):  # noqa: S310 - ours, on loopback
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    raise WarehouseError("the Prefect server did not start", _last_line(log), f"read {log}")


def _prefect(arguments: list[str], environment: Mapping[str, str]) -> None:
    _run([sys.executable, "-m", "prefect", "--no-prompt", *arguments], environment)


def _run(command: list[str], environment: Mapping[str, str]) -> None:
    done: subprocess.CompletedProcess[Any] = subprocess.run(
        command,
        cwd=PROJECT_ROOT,
        env=dict(environment),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        lines = (done.stderr + done.stdout).strip().splitlines()
        raise WarehouseError(
            f"`{' '.join(command[2:])}` failed",
            " ".join(line.strip() for line in lines[-3:]) or f"exit status {done.returncode}",
            "run it by hand to see all of it",
        )


def _last_line(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return lines[-1].strip() if lines else "its log is empty"


def _free_port() -> int:
    with socket.socket() as free:
        free.bind((LOOPBACK, 0))
        return int(free.getsockname()[1])
