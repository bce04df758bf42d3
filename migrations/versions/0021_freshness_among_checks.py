"""When a source was loaded last is among the quality checks."""

from migrations.operations import roll_back, run_as_owner

revision = "0021"
down_revision = "0020"
branch_labels = None
depends_on = None

UPGRADE = """
alter table sqp.data_quality_checks
drop constraint data_quality_checks_check_type_check,
add constraint data_quality_checks_check_type_check check (check_type in (
    'row_count', 'sum_validation', 'null_check', 'schema', 'range', 'identity', 'volume',
    'rejected_rows', 'dbt_test', 'default_partition', 'alert', 'freshness'
));
"""

DOWNGRADE = """
delete from sqp.data_quality_checks where check_type = 'freshness';
alter table sqp.data_quality_checks
drop constraint data_quality_checks_check_type_check,
add constraint data_quality_checks_check_type_check check (check_type in (
    'row_count', 'sum_validation', 'null_check', 'schema', 'range', 'identity', 'volume',
    'rejected_rows', 'dbt_test', 'default_partition', 'alert'
));
"""


def upgrade() -> None:
    run_as_owner(UPGRADE)


def downgrade() -> None:
    roll_back(DOWNGRADE)
