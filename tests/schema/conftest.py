"""Everything in this folder runs on the embedded PostgreSQL and on Debian's 15 as well."""

from __future__ import annotations

import pytest

from tests import debian_server
from tests.conftest import DEBIAN_SERVER, OWN_SERVER

SERVERS = (
    OWN_SERVER,
    pytest.param(
        DEBIAN_SERVER,
        marks=pytest.mark.skipif(not debian_server.is_installed(), reason=debian_server.MISSING),
    ),
)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run each test that needs a server once on either."""
    if "server" in metafunc.fixturenames:
        metafunc.parametrize("server", SERVERS, indirect=True, scope="session")
