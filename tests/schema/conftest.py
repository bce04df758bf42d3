"""Everything in this folder runs on the embedded PostgreSQL and on Debian's 15 as well."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from flows.settings import Connection, get_settings
from flows.warehouse.embedded import ensure_server, stop_server
from tests import debian_server
from tests.conftest import use_home

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
        folder = Path(tempfile.mkdtemp(prefix="wh-", dir="/tmp"))
        folder.chmod(0o711)
        with pytest.MonkeyPatch.context() as patch:
            use_home(patch, folder / ".warehouse")
            connection = ensure_server(get_settings())
        yield connection
        with pytest.MonkeyPatch.context() as patch:
            use_home(patch, folder / ".warehouse")
            stop_server(get_settings())
        get_settings.cache_clear()
        shutil.rmtree(folder)
