"""Credentials in the database: sealed with keys that stay outside it, each bound to its place.

A sealed value is a Fernet token. Its key is derived (HKDF-SHA256) from a master key and from
table, column, row id and user id, so that a token copied to another place does not open there.
The row's `key_id` says which master key sealed it. The first master key seals, all of them open.
PostgreSQL sees tokens only: no plaintext and no key is ever part of a statement.
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import hashlib
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID

import psycopg
from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from psycopg import sql
from psycopg.rows import dict_row
from pydantic import SecretStr

from flows.errors import Busy, UsageError, WarehouseError
from flows.settings import Settings, get_settings
from flows.warehouse.env_block import replace_file

SEALED_COLUMNS: dict[str, tuple[str, ...]] = {
    "app.oauth_tokens": ("access_token", "refresh_token"),
    "app.user_api_credentials": ("credentials_encrypted",),
}
"""Every column that holds sealed values; its table has `id`, `user_id` and `key_id` as well."""

SETTING = "WAREHOUSE_SECRET_KEYS"
FILE_NAME = "secret.keys"
KEY_FORM = re.compile(r"[A-Za-z0-9_-]{43}=")
TOKEN_FORM = re.compile(r"gAAAA[A-Za-z0-9_-]+={0,2}")
"""What a Fernet token looks like; base64 alone would pass over other characters."""

BATCH_ROWS = 200
LOCK_TIMEOUT = "10s"
"""How long a rotation waits for a row that somebody else is changing."""


class DoesNotOpen(WarehouseError):
    """A stored credential cannot be read: its key is not there, or it was tampered with."""


@dataclass(frozen=True)
class RowRef:
    """The place that a sealed value belongs to; `table` with its schema."""

    table: str
    column: str
    row_id: UUID
    user_id: UUID

    def __post_init__(self) -> None:
        if self.column not in SEALED_COLUMNS.get(self.table, ()):
            raise ValueError(f"{self.table}.{self.column} is not one of SEALED_COLUMNS")
        if not isinstance(self.row_id, UUID) or not isinstance(self.user_id, UUID):
            raise TypeError("row_id and user_id are UUIDs: text could be spelt in several ways")

    @property
    def info(self) -> bytes:
        """What a derived key depends on beside its master key."""
        return f"{self.table}|{self.column}|{self.row_id}|{self.user_id}".encode()


class Sealed(NamedTuple):
    """What a row stores of a credential; columns of one row share one `key_id`."""

    ciphertext: str
    key_id: str


@dataclass(frozen=True)
class MasterKey:
    """A key and its public name: the first 12 hexadecimal digits of its SHA-256."""

    key_id: str
    material: bytes = field(repr=False)

    @classmethod
    def parse(cls, text: str, where: str) -> MasterKey:
        """Read a key of 32 bytes in URL-safe base64; `where` is named if it is none."""
        if not KEY_FORM.fullmatch(text):
            raise WarehouseError(
                f"{where} is not a key",
                "a key is 44 characters of URL-safe base64",
                "take it out, or put it right from your copy of the keys",
            )
        material = base64.urlsafe_b64decode(text)
        return cls(hashlib.sha256(material).hexdigest()[:12], material)

    def for_row(self, where: RowRef) -> Fernet:
        """The key that seals values of one place only."""
        derived = HKDF(SHA256(), length=32, salt=None, info=where.info).derive(self.material)
        return Fernet(base64.urlsafe_b64encode(derived))


class SecretBox:
    """Seals and opens credentials with the master keys that it was given.

    The first key is the current one: it seals. All of them open.
    """

    def __init__(self, keys: Sequence[MasterKey]) -> None:
        if not keys:
            raise ValueError("a box needs a key")
        self._keys = {key.key_id: key for key in keys}
        self._current = keys[0]

    def __repr__(self) -> str:
        return f"SecretBox(current={self.current_key_id}, known={self.key_ids})"

    @classmethod
    def from_settings(cls) -> SecretBox:
        """The box of this warehouse.

        Raises:
            WarehouseError: there is no key, or one that cannot be used, or others could read it.
        """
        settings = get_settings()
        keys = load_keys(settings)
        if not keys:
            raise WarehouseError(
                "there is no key for stored credentials",
                f"{SETTING} is not set and {keys_file(settings)} does not exist",
                "put your copy of the file back; if nothing has been stored yet, run"
                " `warehouse secrets new-key`",
            )
        return cls(keys)

    @property
    def current_key_id(self) -> str:
        """The key that seals."""
        return self._current.key_id

    @property
    def key_ids(self) -> tuple[str, ...]:
        """Every key that opens, the current one first."""
        return tuple(self._keys)

    def seal(self, value: SecretStr | str, *, where: RowRef) -> Sealed:
        """Encrypt a credential for one place with the current key."""
        plain = value.get_secret_value() if isinstance(value, SecretStr) else value
        token = self._current.for_row(where).encrypt(plain.encode(errors="surrogatepass"))
        return Sealed(token.decode("ascii"), self.current_key_id)

    def open(self, ciphertext: str, key_id: str | None, where: RowRef) -> SecretStr:
        """Decrypt a credential of one place.

        Raises:
            DoesNotOpen: the key that it names is not known here, or the value was changed or
                sealed for another row, column or user.
        """
        opener = self._opener(ciphertext, key_id, where)
        with _says_where(where):
            plain = opener.decrypt(ciphertext)
        return SecretStr(plain.decode(errors="surrogatepass"))

    def reseal(self, ciphertext: str, key_id: str | None, where: RowRef) -> Sealed:
        """The same credential under the current key; unchanged if it is that already.

        Raises:
            DoesNotOpen: as in `open`.
        """
        opener = self._opener(ciphertext, key_id, where)
        if key_id == self.current_key_id:
            # The row's key id may have come with another column's value, so it proves nothing.
            with contextlib.suppress(InvalidToken):
                self._current.for_row(where).decrypt(ciphertext)
                return Sealed(ciphertext, key_id)
        with _says_where(where):
            token = opener.rotate(ciphertext)
        return Sealed(token.decode("ascii"), self.current_key_id)

    def _opener(self, ciphertext: str, key_id: str | None, where: RowRef) -> MultiFernet:
        if key_id not in self._keys:
            raise DoesNotOpen(
                f"{where.column} of row {where.row_id} in {where.table} cannot be opened",
                f"it is sealed under key {key_id or '(none)'}, and the keys known here are"
                f" {', '.join(self.key_ids)}",
                f"put that key back, on a line of its own after the first, from your copy of"
                f" {FILE_NAME}; if it is lost, connect the account again",
            )
        with _says_where(where):
            if not TOKEN_FORM.fullmatch(ciphertext):
                raise InvalidToken
        return MultiFernet([key.for_row(where) for key in self._keys.values()])


@contextlib.contextmanager
def _says_where(where: RowRef) -> Iterator[None]:
    try:
        yield
    except InvalidToken:
        raise DoesNotOpen(
            f"{where.column} of row {where.row_id} in {where.table} cannot be opened",
            "it was changed after it was sealed, or sealed for another row, column or user",
            "connect the account again, and find out who wrote the row",
        ) from None


def keys_file(settings: Settings) -> Path:
    """Where the keys lie unless the setting holds them."""
    return settings.warehouse_secret_keys_file or settings.warehouse_home / FILE_NAME


def load_keys(settings: Settings) -> list[MasterKey]:
    """The master keys, the current one first; none if there is neither setting nor file.

    Raises:
        WarehouseError: one is not a key, or the file cannot be read, or others could read it.
    """
    if settings.warehouse_secret_keys is not None:
        texts = settings.warehouse_secret_keys.get_secret_value().split(",")
        keys = [
            MasterKey.parse(text.strip(), f"part {number} of {SETTING}")
            for number, text in enumerate(texts, 1)
        ]
    else:
        keys = _parse_file(keys_file(settings), _read_private(keys_file(settings)))
    return list({key.key_id: key for key in keys}.values())


def add_key(settings: Settings) -> list[MasterKey]:
    """Make a new current key in the key file, and the file if there is none.

    Returns:
        all keys of the file, the new one first.

    Raises:
        UsageError: the keys are in the setting, not in a file.
        WarehouseError: the file cannot be read or written, or holds something else.
    """
    if settings.warehouse_secret_keys is not None:
        raise UsageError(
            "the keys are not in a file",
            f"{SETTING} is set and goes before the file",
            f"put a key of Fernet.generate_key() in front of the others in {SETTING}",
        )
    path = keys_file(settings).resolve()
    with _as_key_error(path):
        if not path.parent.exists():
            path.parent.mkdir(parents=True, mode=0o711 if os.geteuid() == 0 else 0o700)
        with _locked_folder(path.parent):
            before = _read_private(path)
            _parse_file(path, before)
            after = f"{Fernet.generate_key().decode('ascii')}\n{before}"
            replace_file(path, after.encode())
            return _parse_file(path, after)


def _parse_file(path: Path, content: str) -> list[MasterKey]:
    lines = [line.strip() for line in content.splitlines()]
    return [
        MasterKey.parse(line, f"line {number} of {path}")
        for number, line in enumerate(lines, 1)
        if line and not line.startswith("#")
    ]


def _read_private(path: Path) -> str:
    """The text of a key file, empty if there is none; refuses one that others may read."""
    with _as_key_error(path):
        try:
            content = path.read_text(encoding="utf-8", errors="replace")
            mode = path.stat().st_mode
        except FileNotFoundError:
            return ""
    if mode & 0o077:
        raise WarehouseError(
            f"{path} is not private",
            f"its mode is {mode & 0o777:04o}, so that other users may read the keys",
            f"run `chmod 600 {path}`; if others could log in here, make a new key and rotate",
        )
    return content


@contextlib.contextmanager
def _as_key_error(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise WarehouseError(
            f"the key file {path} cannot be used",
            error.strerror or type(error).__name__,
            "check its owner and its folder; WAREHOUSE_SECRET_KEYS_FILE names another file",
        ) from error


@contextlib.contextmanager
def _locked_folder(folder: Path) -> Iterator[None]:
    """One process at a time puts a key in front of the others."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


@dataclass(frozen=True)
class BrokenValue:
    """A value that no rotation can bring under the current key, and why."""

    table: str
    column: str
    row_id: UUID
    why: str


@dataclass
class TableRotation:
    """How many rows of a table were looked at, re-sealed and left because of a broken value."""

    table: str
    rows_checked: int = 0
    rows_resealed: int = 0
    rows_broken: int = 0


@dataclass(frozen=True)
class Rotation:
    """What a rotation did. Without broken values every row is under `key_id` alone."""

    key_id: str
    tables: list[TableRotation]
    broken: list[BrokenValue]


def rotate(
    connection: psycopg.Connection, box: SecretBox, *, batch_rows: int = BATCH_ROWS
) -> Rotation:
    """Bring every stored credential under the current key of `box`, a batch a transaction.

    Reads every row, also those whose key id is the current one. An interrupted rotation loses at
    most one batch; the next one goes on. Values that do not open are left as they are.

    Args:
        connection: in autocommit mode, of a role that may read and update the rows of all tenants.

    Raises:
        Busy: somebody has been changing a row for too long; the batches before are done.
    """
    rotation = Rotation(box.current_key_id, [], [])
    for table in SEALED_COLUMNS:
        counts = TableRotation(table)
        rotation.tables.append(counts)
        for batch in _batches(connection, table, batch_rows):
            counts.rows_checked += len(batch)
            stale = []
            for row in batch:
                resealed, broken = _resealed(box, table, row)
                rotation.broken.extend(broken)
                counts.rows_broken += bool(broken)
                if resealed:
                    stale.append(row["id"])
            if stale:
                counts.rows_resealed += _reseal_rows(connection, box, table, stale)
    return rotation


def rows_by_key(connection: psycopg.Connection) -> list[tuple[str, str | None, int]]:
    """Table, key id and number of rows with a credential, for each key that a row names."""
    return [
        (table, key_id, rows)
        for table, columns in SEALED_COLUMNS.items()
        for key_id, rows in connection.execute(
            sql.SQL(
                "select key_id, count(*) from {} where num_nonnulls({}) > 0"
                " group by key_id order by key_id"
            ).format(_table(table), _names(columns))
        )
    ]


def _batches(
    connection: psycopg.Connection, table: str, batch_rows: int
) -> Iterator[list[dict[str, Any]]]:
    """All rows in the order of their id, so many at a time."""
    statement = "select id, user_id, key_id, {} from {} where id {} %s order by id limit %s"
    after, comparison = UUID(int=0), sql.SQL(">=")
    while True:
        with connection.cursor(row_factory=dict_row) as cursor:
            batch = cursor.execute(
                sql.SQL(statement).format(_names(SEALED_COLUMNS[table]), _table(table), comparison),
                (after, batch_rows),
            ).fetchall()
        if not batch:
            return
        yield batch
        after, comparison = batch[-1]["id"], sql.SQL(">")


def _resealed(
    box: SecretBox, table: str, row: dict[str, Any]
) -> tuple[dict[str, Any] | None, list[BrokenValue]]:
    """The row as it must become, or None if it may stay; and its values that do not open."""
    after, broken = dict(row), []
    for column in SEALED_COLUMNS[table]:
        if row[column] is None:
            continue
        where = RowRef(table, column, row["id"], row["user_id"])
        try:
            after[column], after["key_id"] = box.reseal(row[column], row["key_id"], where)
        except DoesNotOpen as error:
            broken.append(BrokenValue(table, column, row["id"], error.why))
    return (None if broken or after == row else after), broken


def _reseal_rows(
    connection: psycopg.Connection, box: SecretBox, table: str, ids: list[UUID]
) -> int:
    """Lock these rows, read them again, and write those that still need it."""
    columns = SEALED_COLUMNS[table]
    assignments = sql.SQL(", ").join(
        sql.SQL("{} = {}").format(sql.Identifier(name), sql.Placeholder(name))
        for name in ("key_id", *columns)
    )
    try:
        with connection.transaction(), connection.cursor(row_factory=dict_row) as cursor:
            cursor.execute("select set_config('lock_timeout', %s, true)", (LOCK_TIMEOUT,))
            rows = cursor.execute(
                sql.SQL(
                    "select id, user_id, key_id, {} from {} where id = any(%s)"
                    " order by id for no key update"
                ).format(_names(columns), _table(table)),
                (ids,),
            ).fetchall()
            changed = [after for row in rows if (after := _resealed(box, table, row)[0])]
            cursor.executemany(
                sql.SQL("update {} set {} where id = %(id)s").format(_table(table), assignments),
                changed,
            )
            return len(changed)
    except psycopg.errors.LockNotAvailable:
        raise Busy(
            f"a row of {table} is being changed by somebody else",
            f"it has been locked for more than {LOCK_TIMEOUT}",
            "run `warehouse secrets rotate` again: it goes on where it stopped",
        ) from None


def _table(name: str) -> sql.Composable:
    return sql.Identifier(*name.split("."))


def _names(columns: Sequence[str]) -> sql.Composable:
    return sql.SQL(", ").join(map(sql.Identifier, columns))
