"""Everything in this folder runs on the embedded PostgreSQL and on Debian's 15 as well."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from flows.settings import Connection, get_settings
from tests import debian_server
from tests.conftest import embedded_server

DEBIAN = pytest.param(
    "debian15",
    marks=pytest.mark.skipif(not debian_server.is_installed(), reason=debian_server.MISSING),
)


@pytest.fixture(scope="session", params=["own", DEBIAN])
def server(request: pytest.FixtureRequest) -> Iterator[Connection]:
    """A running PostgreSQL whose user may create databases and roles."""
    external = get_settings().connection() if get_settings().uses_external_server else None
    if request.param == "debian15":
        if external:
            pytest.skip("PGHOST names the server to test on")
        with debian_server.debian_postgres() as connection:
            yield connection
    elif external:
        yield external
    else:
        with embedded_server() as connection:
            yield connection
