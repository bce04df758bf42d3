with sync_log as (
    select *
    from {{ source('app', 'dsp_seats_sync_log') }}
),

renamed as (
    select
        id as sync_id,
        user_id,
        user_account_id,
        advertiser_id,
        sync_status,
        error_message,
        seats_retrieved,
        exchanges_count,
        created_at as started_at,
        completed_at
    from sync_log
)

select *
from renamed
