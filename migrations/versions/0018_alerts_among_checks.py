"""Alerts are among the quality checks."""

from migrations.operations import roll_back, run_as_owner

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None

UPGRADE = """
alter table sqp.data_quality_checks
drop constraint data_quality_checks_check_type_check,
add constraint data_quality_checks_check_type_check check (check_type in (
    'row_count', 'sum_validation', 'null_check', 'schema', 'range', 'identity', 'volume',
    'rejected_rows', 'dbt_test', 'default_partition', 'alert'
));
"""

DOWNGRADE = """
delete from sqp.data_quality_checks where check_type = 'alert';
alter table sqp.data_quality_checks
drop constraint data_quality_checks_check_type_check,
add constraint data_quality_checks_check_type_check check (check_type in (
    'row_count', 'sum_validation', 'null_check', 'schema', 'range', 'identity', 'volume',
    'rejected_rows', 'dbt_test', 'default_partition'
));
"""


def upgrade() -> None:
    run_as_owner(UPGRADE)


def downgrade() -> None:
    roll_back(DOWNGRADE)
