"""The few lines of `.env` that are ours: where the embedded server is.

They stand between two markers at the top of the file; every other byte is the user's and is
never changed. At the top, because then a line of the user's that sets the same name wins, and
because taking the block away leaves the rest exactly as it was.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path

from flows.settings import Connection

BEGIN = b"# >>> the embedded server: written by `warehouse up`, removed by `warehouse down` >>>"
END = b"# <<< the embedded server <<<"
PREFIX = b"WAREHOUSE_PG"
DRAFT = ".draft"
"""How the name of a file ends while it is written; a leftover of a killed process keeps it."""


def render_block(connection: Connection) -> bytes:
    """The block for one server, quoted so that dotenv and a shell read the same values."""
    lines = [BEGIN.decode()]
    for name, value in connection.environment().items():
        lines.append(f"WAREHOUSE_{name}='{value}'")
    lines.append(END.decode())
    return ("\n".join(lines) + "\n").encode()


def without_block(content: bytes) -> bytes:
    """`content` without our markers and the `WAREHOUSE_PG…` lines that follow the first one.

    A block whose end was lost ends at the first line that is not ours.
    """
    kept: list[bytes] = []
    inside = False
    for line in content.splitlines(keepends=True):
        if line.strip() == BEGIN:
            inside = True
        elif inside and line.strip() == END:
            inside = False
        elif inside and line.startswith(PREFIX):
            continue
        else:
            inside = False
            kept.append(line)
    return b"".join(kept)


def has_block(path: Path) -> bool:
    """Whether the file at `path` holds a block of ours."""
    return path.exists() and BEGIN in path.read_bytes()


def write_block(path: Path, connection: Connection) -> None:
    """Put the block for `connection` into the `.env` at `path`, readable by its owner only."""
    path = path.resolve()
    before = path.read_bytes() if path.exists() else None
    after = render_block(connection) + without_block(before or b"")
    if before != after or path.stat().st_mode & 0o077:
        replace_file(path, after)


def remove_block(path: Path) -> None:
    """Take the block away; a file that held nothing else goes with it."""
    path = path.resolve()
    if not has_block(path):
        return
    rest = without_block(path.read_bytes())
    if rest:
        replace_file(path, rest)
    else:
        path.unlink()


def replace_file(path: Path, content: bytes, owner: tuple[int, int] | None = None) -> None:
    """Swap in a new version of a private file (mode 0600): readers see the old or the new one.

    `owner` is the file's user and group id; as root the default is its folder's.

    Raises:
        OSError: the folder cannot be written or the disk is full; the old version stays.
    """
    descriptor, draft = tempfile.mkstemp(prefix=f"{path.name}.", suffix=DRAFT, dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            if os.geteuid() == 0:
                folder = path.parent.stat()
                os.fchown(file.fileno(), *(owner or (folder.st_uid, folder.st_gid)))
            file.flush()
            os.fsync(file.fileno())
        Path(draft).replace(path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            Path(draft).unlink()
        raise
