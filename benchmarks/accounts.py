"""Syncs of accounts against the time of the requests that nobody can avoid.

The local servers take 50 ms for each answer. The unavoidable sequence is the longest chain of
requests of which each needs the answer before it, sent by a bare httpx client to the same servers.
Measured is the flow's body, in a process of its own: not the start of Python, nor Prefect.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from statistics import median
from typing import Any

import httpx
from cryptography.fernet import Fernet
from pydantic import SecretStr

from benchmarks.server import fresh_database
from benchmarks.sync_once import peak_megabytes
from flows.clients.lwa import TokenSet
from flows.settings import get_settings
from flows.warehouse.amazon_connections import store_connection
from flows.warehouse.connection import connect
from flows.warehouse.secrets import SecretBox

LATENCY = 0.05
SMALL, LARGE = 100, 10_000
ROUNDS = 7


def run() -> dict[str, Any]:
    """A first and an unchanged sync of few and of many accounts."""
    return {"small": measure(SMALL, ROUNDS), "large": measure(LARGE, 3)}


def measure(accounts: int, rounds: int) -> dict[str, Any]:
    """The seconds of syncs, of what the database took of them, and of the unavoidable requests."""
    with fresh_database(), served(accounts) as known:
        connect_tenant(known)
        bare = [chain(known, accounts) for _ in range(rounds)]
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.accounts", str(rounds)],
            check=True,
            stdout=subprocess.PIPE,
            text=True,
        )
        bare += [chain(known, accounts) for _ in range(rounds)]
        syncs = json.loads(done.stdout)
        unchanged = syncs[1:]
        return {
            "accounts": accounts,
            "requests": syncs[0]["requests"],
            "bare_s": median(bare),
            "first_s": syncs[0]["seconds"],
            "unchanged_s": median(each["seconds"] for each in unchanged),
            "database_s": median(each["database_seconds"] for each in unchanged),
            "login_s": median(each["login_seconds"] for each in unchanged),
            "peak_mb": syncs[-1]["peak_mb"],
            "grown_mb": syncs[-1]["peak_mb"] - syncs[0]["peak_mb"],
        }


def chain(known: dict[str, Any], accounts: int) -> float:
    """Seconds of the longest sequence: profiles, then DSP; or all pages of accounts."""
    hosts = json.loads(known["environment"]["AMAZON_ADS_HOSTS"])
    headers = {
        "Authorization": f"Bearer {known['access']}",
        "Amazon-Advertising-API-ClientId": known["environment"]["AMAZON_CLIENT_ID"],
    }
    with httpx.Client(base_url=hosts["NA"], headers=headers, timeout=30) as client:
        started = time.perf_counter()
        if accounts <= 100:
            profiles = client.get("/v2/profiles").json()
            scope = {"Amazon-Advertising-API-Scope": str(profiles[-1]["profileId"])}
            client.get("/dsp/advertisers", headers=scope).json()
        else:
            token, kind = None, "application/vnd.listaccountsresource.v1+json"
            typed = {"Accept": kind, "Content-Type": kind}
            while True:
                body = {"maxResults": 100} | ({"nextToken": token} if token else {})
                page = client.post("/adsAccounts/list", headers=typed, json=body).json()
                if not (token := page.get("nextToken")):
                    break
        return time.perf_counter() - started


@contextmanager
def served(accounts: int) -> Iterator[dict[str, Any]]:
    """The servers, and this process's settings for them."""
    with subprocess.Popen(
        [sys.executable, "-m", "benchmarks.amazon_servers", str(accounts), str(LATENCY)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        known = json.loads(process.stdout.readline())
        settings = known["environment"] | {
            "WAREHOUSE_SECRET_KEYS": Fernet.generate_key().decode("ascii")
        }
        os.environ.update(settings)
        get_settings.cache_clear()
        try:
            yield known
        finally:
            for name in settings:
                del os.environ[name]
            get_settings.cache_clear()
            process.communicate()


def connect_tenant(known: dict[str, Any]) -> None:
    """A tenant with a connection."""
    with connect(autocommit=True) as session:
        session.execute(
            "insert into app.users (email, password_hash, first_name, last_name)"
            " values ('bench@example.com', 'x', 'B', 'B')"
        )
        tokens = TokenSet(
            SecretStr(known["access"]),
            SecretStr(known["refresh"]),
            "bearer",
            datetime.now(UTC) + timedelta(hours=1),
        )
        store_connection(
            session, SecretBox.from_settings(), email=None, name="bench", tokens=tokens
        )


def sync_here(rounds: int) -> list[dict[str, float]]:
    """The first sync, and so many unchanged ones, in this process."""
    from flows.sync_accounts import sync_accounts

    results = []
    for _ in range(rounds + 1):
        started = time.perf_counter()
        report = sync_accounts.fn()
        seconds = time.perf_counter() - started
        started = time.perf_counter()
        connect(autocommit=True, role="etl").close()
        login_seconds = time.perf_counter() - started
        (only,) = report.connections
        if only.status != "success":
            raise SystemExit(f"the sync did not succeed: {only.problems[:1]}")
        results.append(
            {
                "seconds": seconds,
                "login_seconds": login_seconds,
                "database_seconds": only.database_seconds + seconds - only.seconds,
                "requests": only.requests,
                "peak_mb": peak_megabytes(),
            }
        )
    return results


if __name__ == "__main__":
    print(json.dumps(sync_here(int(sys.argv[1]))))
