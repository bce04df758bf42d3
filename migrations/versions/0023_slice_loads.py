"""Every load of a slice is remembered, also when another one has replaced it."""

from migrations.operations import roll_back, run_as_owner

revision = "0023"
down_revision = "0022"
branch_labels = None
depends_on = None

UPGRADE = """
create table landing.slice_loads (
    account_id text not null,
    slice_id bigint not null,
    load_id bigint not null,
    source_file text not null,
    held_reason text,
    row_count bigint not null check (row_count >= 0),
    rejected_count bigint not null check (rejected_count >= 0),
    own_impressions bigint check (own_impressions >= 0),
    own_clicks bigint check (own_clicks >= 0),
    own_cart_adds bigint check (own_cart_adds >= 0),
    own_purchases bigint check (own_purchases >= 0),
    slice_digest bytea not null,
    delivered_at timestamptz not null,
    loaded_at timestamptz not null,
    accepted_at timestamptz,
    primary key (account_id, slice_id, load_id)
);

insert into landing.slice_loads (
    account_id, slice_id, load_id, source_file, held_reason, row_count, rejected_count,
    slice_digest, delivered_at, loaded_at, accepted_at
)
select
    account_id,
    slice_id,
    load_id,
    source_file,
    held_reason,
    row_count,
    rejected_count,
    slice_digest,
    delivered_at,
    loaded_at,
    case when accepted_load_id = load_id then accepted_at end
from landing.sqp_slices;
"""

DOWNGRADE = """
drop table landing.slice_loads;
"""


def upgrade() -> None:
    run_as_owner(UPGRADE)


def downgrade() -> None:
    roll_back(DOWNGRADE)
