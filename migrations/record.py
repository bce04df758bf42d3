"""What `app.schema_migrations` keeps of each migration: its checksum and the way back."""

from __future__ import annotations

import hashlib
from pathlib import Path
from types import ModuleType

from alembic.script import Script
from sqlalchemy import Connection, text

from migrations.operations import REMOVE_GENERATED

FIRST_WITH_GENERATED_OBJECTS = "0005"


def checksum(script: Script) -> str:
    """SHA-256 of a migration's file: an applied migration that is edited is found by it."""
    return hashlib.sha256(Path(script.path).read_bytes()).hexdigest()


def has_checksums(connection: Connection) -> bool:
    """Whether the database is at a revision whose `schema_migrations` has the column."""
    found = connection.execute(
        text(
            "select exists (select from pg_catalog.pg_attribute where"
            " attrelid = to_regclass('app.schema_migrations') and attname = 'checksum'"
            " and not attisdropped)"
        )
    )
    return bool(found.scalar())


def rollback_script(module: ModuleType) -> str:
    """The SQL that takes a migration back, complete by itself."""
    script: str = module.DOWNGRADE.strip()
    if module.revision >= FIRST_WITH_GENERATED_OBJECTS:
        return f"{REMOVE_GENERATED}\n{script}"
    return script
