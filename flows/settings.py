"""The one settings object. Nothing else in the project reads the environment."""

from __future__ import annotations

import getpass
import os
from functools import lru_cache
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
)
from pydantic_settings import BaseSettings, SettingsConfigDict

from flows.clients.patience import Patience
from flows.errors import UsageError
from flows.vocabulary.amc import ApiRegion

PROJECT_ROOT = Path(__file__).resolve().parent.parent


class Connection(BaseModel):
    """Where one Postgres is and how to log in: the parts of a libpq connection."""

    model_config = ConfigDict(frozen=True)

    host: str
    port: int
    user: str
    password: SecretStr
    database: str

    @property
    def is_socket(self) -> bool:
        """Whether `host` is a folder holding a Unix socket."""
        return self.host.startswith("/")

    def libpq(self) -> dict[str, str]:
        """Keyword arguments for `psycopg.connect`."""
        return {
            "host": self.host,
            "port": str(self.port),
            "user": self.user,
            "password": self.password.get_secret_value(),
            "dbname": self.database,
        }

    def environment(self) -> dict[str, str]:
        """The same as `PG*` variables, for psql, dbt and other subprocesses."""
        return {
            "PGHOST": self.host,
            "PGPORT": str(self.port),
            "PGUSER": self.user,
            "PGPASSWORD": self.password.get_secret_value(),
            "PGDATABASE": self.database,
        }


def _safe_url(url: str) -> str:
    """Refuse an address over which a token would travel in the clear."""
    parts = urlsplit(url)
    is_loopback = parts.hostname in ("127.0.0.1", "::1", "localhost")
    if parts.scheme != "https" and not (parts.scheme == "http" and is_loopback):
        raise ValueError("it must begin with https:// (or http:// on this machine)")
    return url.rstrip("/")


SafeUrl = Annotated[str, AfterValidator(_safe_url)]
"""An address that credentials may be sent to."""


class Settings(BaseSettings):
    """Every setting of the project, from the environment and `.env`.

    With `PGHOST` set, that server is used; otherwise the embedded one, whose address
    `warehouse up` writes into `.env` under the `WAREHOUSE_PG*` names.
    """

    model_config = SettingsConfigDict(
        env_file_encoding="utf-8", extra="ignore", env_ignore_empty=True
    )

    pghost: str | None = None
    pgport: int = 5432
    pguser: str | None = None
    pgpassword: SecretStr = SecretStr("")
    pgdatabase: str | None = None

    warehouse_home: Path = PROJECT_ROOT / ".warehouse"
    warehouse_pghost: str | None = None
    warehouse_pgport: int | None = None
    warehouse_pguser: str = "warehouse"
    warehouse_pgpassword: SecretStr = SecretStr("")
    warehouse_pgdatabase: str = "warehouse"

    warehouse_secret_keys: SecretStr | None = Field(
        default=None,
        description="The keys that stored credentials are sealed with: comma-separated, the"
        " current one first. Goes before the file.",
    )
    warehouse_secret_keys_file: Path | None = Field(
        default=None,
        description="The file with these keys, one a line; else `secret.keys` in the home.",
    )

    amazon_client_id: str | None = Field(
        default=None, description="Your client of Login with Amazon, for the Ads API."
    )
    amazon_client_secret: SecretStr | None = Field(default=None, description="Its secret.")
    amazon_token_url: SafeUrl = Field(
        default="https://api.amazon.com", description="Where tokens come from: scheme and host."
    )
    amazon_authorise_url: SafeUrl = Field(
        default="https://www.amazon.com/ap/oa", description="Where a person consents."
    )
    amazon_ads_hosts: dict[ApiRegion, SafeUrl] = Field(
        default={
            ApiRegion.NORTH_AMERICA: "https://advertising-api.amazon.com",
            ApiRegion.EUROPE: "https://advertising-api-eu.amazon.com",
            ApiRegion.FAR_EAST: "https://advertising-api-fe.amazon.com",
        },
        description="Scheme and host of the Ads API in each region, as JSON.",
    )
    amazon_redirect_port: int = Field(
        default=8765,
        ge=0,
        le=65535,
        description="The port of http://localhost that Amazon sends the browser back to; the"
        " address must be among your client's allowed return URLs.",
    )
    amazon_patience: Patience = Field(
        default=Patience(), description="Time limits, retries and caps of requests, as JSON."
    )

    bigquery_project: str | None = Field(
        default=None, description="The project that pays for queries, and that holds the table."
    )
    bigquery_dataset: str | None = None
    bigquery_table: str = "seller-search_query_performance"
    bigquery_location: str = "US"
    bigquery_marketplace: str | None = Field(
        default=None, description="Of all rows of the table: a country or Amazon's id."
    )
    google_application_credentials: Path | None = Field(
        default=None,
        description="A service account's key, a workload identity's or a user's file; else what"
        " google-auth finds.",
    )
    bigquery_endpoint: str | None = Field(
        default=None,
        description="Another address of the REST API; over http it gets no credentials.",
    )
    bigquery_storage_endpoint: str | None = Field(
        default=None, description="host:port of the Storage Read API beside that address."
    )
    bigquery_storage_api: bool = Field(
        default=True, description="Whether rows come through the Storage Read API; else REST."
    )
    bigquery_streams: int = Field(
        default=2,
        ge=1,
        le=64,
        description="How many streams are read at a time; each holds some 100 MB, and two bring"
        " more than Postgres takes in.",
    )
    bigquery_maximum_bytes_billed: int = Field(
        default=100 * 2**30, gt=0, description="What one query or one read may cost at most."
    )
    bigquery_first_load_days: int = Field(
        default=90, gt=0, description="How far back the first sync of a table reads."
    )
    bigquery_window_weeks: int = Field(
        default=8, gt=0, description="How many weeks back every sync compares."
    )
    bigquery_readers: str | None = Field(
        default=None,
        description="Who of Google's accounts may read their tenant's rows there, by commas:"
        " user:…, group:…, domain:…; dbt reads it too.",
    )
    bigquery_whole_days: int = Field(
        default=28,
        gt=0,
        description="After so many days the window is compared row by row, also where no partition"
        " of it was written to.",
    )
    bigquery_retry_seconds: float = Field(
        default=120, ge=0, description="How long a request that may yet succeed is tried again."
    )

    site_url: str | None = Field(
        default=None, description="Where people find the site that `make docs` writes."
    )
    lease_seconds: int = Field(
        default=120, gt=1, description="How long a run may be silent before it is shown as dead."
    )
    heartbeat_seconds: float = Field(
        default=10.0, gt=0, description="How often a run says it is alive."
    )
    fault_at: str | None = Field(
        default=None,
        description="For tests: the step at which the process kills itself, e.g. `landed`.",
    )

    @property
    def uses_external_server(self) -> bool:
        """Whether the user named a server of their own."""
        return bool(self.pghost)

    def connection(self) -> Connection | None:
        """The server to talk to, or None while the embedded one has not been started."""
        if self.pghost:
            user = self.pguser or getpass.getuser()
            return Connection(
                host=self.pghost,
                port=self.pgport,
                user=user,
                password=self.pgpassword,
                database=self.pgdatabase or user,
            )
        if self.warehouse_pghost and self.warehouse_pgport:
            return Connection(
                host=self.warehouse_pghost,
                port=self.warehouse_pgport,
                user=self.warehouse_pguser,
                password=self.warehouse_pgpassword,
                database=self.warehouse_pgdatabase,
            )
        return None

    def dbt_environment(self) -> dict[str, str]:
        """What `profiles.yml` reads: the variables of the server in use, under their names."""
        connection = self.connection()
        if connection is None:
            return {}
        prefix = "" if self.uses_external_server else "WAREHOUSE_"
        return {f"{prefix}{name}": value for name, value in connection.environment().items()}


def env_file(home: Path) -> Path:
    """The `.env` that belongs to a warehouse folder: it lies beside it."""
    return home.parent / ".env"


def warehouse_home() -> Path:
    """The folder of the embedded server and of all state: `WAREHOUSE_HOME`, or `.warehouse`."""
    return Path(os.environ.get("WAREHOUSE_HOME") or PROJECT_ROOT / ".warehouse").resolve()


@lru_cache
def get_settings() -> Settings:
    """The settings of this process; `get_settings.cache_clear()` reads them again."""
    home = warehouse_home()
    try:
        return Settings(_env_file=env_file(home), warehouse_home=home)
    except ValidationError as error:
        wrong = error.errors(include_input=False, include_url=False)[0]
        name = ".".join(str(part) for part in wrong["loc"]).upper()
        raise UsageError(
            f"the setting {name} cannot be used",
            wrong["msg"],
            f"correct {name} in the environment or in {env_file(home)}",
        ) from None


TELEMETRY_OFF = {
    "DO_NOT_TRACK": "1",
    "DBT_SEND_ANONYMOUS_USAGE_STATS": "false",
    "DBT_VERSION_CHECK": "false",
    "GX_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
}
CONSOLE_LOG = "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL"


def quiet_environment() -> dict[str, str]:
    """What every process of ours runs with: no telemetry, no version checks, no stray state.

    Errors are told by us, so Prefect's own log stays off the console (its server keeps it). Its
    temporary server may take two minutes to start on a busy machine. A run says every 30 seconds
    that it is alive, for an automation that closes those which do not.
    """
    return TELEMETRY_OFF | {
        "PREFECT_HOME": str(warehouse_home() / "prefect"),
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
        "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",
        CONSOLE_LOG: "CRITICAL",
    }


def quieten(*, debug: bool = False) -> None:
    """Put `quiet_environment()` into this process, before dbt, Prefect or GX is imported.

    What the user has set stays, except that telemetry is always off; with `debug` the console
    shows Prefect's log.
    """
    for name, value in quiet_environment().items():
        if name in TELEMETRY_OFF:
            os.environ[name] = value
        elif not (debug and name == CONSOLE_LOG):
            os.environ.setdefault(name, value)
