"""A database that a flow can work on: its server runs, and its migrations are applied."""

from __future__ import annotations

from flows.errors import WarehouseError
from flows.settings import get_settings
from flows.warehouse.embedded import ensure_server
from flows.warehouse.migrate import current_revision, head_revision, upgrade
from flows.warehouse.policies import ensure_policies, policies_are_applied


def ensure_ready() -> None:
    """Start and migrate the embedded server; a server of the user's own is only looked at.

    Raises:
        WarehouseError: the server cannot be reached, or the user's own is not migrated.
    """
    settings = get_settings()
    ensure_server(settings)
    if not settings.uses_external_server:
        upgrade()
        ensure_policies()
    elif (current := current_revision()) != (head := head_revision()):
        raise WarehouseError(
            "the database is not at the newest migration",
            f"it is at {current or 'none'}, this version wants {head}",
            "run `warehouse up`",
        )
    elif not policies_are_applied():
        raise WarehouseError(
            "the tables are not protected as this version declares it",
            "row security, grants, triggers or partitions have not been applied since a change",
            "run `warehouse up`",
        )
