"""Where Search Query Performance deliveries land: slices, their rows, and what was refused."""

from migrations.operations import run_sql

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

STAGE_COLUMNS = """
    total_{stage}_count bigint not null,
    total_{stage}_rate double precision,
    {own}_{stage}_count bigint not null,
    {own}_{stage}_share double precision,
    total_median_{stage}_price numeric(14, 4),
    {own}_median_{stage}_price numeric(14, 4),
    total_same_day_shipping_{stage}_count bigint,
    total_one_day_shipping_{stage}_count bigint,
    total_two_day_shipping_{stage}_count bigint,"""

ROWS_TABLE = """
create table landing.sqp_{own} (
    slice_id bigint not null,
    load_id bigint not null,
    account_id varchar(255) not null,
    marketplace_id varchar(20) not null,
    period_type varchar(10) not null check (period_type in ('WEEK', 'MONTH', 'QUARTER')),
    period_start date not null,
    period_end date not null,
    {own} text not null,
    parent_asin text,
    product_name text,
    client_name text,
    search_query text not null,
    query text not null,
    query_digest bytea not null,
    search_query_score bigint,
    search_query_volume bigint,
    total_query_impression_count bigint not null,
    {own}_impression_count bigint not null,
    {own}_impression_share double precision,{stages}
    currency_code varchar(3),
    source_line bigint not null,
    slice_digest bytea not null,
    loaded_at timestamptz not null
) partition by range (period_start);
create unique index sqp_{own}_key
on landing.sqp_{own} (period_start, slice_id, load_id, query_digest);
comment on table landing.sqp_{own} is
    'One row per slice, load and search query, as delivered: market totals repeat on every row'
    ' of a query and period. The load in force is the slice''s accepted_load_id.';
"""


def rows_table(own: str) -> str:
    """The table of delivered rows about one kind of subject: `asin` or `brand`."""
    stages = "".join(
        STAGE_COLUMNS.format(stage=stage, own=own) for stage in ("click", "cart_add", "purchase")
    )
    return ROWS_TABLE.format(own=own, stages=stages)


UPGRADE = f"""
create table landing.sqp_slices (
    slice_id bigint generated always as identity primary key,
    account_id varchar(255) not null check (account_id <> ''),
    marketplace_id varchar(20) not null,
    report_view varchar(10) not null check (report_view in ('asin', 'brand')),
    period_type varchar(10) not null check (period_type in ('WEEK', 'MONTH', 'QUARTER')),
    period_start date not null,
    period_end date not null check (period_end >= period_start),
    subject text not null
        check (report_view <> 'asin' or subject ~ '^[A-Z0-9]{{10}}$'),
    load_id bigint not null references sqp.sync_log (id),
    slice_digest bytea not null,
    row_count bigint not null check (row_count >= 0),
    rejected_count bigint not null default 0 check (rejected_count >= 0),
    source_file text not null,
    delivered_at timestamptz not null,
    loaded_at timestamptz not null,
    slice_status varchar(20) not null default 'landed'
        check (slice_status in ('landed', 'accepted', 'held')),
    held_reason text,
    accepted_load_id bigint references sqp.sync_log (id),
    accepted_digest bytea,
    accepted_row_count bigint,
    accepted_at timestamptz,
    constraint sqp_slices_sunday_to_saturday check (
        period_type <> 'WEEK'
        or (extract(dow from period_start) = 0 and period_end = period_start + 6)
    ),
    constraint sqp_slices_held_says_why check ((slice_status = 'held') = (held_reason is not null)),
    constraint sqp_slices_key unique (
        account_id, marketplace_id, report_view, period_type, period_start, subject
    )
);
comment on table landing.sqp_slices is
    'One row per slice (account, marketplace, report view, period, ASIN or brand): the load that'
    ' came last, whether it passed its checks, and the load in force.';
create index sqp_slices_unaccepted on landing.sqp_slices (slice_id)
where slice_status <> 'accepted';
create index sqp_slices_load on landing.sqp_slices (load_id);
create index sqp_slices_accepted_load on landing.sqp_slices (accepted_load_id);

{rows_table("asin")}
{rows_table("brand")}

create table landing.rejected_rows (
    id bigint generated always as identity primary key,
    reject_digest bytea not null unique,
    load_id bigint not null references sqp.sync_log (id),
    account_id varchar(255),
    marketplace_id varchar(20),
    report_view varchar(10) not null,
    period_type varchar(10) not null,
    period_start date,
    subject text,
    source_file text not null,
    source_line bigint not null,
    reason_code varchar(40) not null check (reason_code in (
        'not_a_number', 'negative', 'out_of_range', 'share_above_one', 'own_above_total',
        'bad_asin', 'bad_period', 'bad_text', 'missing_value', 'malformed',
        'conflicting_duplicate'
    )),
    reason text not null,
    delivered_text text not null,
    rejected_at timestamptz not null default clock_timestamp()
);
comment on table landing.rejected_rows is
    'One row per delivered row that was refused: file, line, reason and the delivered text.'
    ' The same row refused again is not repeated.';
create index rejected_rows_load on landing.rejected_rows (load_id);
"""

DOWNGRADE = """
drop table landing.rejected_rows;
drop table landing.sqp_brand;
drop table landing.sqp_asin;
drop table landing.sqp_slices;
"""


def upgrade() -> None:
    run_sql(UPGRADE)


def downgrade() -> None:
    run_sql(DOWNGRADE)
