"""Debian's PostgreSQL 15, started in a folder and on a socket of its own."""

from __future__ import annotations

import os
import pwd
import secrets
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pydantic import SecretStr

from flows.settings import Connection

PROGRAMS = Path("/usr/lib/postgresql/15/bin")
MISSING = "PostgreSQL 15 is not installed: Debian and Ubuntu have it as the package postgresql-15"


def is_installed() -> bool:
    """Whether Debian's server programs of version 15 are there."""
    return (PROGRAMS / "postgres").exists()


@contextmanager
def debian_postgres(**configuration: str) -> Iterator[Connection]:
    """A fresh server of version 15, stopped and deleted at the end.

    Args:
        configuration: further lines of postgresql.conf, quoted as they must stand there.
    """
    with tempfile.TemporaryDirectory(prefix="wh15-", dir="/tmp") as folder:
        yield from _run_in(Path(folder), configuration)


def _run_in(folder: Path, configuration: dict[str, str]) -> Iterator[Connection]:
    folder.chmod(0o711)
    account = "nobody" if os.getuid() == 0 else None
    home = folder / "server"
    home.mkdir()
    if account:
        entry = pwd.getpwnam(account)
        os.chown(home, entry.pw_uid, entry.pw_gid)

    def run(program: str, *arguments: str) -> None:
        subprocess.run(
            [str(PROGRAMS / program), *arguments],
            user=account,
            group="nogroup" if account else None,
            extra_groups=[] if account else None,
            cwd=home,
            stdin=subprocess.DEVNULL,
            check=True,
            stdout=subprocess.DEVNULL,
        )

    password = secrets.token_urlsafe(24)
    password_file = folder / "password"
    password_file.write_text(password)
    if account:
        os.chown(password_file, entry.pw_uid, entry.pw_gid)
    password_file.chmod(0o600)
    data = home / "data"
    run(
        "initdb",
        f"--pgdata={data}",
        "--username=admin",
        f"--pwfile={password_file}",
        "--auth=scram-sha-256",
        "--encoding=UTF8",
        "--locale=C.UTF-8",
    )
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    lines = {
        "listen_addresses": "'127.0.0.1'",
        "port": str(port),
        "unix_socket_directories": f"'{home}'",
        "timezone": "'UTC'",
        "fsync": "off",
        "shared_preload_libraries": "'pg_stat_statements'",
        **configuration,
    }
    with (data / "postgresql.conf").open("a") as config:
        config.writelines(f"{name} = {value}\n" for name, value in lines.items())
    run("pg_ctl", "start", f"--pgdata={data}", f"--log={home / 'server.log'}", "--wait")
    try:
        yield Connection(
            host=str(home),
            port=port,
            user="admin",
            password=SecretStr(password),
            database="postgres",
        )
    finally:
        run("pg_ctl", "stop", f"--pgdata={data}", "--mode=immediate", "--wait")
