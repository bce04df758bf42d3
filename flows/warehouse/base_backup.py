"""Base backups of the embedded server and its archived log: what a point in time is restored from.

    backups/<system identifier>/
        base-20261124T101500Z/       the data folder as it was, with pg_basebackup's manifest
        base-20261124T101500Z.json   written last: a base backup without it is not finished
        wal/                         the log since the first base backup, as the server finished it
        password                     of the server's one user: a restored copy needs it

The log is archived by the server itself, see `archive_command` in flows/warehouse/embedded.py.
"""

from __future__ import annotations

import json
import re
import shutil
import time
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg

from flows.errors import UsageError, WarehouseError
from flows.settings import Settings
from flows.warehouse.backup import digest, make_passable, only_one, step
from flows.warehouse.embedded import (
    archive_folder,
    as_warehouse_error,
    ensure_server,
    log_in,
    read_password,
    reason,
    run_program,
)
from flows.warehouse.embedded_places import Places, find_places, give
from flows.warehouse.env_block import DRAFT, replace_file

ARCHIVE_SECONDS = 120
"""How long the server may take to archive the piece of the log that ends a base backup."""
START_OF_LOG = re.compile(r"^START WAL LOCATION: \S+ \(file ([0-9A-F]{24})\)$", re.MULTILINE)


@dataclass(frozen=True)
class BaseBackup:
    """A finished and verified base backup.

    Attributes:
        finished_at: the earliest time that can be restored from it.
        first_log: the name of the first piece of the log that it needs.
        manifest_sha256: of its manifest, which in turn holds a checksum of every file.
        bytes: of the whole folder.
    """

    path: str
    finished_at: datetime
    first_log: str
    server_version: str
    manifest_sha256: str
    bytes: int

    @property
    def folder(self) -> Path:
        """The copy of the data folder."""
        return Path(self.path)

    @property
    def archive(self) -> Path:
        """The archived log of the same server."""
        return self.folder.parent / "wal"

    @property
    def password(self) -> Path:
        """The file with the password of the server's one user at the time."""
        return self.folder.parent / "password"


def take_base_backup(settings: Settings, keep: int | None = None) -> BaseBackup:
    """Copy the running embedded server's data, and begin to archive its log.

    Args:
        keep: how many base backups stay, with the log that they need; None keeps all.

    Raises:
        UsageError: the server is the user's own.
        WarehouseError: it does not archive its log, or the finished copy is not whole.
        Busy: another base backup runs.
    """
    if settings.uses_external_server:
        raise UsageError(
            "a base backup is for the embedded server",
            "PGHOST names a server of your own",
            "docs/runbooks/real-server.md says how pgBackRest backs that up",
        )
    ensure_server(settings)
    places = find_places(settings.warehouse_home)
    with as_warehouse_error("the base backup cannot be written"):
        archive = archive_folder(places)
        with log_in(places, str(places.sockets)) as connection:
            _refuse_without_archive(connection)
            _make_folders(places, archive)
            with only_one(archive.parent):
                backup = _take(places, connection, archive)
                if keep:
                    _prune(places, archive.parent, keep)
    return backup


def base_backups(backups: Path) -> list[BaseBackup]:
    """Every finished base backup, the one that was finished first at the beginning."""
    found = []
    for path in backups.glob("*/base-*.json"):
        written: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        finished_at = datetime.fromisoformat(written.pop("finished_at"))
        folder = str(path.with_suffix(""))  # the backups may have been moved
        found.append(BaseBackup(**(written | {"path": folder}), finished_at=finished_at))
    return sorted(found, key=lambda backup: backup.finished_at)


def verify_base(places: Places, backup: BaseBackup, folder: Path) -> None:
    """Compare every file of `folder`, a base backup or a copy of one, with the manifest.

    Raises:
        WarehouseError: a file is missing, too many or damaged.
    """
    if digest(folder / "backup_manifest") != backup.manifest_sha256:
        raise _damaged(backup, "its manifest is not the one that was written")
    verified = run_program(places, "pg_verifybackup", "--quiet", str(folder), folder=places.base)
    if verified.returncode != 0:
        raise _damaged(backup, reason(verified.stderr) or "pg_verifybackup failed")


def end_log(connection: psycopg.Connection[Any]) -> str:
    """Let the server finish the present piece of its log, with a commit in it; its name."""
    connection.execute("select pg_current_xact_id()")
    (piece,) = connection.execute("select pg_walfile_name(pg_switch_wal())").fetchone() or ("",)
    return str(piece)


def _damaged(backup: BaseBackup, why: str) -> WarehouseError:
    return WarehouseError(
        f"the base backup {backup.folder.name} is damaged",
        why,
        f"delete {backup.path}.json so that the one before is used, and make a new one:"
        " warehouse backup --base",
    )


def _make_folders(places: Places, archive: Path) -> None:
    """The folders that the server's account writes into, and the password beside them."""
    make_passable(places.backups)
    for folder in (archive.parent, archive):
        if not folder.exists():
            folder.mkdir(mode=0o700)
            give(folder, places.account)
    replace_file(archive.parent / "password", places.password.read_bytes())


def _refuse_without_archive(connection: psycopg.Connection[Any]) -> None:
    found = connection.execute("select current_setting('archive_mode')").fetchone()
    if found != ("on",):
        raise WarehouseError(
            "the embedded server does not archive its log",
            "it was started before its settings said so, or `alter system` says otherwise",
            "run `warehouse down` and `warehouse up`, then again",
        )


def _take(places: Places, connection: psycopg.Connection[Any], archive: Path) -> BaseBackup:
    cluster = archive.parent
    for leftover in cluster.glob(f"base-*{DRAFT}"):
        shutil.rmtree(leftover)
    while (folder := cluster / f"base-{datetime.now(UTC):%Y%m%dT%H%M%SZ}").exists():
        time.sleep(0.1)
    draft = cluster / f"{folder.name}{DRAFT}"
    with step("base backup"):
        copied = run_program(
            places,
            "pg_basebackup",
            f"--pgdata={draft}",
            "--format=plain",
            "--checkpoint=fast",
            "--wal-method=stream",
            "--manifest-checksums=SHA256",
            f"--host={places.sockets}",
            f"--port={places.port}",
            f"--username={connection.info.user}",
            "--no-password",
            folder=places.base,
            password=read_password(places),
        )
    if copied.returncode != 0:
        shutil.rmtree(draft, ignore_errors=True)
        raise WarehouseError(
            "the base backup failed", reason(copied.stderr), f"see {places.log}; is the disk full?"
        )
    row = connection.execute(
        "select clock_timestamp(), current_setting('server_version')"
    ).fetchone()
    assert row is not None
    finished_at, version = row
    last_log = end_log(connection)
    first_log = START_OF_LOG.search((draft / "backup_label").read_text(encoding="utf-8"))
    assert first_log is not None
    backup = BaseBackup(
        path=str(folder),
        finished_at=finished_at,
        first_log=first_log[1],
        server_version=version,
        manifest_sha256=digest(draft / "backup_manifest"),
        bytes=sum(path.stat().st_size for path in draft.rglob("*") if path.is_file()),
    )
    with step("verify"):
        verify_base(places, backup, draft)
        _wait_for_archive(connection, archive / last_log)
    draft.rename(folder)
    described = json.dumps(asdict(backup), default=str, indent=1)
    replace_file(folder.with_suffix(".json"), described.encode())
    return backup


def _wait_for_archive(connection: psycopg.Connection[Any], piece: Path) -> None:
    """A base backup is worth its archive: see the log up to its end arrive there."""
    give_up = time.monotonic() + ARCHIVE_SECONDS
    while not piece.exists():
        if time.monotonic() > give_up:
            found = connection.execute(
                "select failed_count, last_failed_wal from pg_catalog.pg_stat_archiver"
            ).fetchone()
            failed, last_failed = found or (0, None)
            raise WarehouseError(
                "the log does not arrive in the archive",
                f"{piece.name} is not in {piece.parent} after {ARCHIVE_SECONDS} s;"
                f" {failed} attempts failed, the last for {last_failed}",
                "see the server's log; is the disk full, or is another file of that name there?",
            )
        time.sleep(0.1)


def _prune(places: Places, cluster: Path, keep: int) -> None:
    """Delete all but the newest base backups of one server, and the log before the oldest kept."""
    ours = [backup for backup in base_backups(cluster.parent) if backup.folder.parent == cluster]
    for backup in ours[:-keep]:
        backup.folder.with_suffix(".json").unlink()
        shutil.rmtree(backup.folder)
    cleaned = run_program(
        places,
        "pg_archivecleanup",
        "--clean-backup-history",
        str(cluster / "wal"),
        ours[-keep:][0].first_log,
        folder=places.base,
    )
    if cleaned.returncode != 0:
        raise WarehouseError(
            "the archived log cannot be pruned", reason(cleaned.stderr), f"look at {cluster}/wal"
        )
