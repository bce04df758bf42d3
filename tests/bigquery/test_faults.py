"""What goes wrong with BigQuery has its own words, and is tried again only where that helps."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import psycopg
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from flows.settings import get_settings
from flows.sources.bigquery_client import BigQueryError
from tests.bigquery.engine import Engine
from tests.bigquery.source_table import NAME, change, extract, in_force, insert, rows_of
from tests.integration.deliveries import asin

DENIED = {"status": 403, "reason": "accessDenied", "message": "Access Denied: Table x"}
QUOTA = {"status": 403, "reason": "quotaExceeded", "message": "Quota exceeded: free bytes scanned"}
EXPIRED = {"status": 401, "reason": "authError", "message": "Invalid Credentials"}
BROKEN = {"status": 503, "reason": "backendError", "message": "try again"}

WORDS = {
    "denied": ("may not be read with these credentials", "BigQuery Data Viewer"),
    "quota": ("a quota of BigQuery is used up", "sync again later"),
    "expired": ("does not accept the credentials", "application-default login"),
    "missing": ("is not there", "BIGQUERY_DATASET"),
    "broken": ("did not answer", "sync again in some minutes"),
}
"""Of each fault what is said, and the next step."""

OVER_REST = {
    "denied": DENIED,
    "quota": QUOTA,
    "expired": EXPIRED,
    "missing": {"status": 404, "message": "Not found"},
    "broken": BROKEN,
}
OVER_GRPC = {
    "denied": "PERMISSION_DENIED",
    "quota": "RESOURCE_EXHAUSTED",
    "expired": "UNAUTHENTICATED",
    "missing": "NOT_FOUND",
    "broken": "UNAVAILABLE",
}
FOR_EVER = 99


@pytest.fixture
def filled(
    engine: Engine, warehouse: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> psycopg.Connection[Any]:
    """The warehouse beside a table with rows; requests are tried again for a second at most."""
    monkeypatch.setenv("BIGQUERY_RETRY_SECONDS", "1.5")
    get_settings.cache_clear()
    insert(engine, [r for week in range(3) for r in rows_of(asin(1), week, 20)])
    return warehouse


def fails(engine: Engine, name: str, place: str, fault: dict[str, Any]) -> int:
    """How often it was asked until the sync gave up, in the words of this fault."""
    engine.faults({"at": place, "times": FOR_EVER, **fault})
    with pytest.raises(BigQueryError) as caught:
        extract()
    what, next_step = WORDS[name]
    assert what in caught.value.what
    assert next_step in caught.value.next_step
    return FOR_EVER - engine.faults_left()


@pytest.mark.parametrize("place", [f"GET .*{NAME}", "POST .*/jobs"], ids=["table", "query"])
def test_each_failure_of_a_request_has_its_own_words(
    engine: Engine, filled: psycopg.Connection[Any], place: str
) -> None:
    for name, fault in OVER_REST.items():
        asked = fails(engine, name, place, fault)
        assert asked > 1 if name == "broken" else asked == 1, f"{name} was asked {asked} times"
        assert in_force(filled) == {}
    engine.faults()
    assert extract().tally.records["inserted"] == 60


@pytest.mark.parametrize("place", ["CreateReadSession", "ReadRows"])
def test_each_failure_of_the_storage_api_has_its_own_words(
    engine: Engine, filled: psycopg.Connection[Any], place: str
) -> None:
    for name, code in OVER_GRPC.items():
        if (name, place) == ("denied", "CreateReadSession"):
            continue  # Rows come over REST then: `test_rest_is_the_fallback_and_says_so`.
        asked = fails(engine, name, place, {"code": code, "message": "no"})
        streams = 1 if place == "CreateReadSession" else 2
        assert asked > streams if name == "broken" else asked <= streams
        assert in_force(filled) == {}
    engine.faults()
    assert extract().tally.records["inserted"] == 60


def test_a_passing_fault_is_survived_and_a_broken_stream_loads_nothing(
    engine: Engine, warehouse: psycopg.Connection[Any]
) -> None:
    insert(engine, [r for week in range(3) for r in rows_of(asin(1), week, 20)])
    engine.faults(
        {"at": "GET .*seller-search", **BROKEN},
        {"at": "ReadRows", "code": "UNAVAILABLE", "message": "the stream was moved"},
    )
    assert extract().tally.records["inserted"] == 60
    change(engine, "update {table} set `ASIN Impression Count` = 5 where true")
    engine.faults(
        {"at": "ReadRows", "code": "INVALID_ARGUMENT", "after": 1, "message": "the session died"}
    )
    before = in_force(warehouse)
    with pytest.raises(BigQueryError, match="the session died"):
        extract()
    assert in_force(warehouse) == before
    engine.faults()
    assert extract().tally.records["updated"] == 60


@pytest.fixture
def refusing_login() -> Iterator[str]:
    """The address of a server that gives nobody a token."""

    class Refuses(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            said = b'{"error": "invalid_grant", "error_description": "Token has been revoked."}'
            self.send_response(400)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(said)))
            self.end_headers()
            self.wfile.write(said)

        def log_message(self, *_: Any) -> None:
            """Nothing."""

    with HTTPServer(("127.0.0.1", 0), Refuses) as login:
        threading.Thread(target=login.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{login.server_port}/token"
        login.shutdown()


@pytest.mark.filterwarnings("ignore:The load_credentials_from_file method:DeprecationWarning")
def test_a_key_that_was_withdrawn_is_told_before_anything_is_asked(
    filled: psycopg.Connection[Any],
    refusing_login: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    private = rsa.generate_private_key(public_exponent=65537, key_size=2048).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    key = tmp_path / "key.json"
    key.write_text(
        json.dumps(
            {
                "type": "service_account",
                "client_email": "dbt@my-project.iam.gserviceaccount.com",
                "private_key": private.decode(),
                "private_key_id": "1",
                "token_uri": refusing_login,
            }
        )
    )
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(key))
    # The real address, which is not reached: there is no token to go there with.
    monkeypatch.delenv("BIGQUERY_ENDPOINT")
    monkeypatch.delenv("BIGQUERY_STORAGE_ENDPOINT")
    get_settings.cache_clear()
    with pytest.raises(BigQueryError, match="does not accept the credentials") as caught:
        extract()
    assert "Token has been revoked" in caught.value.why
    assert "PRIVATE KEY" not in str(caught.value)
