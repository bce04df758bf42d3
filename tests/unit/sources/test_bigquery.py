"""What is decided about a table in BigQuery before anything is asked of it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, datetime
from typing import Any

import pytest
from google.api_core import exceptions
from google.auth import exceptions as auth_exceptions
from google.auth.credentials import AnonymousCredentials
from google.cloud.bigquery import SchemaField

from flows.commands.bigquery import refuse_options, request
from flows.errors import UsageError
from flows.settings import Settings
from flows.sources.bigquery import (
    Fingerprint,
    Loss,
    SliceName,
    losses,
    window_start,
)
from flows.sources.bigquery_client import BigQueryError, connect_bigquery, talking_to_bigquery
from flows.sources.bigquery_contract import check_schema, contract
from flows.sources.bigquery_request import BigQueryRequest
from flows.sources.bigquery_rows import Restriction

WEEK_1, WEEK_2 = date(2026, 11, 1), date(2026, 11, 8)


def test_a_restriction_is_made_of_days_and_asins_alone() -> None:
    weeks = {WEEK_1: None, WEEK_2: frozenset({"B000000002", "B000000001"})}
    assert Restriction("DATE", weeks).sql() == (
        "(`Date` >= date '2026-11-01' and `Date` < date '2026-11-08')"
        " or (`Date` >= date '2026-11-08' and `Date` < date '2026-11-15'"
        " and `Child ASIN` in ('B000000001', 'B000000002'))"
    )
    assert "timestamp '2026-11-01 00:00:00+00'" in Restriction("TIMESTAMP", {WEEK_1: None}).sql()


def test_a_week_that_lost_more_than_half_is_a_loss_and_nothing_at_all_is_one_loss() -> None:
    def slices(rows: Mapping[date, int]) -> dict[SliceName, Fingerprint]:
        return {SliceName("a", week, "B1"): Fingerprint(n, n, n) for week, n in rows.items()}

    before = slices({WEEK_1: 10, WEEK_2: 10})
    assert losses(before, slices({WEEK_1: 5, WEEK_2: 20})) == []
    assert losses(before, slices({WEEK_1: 4, WEEK_2: 10})) == [Loss(WEEK_1, 10, 4)]
    assert losses(before, slices({WEEK_2: 10})) == [Loss(WEEK_1, 10, 0)]
    assert losses(before, {}) == [Loss(None, 20, 0)]
    assert losses({}, {}) == []


@pytest.mark.parametrize(
    ("asked", "newest", "expected"),
    [
        ({}, None, date(2026, 8, 23)),
        ({}, date(2026, 11, 15), date(2026, 9, 27)),
        ({}, date(2026, 6, 7), date(2026, 6, 7)),
        ({"weeks": 52}, date(2026, 11, 15), date(2025, 11, 23)),
        ({"since": date(2026, 11, 4)}, None, WEEK_1),
    ],
)
def test_the_window_begins_on_a_sunday(
    asked: dict[str, Any], newest: date | None, expected: date
) -> None:
    class Known:
        def newest_week(self) -> date | None:
            return newest

        def slices_since(self, first_day: date) -> Mapping[SliceName, Fingerprint]:
            return {}

        def compared_at(self, first_day: date) -> datetime | None:
            return None

    start = window_start(BigQueryRequest(**asked), Known(), Settings(), date(2026, 11, 24))
    assert start == expected
    assert start.isoweekday() == 7


def test_a_repeated_column_breaks_the_contract() -> None:
    schema = [SchemaField(name, types[0]) for name, types in contract().items()]
    assert check_schema(schema, "t") == "DATE"
    schema[6] = SchemaField(schema[6].name, "INTEGER", mode="REPEATED")
    with pytest.raises(BigQueryError, match=r"ARRAY<INT64> \(expected INT64"):
        check_schema(schema, "t")


@pytest.mark.parametrize(
    ("raised", "what"),
    [
        (auth_exceptions.RefreshError("invalid_grant"), "does not accept the credentials"),
        (auth_exceptions.DefaultCredentialsError("none"), "there are no credentials"),
        (exceptions.ResourceExhausted("quota"), "a quota of BigQuery is used up"),
        (exceptions.PermissionDenied("no"), "may not be read"),
        (exceptions.DeadlineExceeded("slow"), "did not answer"),
        (exceptions.InvalidArgument("what"), "refused what was asked"),
        (
            exceptions.Forbidden("no billing", errors=[{"reason": "billingNotEnabled"}]),
            "may not pay",
        ),
        (
            exceptions.InternalServerError("x", errors=[{"reason": "bytesBilledLimitExceeded"}]),
            "would cost more",
        ),
    ],
)
def test_what_google_raises_is_told_as_what_it_is(raised: Exception, what: str) -> None:
    with pytest.raises(BigQueryError, match=what), talking_to_bigquery("p.d.t"):
        raise raised


def test_what_is_told_holds_no_address_and_what_is_missing_has_its_own_next_step() -> None:
    raised = exceptions.NotFound("GET https://host/v2/x?key=1: Not found: Table t")
    with (
        pytest.raises(BigQueryError) as caught,
        talking_to_bigquery("p.d.t", if_missing="build it first"),
    ):
        raise raised
    assert caught.value.why == "Not found: Table t"
    assert caught.value.next_step == "build it first"


def test_an_address_without_encryption_gets_no_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("google.auth.default", lambda **_: pytest.fail("credentials were asked"))
    plain = {"bigquery_project": "p", "bigquery_dataset": "d"}
    client = connect_bigquery(
        Settings(
            **plain,
            bigquery_endpoint="http://127.0.0.1:1",
            bigquery_storage_endpoint="127.0.0.1:2",
        )
    )
    assert isinstance(client.rest._credentials, AnonymousCredentials)


def test_options_that_cannot_mean_anything_are_refused() -> None:
    with pytest.raises(UsageError, match="cannot be read from BigQuery"):
        request(["file.csv"], "US", None, None, None, False)
    with pytest.raises(UsageError, match="were both given"):
        request([], "US", None, datetime(2026, 1, 1), 5, False)
    with pytest.raises(UsageError, match="--accept-losses says nothing about files"):
        refuse_options(since=None, weeks=None, accept_losses=True)
