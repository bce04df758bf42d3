"""A slice of a week that was read whole has no fingerprint: its rows were counted, not hashed."""

from migrations.operations import roll_back, run_as_owner

revision = "0022"
down_revision = "0021"
branch_labels = None
depends_on = None

UPGRADE = """
alter table landing.bigquery_slices
    alter column low_sum drop not null,
    alter column high_sum drop not null,
    add constraint bigquery_slices_sums check ((low_sum is null) = (high_sum is null));
"""

DOWNGRADE = """
delete from landing.bigquery_slices where low_sum is null;
alter table landing.bigquery_slices
    drop constraint bigquery_slices_sums,
    alter column low_sum set not null,
    alter column high_sum set not null;
"""


def upgrade() -> None:
    run_as_owner(UPGRADE)


def downgrade() -> None:
    roll_back(DOWNGRADE)
