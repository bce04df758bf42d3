"""What unit tests share: the dbt project as its manifest tells it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from dbt.cli.main import dbtRunner

from flows.settings import PROJECT_ROOT


@pytest.fixture(scope="session")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The project as dbt reads it for PostgreSQL, which has more than BigQuery; no database."""
    folder = tmp_path_factory.mktemp("manifest")
    result = dbtRunner().invoke(
        [
            *("parse", "--quiet", "--warn-error"),
            *("--project-dir", str(PROJECT_ROOT / "dbt_project")),
            *("--profiles-dir", str(PROJECT_ROOT)),
            *("--target-path", str(folder), "--log-path", str(folder)),
        ]
    )
    assert result.success, result.exception
    read: dict[str, Any] = json.loads((folder / "manifest.json").read_text())
    return read
