with history as (
    select *
    from {{ source('app', 'account_sync_history') }}
),

renamed as (
    select
        id as sync_id,
        user_id,
        sync_type,
        sync_status,
        accounts_synced,
        accounts_failed,
        started_at,
        completed_at
    from history
)

select *
from renamed
