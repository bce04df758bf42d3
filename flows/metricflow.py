"""MetricFlow's own command line on this project: `python -m flows.metricflow query …`.

It runs on the project and server in use, whose tables dbt names anew first: MetricFlow reads what
dbt parsed last. It does not ask a package registry for newer versions of itself, for which it has
no setting.
"""

from __future__ import annotations

import os
import sys

from flows import console
from flows.errors import WarehouseError
from flows.settings import PROJECT_ROOT, get_settings, quieten
from flows.warehouse import dbt_build


class NoUpdateChecker:
    """Stands in for the class that asks for newer versions."""

    def check(self, package_name: str, package_version: str) -> None:
        """Nothing is asked, so nothing newer is known."""


def main() -> None:
    """Run MetricFlow with the process's arguments, and end with its exit status."""
    try:
        prepare()
    except WarehouseError as error:
        console.show_error(error)
        sys.exit(error.exit_code)
    from dbt_metricflow.cli import main as command_line

    command_line.UpdateChecker = NoUpdateChecker  # type: ignore[attr-defined]
    sys.argv[0] = "mf"
    command_line.cli()


def prepare() -> None:
    """Name the server in use and the project to dbt and MetricFlow, and read the metrics."""
    quieten()
    os.environ.update(get_settings().dbt_environment())
    os.environ["DBT_PROFILES_DIR"] = str(PROJECT_ROOT)
    os.environ["DBT_PROJECT_DIR"] = str(PROJECT_ROOT / "dbt_project")
    dbt_build.parse()


if __name__ == "__main__":
    main()
