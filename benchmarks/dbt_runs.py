"""`dbt run` in a process of its own, so that it does not keep this one from measuring."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from flows.settings import PROJECT_ROOT


def run_dbt(folder: Path, *arguments: str) -> None:
    """Run what the arguments select; artifacts and logs go into the folder.

    Raises:
        RuntimeError: a model failed; it says what dbt said.
    """
    done = subprocess.run(
        [
            str(Path(sys.executable).with_name("dbt")),
            *("run", *arguments, "--quiet"),
            *("--project-dir", str(PROJECT_ROOT / "dbt_project")),
            *("--profiles-dir", str(PROJECT_ROOT)),
            *("--target-path", str(folder), "--log-path", str(folder)),
        ],
        check=False,
        cwd=folder,  # in the project's own, dbt would read a .env that may name another server
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if done.returncode:
        raise RuntimeError(done.stdout)
