"""What every revision needs: to run its SQL as it stands."""

from __future__ import annotations

from alembic import op


def run_sql(statements: str) -> None:
    """Run a script of several statements as written: `:` and `%` mean themselves."""
    connection = op.get_bind()
    driver = connection.connection.driver_connection
    assert driver is not None
    driver.execute(statements)
