with tokens as (
    select
        id,
        user_id,
        connection_name,
        connection_status,
        last_refresh_error,
        refresh_count,
        refresh_failure_count,
        is_active,
        expires_at,
        last_refresh_at,
        last_refresh_attempt_at,
        next_refresh_at
    from {{ source('app', 'oauth_tokens') }}
),

renamed as (
    select
        id as connection_id,
        user_id,
        connection_name,
        connection_status,
        last_refresh_error,
        refresh_count,
        refresh_failure_count,
        expires_at,
        last_refresh_at,
        last_refresh_attempt_at,
        next_refresh_at
    from tokens
    where is_active
)

select *
from renamed
