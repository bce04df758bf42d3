"""A connection to Amazon: tokens of a login, whose accounts are found by a sync."""

from migrations.operations import roll_back, run_as_owner, run_sql

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None

UPGRADE = """
alter table app.oauth_tokens
    alter column user_account_id drop not null,
    add column connection_name varchar(255) not null default 'amazon'
        check (connection_name <> ''),
    add column connection_status varchar(50) not null default 'connected'
        check (connection_status in ('connected', 'needs_reauthorisation')),
    add column last_refresh_attempt_at timestamptz,
    add column next_refresh_at timestamptz,
    add constraint oauth_tokens_of_a_user
        foreign key (user_id) references app.users (id) on delete restrict,
    add constraint oauth_tokens_of_one_user unique (id, user_id);
create unique index oauth_tokens_one_active_per_name
on app.oauth_tokens (user_id, connection_name)
where is_active and user_account_id is null;

alter table app.user_accounts
    add column connection_id uuid,
    add constraint user_accounts_of_a_connection_of_the_user
        foreign key (connection_id, user_id) references app.oauth_tokens (id, user_id)
        on update cascade on delete set null (connection_id);
create index idx_user_accounts_connection on app.user_accounts (connection_id, user_id);
"""

# Row security is forced for the owner of the tables as well, so that this role would find no rows.
BACKFILL = """
set local role rls_definer;
update app.user_accounts
set connection_id = oauth_tokens.id
from app.oauth_tokens
where oauth_tokens.user_account_id = user_accounts.id and oauth_tokens.is_active;
set local role none;
"""

DOWNGRADE = """
alter table app.user_accounts drop column connection_id;
delete from app.oauth_tokens where user_account_id is null;
drop index app.oauth_tokens_one_active_per_name;
alter table app.oauth_tokens
    drop constraint oauth_tokens_of_one_user,
    drop constraint oauth_tokens_of_a_user,
    drop column next_refresh_at,
    drop column last_refresh_attempt_at,
    drop column connection_status,
    drop column connection_name,
    alter column user_account_id set not null;
"""


def upgrade() -> None:
    run_as_owner(UPGRADE)
    run_sql(BACKFILL)


def downgrade() -> None:
    roll_back(DOWNGRADE)
