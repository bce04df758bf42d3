"""How the warehouse is: server, migrations, syncs, freshness and the verdict on its numbers."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from flows.report import Quality, freshness, held_slices, last_syncs, newest_quality
from flows.settings import get_settings
from flows.warehouse.connection import connect
from flows.warehouse.embedded import ServerStatus, server_status
from flows.warehouse.migrate import current_revision, head_revision
from flows.warehouse.rows import Row


@dataclass(frozen=True)
class Status:
    """What `warehouse status` tells. Without a running server only `server` is known."""

    server: ServerStatus
    revision: str | None
    head: str
    syncs: list[Row]
    freshness: list[Row]
    held: list[Row]
    quality: Quality

    @property
    def is_migrated(self) -> bool:
        """Whether the database has every migration of this version of the code."""
        return self.revision == self.head

    def as_dict(self) -> dict[str, Any]:
        """For machines."""
        return {**asdict(self), "is_migrated": self.is_migrated}


def read_status() -> Status:
    """Ask the server in use how the warehouse is; nothing is started or changed."""
    server = server_status(get_settings())
    head = head_revision()
    revision = current_revision() if server.running else None
    if revision != head:
        return Status(server, revision, head, [], [], [], Quality("unknown"))
    with connect(autocommit=True, application="warehouse status") as connection:
        return Status(
            server=server,
            revision=revision,
            head=head,
            syncs=last_syncs(connection),
            freshness=freshness(connection),
            held=held_slices(connection),
            quality=newest_quality(connection),
        )
