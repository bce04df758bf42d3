"""The way to BigQuery: clients from the settings, and every failure told as what it is.

Credentials are whatever google-auth gives: the file that the settings name (a service account's
key, a workload identity's configuration, a user's login), else the application default ones.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import google.auth
import grpc
from google.api_core import exceptions
from google.api_core.client_options import ClientOptions
from google.api_core.retry import Retry, if_exception_type
from google.auth import exceptions as auth_exceptions
from google.auth.credentials import AnonymousCredentials
from google.cloud import bigquery
from google.cloud.bigquery.retry import DEFAULT_JOB_RETRY, DEFAULT_RETRY
from google.cloud.bigquery.table import RowIterator
from google.cloud.bigquery_storage_v1 import BigQueryReadClient
from google.cloud.bigquery_storage_v1.services.big_query_read.transports import (
    BigQueryReadGrpcTransport,
)
from requests.exceptions import RequestException

from flows.errors import UsageError, WarehouseError
from flows.settings import Settings

SCOPES = ("https://www.googleapis.com/auth/bigquery",)
MESSAGE_BYTES = 128 * 2**20
"""A response of the Storage API holds up to so many bytes."""

JOB_PREFIX = "warehouse_sqp_"
LABELS = {"application": "warehouse", "flow": "sync-sqp"}
"""On every job, so that its cost can be found in the billing export."""

_QUOTA = {"quotaExceeded", "rateLimitExceeded", "jobRateLimitExceeded", "userRateLimitExceeded"}
_TOO_DEAR = {"bytesBilledLimitExceeded"}
_NO_BILLING = {"billingNotEnabled", "accountDisabled"}

PAGE_ROWS = 10_000
"""Rows of a page of what comes over REST."""

PAGE_SLICES = 2_000
"""Slices of a page: what is kept of each page holds the memory that the page took."""

STORAGE_RETRY = Retry(
    predicate=if_exception_type(exceptions.ServiceUnavailable), initial=0.1, maximum=10.0
)

log = logging.getLogger(__name__)


class BigQueryError(WarehouseError):
    """BigQuery did not do what was asked; nothing of the sync was loaded."""


class NotAllowed(BigQueryError):
    """These credentials may not do it, whenever they ask."""


@dataclass(frozen=True)
class BigQuery:
    """Where the table is and how to reach it.

    Attributes:
        table: `project.dataset.table`.
        rest: for metadata, queries, and rows where the Storage API is not to be used.
        storage: the Storage Read API, or None.
        maximum_bytes: what one query or one read may scan.
        streams: how many streams are read at a time.
        retry: for requests of the REST client that may yet succeed.
        job_retry: for queries that failed on the way, which by itself goes on for 40 minutes.
        storage_retry: the same for the Storage Read API, which by itself goes on for a day.
    """

    table: str
    location: str
    rest: bigquery.Client
    storage: BigQueryReadClient | None
    maximum_bytes: int
    streams: int = 2
    retry: Retry = DEFAULT_RETRY
    job_retry: Retry = DEFAULT_JOB_RETRY
    storage_retry: Retry = STORAGE_RETRY

    def start(
        self,
        query: str,
        parameters: Sequence[bigquery.ScalarQueryParameter] = (),
        *,
        dry_run: bool = False,
    ) -> bigquery.QueryJob:
        """Start a query: labelled, bounded in cost, never from a cache."""
        config = bigquery.QueryJobConfig(
            labels=LABELS,
            maximum_bytes_billed=self.maximum_bytes,
            use_query_cache=False,
            query_parameters=list(parameters),
            dry_run=dry_run,
        )
        return self.rest.query(
            query,
            job_config=config,
            job_id_prefix=JOB_PREFIX,
            retry=self.retry,
            # Else the request is tried again for ten minutes, whatever `retry` says.
            job_retry=None,
            timeout=60,
        )

    def rows(self, job: bigquery.QueryJob, *, page_rows: int = PAGE_ROWS) -> RowIterator:
        """The rows of a query, once it is done; memory holds a page of them."""
        return job.result(page_size=page_rows, retry=self.retry, job_retry=self.job_retry)


def connect_bigquery(settings: Settings) -> BigQuery:
    """The clients that the settings describe.

    Raises:
        UsageError: the settings do not say which table.
        BigQueryError: there are no credentials.
    """
    for name in ("bigquery_project", "bigquery_dataset"):
        if not getattr(settings, name):
            raise UsageError(
                "it is not said which table of BigQuery to read",
                f"{name.upper()} is not set",
                f"set {name.upper()} in the environment or in .env, see .env.example",
            )
    table = f"{settings.bigquery_project}.{settings.bigquery_dataset}.{settings.bigquery_table}"
    with talking_to_bigquery(table):
        credentials = _credentials(settings)
        rest = bigquery.Client(
            project=settings.bigquery_project,
            credentials=credentials,
            location=settings.bigquery_location,
            client_options=ClientOptions(api_endpoint=settings.bigquery_endpoint),
        )
        storage = _storage_client(settings, credentials) if settings.bigquery_storage_api else None
    return BigQuery(
        table=table,
        location=settings.bigquery_location,
        rest=rest,
        storage=storage,
        maximum_bytes=settings.bigquery_maximum_bytes_billed,
        streams=settings.bigquery_streams,
        retry=DEFAULT_RETRY.with_timeout(settings.bigquery_retry_seconds),
        job_retry=DEFAULT_JOB_RETRY.with_timeout(settings.bigquery_retry_seconds),
        storage_retry=STORAGE_RETRY.with_timeout(settings.bigquery_retry_seconds),
    )


def _is_plain(settings: Settings) -> bool:
    return (settings.bigquery_endpoint or "").startswith("http://")


def _credentials(settings: Settings) -> Any:
    """Credentials for Google; none for an address without encryption, where they could be read."""
    if _is_plain(settings):
        return AnonymousCredentials()  # type: ignore[no-untyped-call]
    if settings.google_application_credentials:
        found, _ = google.auth.load_credentials_from_file(  # type: ignore[no-untyped-call]
            str(settings.google_application_credentials), scopes=SCOPES
        )
        return found
    found, _ = google.auth.default(scopes=SCOPES)
    return found


def _storage_client(settings: Settings, credentials: Any) -> BigQueryReadClient:
    if settings.bigquery_storage_endpoint and _is_plain(settings):
        channel = grpc.insecure_channel(
            settings.bigquery_storage_endpoint,
            options=[("grpc.max_receive_message_length", MESSAGE_BYTES)],
        )
        return BigQueryReadClient(  # type: ignore[no-untyped-call]
            transport=BigQueryReadGrpcTransport(channel=channel)
        )
    return BigQueryReadClient(  # type: ignore[no-untyped-call]
        credentials=credentials,
        client_options=ClientOptions(api_endpoint=settings.bigquery_storage_endpoint),
    )


@contextmanager
def talking_to_bigquery(
    what: str,
    *,
    if_missing: str = "check BIGQUERY_PROJECT, BIGQUERY_DATASET, BIGQUERY_TABLE and"
    " BIGQUERY_LOCATION",
) -> Iterator[None]:
    """Turn what Google's libraries raise about `what` into an error with its next step.

    Args:
        if_missing: the next step where `what` is not there.
    """
    try:
        yield
    except (
        auth_exceptions.RefreshError,
        auth_exceptions.InvalidOperation,
        exceptions.Unauthorized,
    ) as error:
        raise BigQueryError(
            f"BigQuery does not accept the credentials for {what}",
            _said(error),
            "they have expired or were withdrawn: log in again with"
            " `gcloud auth application-default login`, or put a new key file in place",
        ) from error
    except (auth_exceptions.DefaultCredentialsError, auth_exceptions.MalformedError) as error:
        raise BigQueryError(
            f"there are no credentials for {what}",
            _said(error),
            "set GOOGLE_APPLICATION_CREDENTIALS to a key file, or run"
            " `gcloud auth application-default login`",
        ) from error
    except exceptions.NotFound as error:
        raise BigQueryError(
            f"{what} is not there",
            _said(error),
            if_missing,
        ) from error
    except exceptions.TooManyRequests as error:
        raise _over_quota(what, error) from error
    except exceptions.Forbidden as error:
        if _reasons(error) & _QUOTA or "quota exceeded" in str(error).lower():
            raise _over_quota(what, error) from error
        if _reasons(error) & _NO_BILLING:
            raise BigQueryError(
                f"the project may not pay for {what}",
                _said(error),
                "switch billing on for the project, or name another in BIGQUERY_PROJECT",
            ) from error
        raise NotAllowed(
            f"{what} may not be read with these credentials",
            _said(error),
            "give them the roles BigQuery Data Viewer on the dataset, and BigQuery Job User and"
            " BigQuery Read Session User on the project",
        ) from error
    except exceptions.GoogleAPICallError as error:
        if _reasons(error) & _TOO_DEAR:
            raise too_dear(what, _said(error)) from error
        if isinstance(error, exceptions.ServerError):
            raise _unavailable(what, error) from error
        raise BigQueryError(
            f"BigQuery refused what was asked about {what}",
            _said(error),
            "run the command again with --debug and report what it prints",
        ) from error
    except (exceptions.RetryError, auth_exceptions.TransportError, RequestException) as error:
        raise _unavailable(what, error) from error


def too_dear(what: str, why: str) -> BigQueryError:
    """The error for a query or a read that would cost more than it may."""
    return BigQueryError(
        f"reading {what} would cost more than it may",
        why,
        "read less with --since or --weeks, partition the table by Date, or raise"
        " BIGQUERY_MAXIMUM_BYTES_BILLED",
    )


def estimate(
    client: BigQuery, query: str, parameters: Sequence[bigquery.ScalarQueryParameter] = ()
) -> int:
    """The bytes that a query will read, as a dry run says.

    Raises:
        BigQueryError: they are more than may be billed.
    """
    with talking_to_bigquery(client.table):
        job = client.start(query, parameters, dry_run=True)
    estimated = job.total_bytes_processed or 0
    if estimated > client.maximum_bytes:
        raise too_dear(
            client.table,
            f"the query would read {estimated:,} bytes, at most {client.maximum_bytes:,} may be",
        )
    log.info("%s: a query will read %s bytes", client.table, f"{estimated:,}")
    return estimated


def _over_quota(what: str, error: Exception) -> BigQueryError:
    return BigQueryError(
        f"a quota of BigQuery is used up, so {what} was not read",
        _said(error),
        "sync again later: short limits pass in minutes, daily ones at midnight Pacific time",
    )


def _unavailable(what: str, error: Exception) -> BigQueryError:
    return BigQueryError(
        f"BigQuery did not answer about {what}, also when asked again",
        _said(error),
        "sync again in some minutes; https://status.cloud.google.com tells of outages",
    )


def _reasons(error: exceptions.GoogleAPICallError) -> set[str]:
    return {str(each.get("reason")) for each in error.errors if isinstance(each, dict)}


def _said(error: Exception) -> str:
    """What the service said, in one line and without the address that was asked."""
    told = getattr(error, "message", None) or str(error)
    plain = re.sub(r"^[A-Z]+ https?://\S+: ", "", " ".join(str(told).split()))
    return plain[:300] or type(error).__name__
