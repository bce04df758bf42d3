with accounts as (
    select *
    from {{ source('app', 'user_accounts') }}
),

renamed as (
    select
        id as user_account_id,
        user_id,
        connection_id,
        amazon_account_id,
        marketplace_id,
        profile_id,
        entity_id,
        account_name,
        account_type,
        status as account_status,
        {{ json_text('metadata', 'api_status') }} as amazon_status,
        sync_status,
        sync_error_message,
        metadata,
        sync_retry_count,
        connected_at,
        last_sync_attempt_at,
        last_synced_at as last_sync_success_at,
        last_sync_change_at,
        next_sync_at
    from accounts
    where deleted_at is null
)

select *
from renamed
