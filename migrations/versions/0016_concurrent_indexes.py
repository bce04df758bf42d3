"""Indexes that begin with the account, on tables that hold deliveries: made beside loads."""

from migrations.operations import ConcurrentIndex, create_concurrently, roll_back

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None

INDEXES = (
    ConcurrentIndex("sqp.sync_log", "idx_sync_log_account", "account_id, started_at desc"),
    ConcurrentIndex("landing.sqp_asin", "sqp_asin_account", "account_id, period_start"),
    ConcurrentIndex("landing.sqp_brand", "sqp_brand_account", "account_id, period_start"),
    ConcurrentIndex("landing.rejected_rows", "rejected_rows_account", "account_id, rejected_at"),
)

DOWNGRADE = "\n".join(index.drop for index in INDEXES)


def upgrade() -> None:
    for index in INDEXES:
        create_concurrently(index)


def downgrade() -> None:
    roll_back(DOWNGRADE)
