"""`dbt run` in this process."""

from __future__ import annotations

from pathlib import Path

from flows.settings import PROJECT_ROOT


def run_dbt(folder: Path, *arguments: str) -> None:
    """Run what the arguments select; artifacts and logs go into the folder.

    Raises:
        RuntimeError: a model failed.
    """
    # Imported late: it reads the .env of the folder, which may name another server.
    from dbt.cli.main import dbtRunner

    result = dbtRunner().invoke(
        [
            *("run", *arguments, "--quiet"),
            *("--project-dir", str(PROJECT_ROOT / "dbt_project")),
            *("--profiles-dir", str(PROJECT_ROOT)),
            *("--target-path", str(folder), "--log-path", str(folder)),
        ]
    )
    if not result.success:
        raise RuntimeError(
            result.exception or [(each.node.name, each.message) for each in result.result]
        )
