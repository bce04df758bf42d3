"""What of the table in BigQuery was loaded, slice by slice."""

from migrations.operations import roll_back, run_as_owner

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None

UPGRADE = """
create table landing.bigquery_slices (
    account_id text not null,
    source_table text not null,
    marketplace_id text not null,
    period_start date not null check (extract(dow from period_start) = 0),
    subject text not null,
    row_count bigint not null check (row_count > 0),
    low_sum bigint not null,
    high_sum bigint not null,
    job_id text not null,
    read_at timestamptz not null default clock_timestamp(),
    primary key (account_id, source_table, marketplace_id, period_start, subject)
);
create index on landing.bigquery_slices (source_table, marketplace_id, period_start);
"""

DOWNGRADE = """
drop table landing.bigquery_slices;
"""


def upgrade() -> None:
    run_as_owner(UPGRADE)


def downgrade() -> None:
    roll_back(DOWNGRADE)
