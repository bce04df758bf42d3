"""MetricFlow's own command line on this project: `python -m flows.metricflow query …`.

It runs in the project's folder with the profile of the server in use, and does not ask a package
registry for newer versions of itself, which MetricFlow has no setting for.
"""

from __future__ import annotations

import os
import sys

from flows.settings import PROJECT_ROOT, get_settings, quieten


class NoUpdateChecker:
    """Stands in for the class that asks for newer versions."""

    def check(self, package_name: str, package_version: str) -> None:
        """Nothing is asked, so nothing newer is known."""


def main() -> None:
    """Run MetricFlow with the process's arguments, and end with its exit status."""
    quieten()
    os.environ.update(get_settings().dbt_environment())
    os.environ["DBT_PROFILES_DIR"] = str(PROJECT_ROOT)
    os.environ["DBT_PROJECT_DIR"] = str(PROJECT_ROOT / "dbt_project")
    os.environ.setdefault("DBT_TARGET_PATH", str(PROJECT_ROOT / "dbt_project" / "target"))
    from dbt_metricflow.cli import main as command_line

    command_line.UpdateChecker = NoUpdateChecker  # type: ignore[attr-defined]
    sys.argv[0] = "mf"
    command_line.cli()


if __name__ == "__main__":
    main()
