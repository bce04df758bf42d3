with accounts as (
    select *
    from {{ ref('stg_app__accounts') }}
),

connections as (
    select *
    from {{ ref('stg_app__connections') }}
),

joined as (
    select
        accounts.*,
        connections.connection_name,
        connections.connection_status,
        connections.last_refresh_error,
        connections.last_refresh_at,
        coalesce(connections.refresh_failure_count, 0) as token_failures,
        case
            when connections.connection_id is null then 'none'
            when connections.connection_status = 'needs_reauthorisation'
                then 'needs_reauthorisation'
            when connections.refresh_failure_count > 0 then 'failing'
            when connections.expires_at <= {{ statement_time() }} then 'expired'
            else 'good'
        end as token_state,
        coalesce(
            {{ days_later('accounts.last_sync_success_at', var('account_stale_after_days')) }}
            <= {{ statement_time() }},
            true
        ) as is_stale
    from accounts
    left join connections
        on accounts.connection_id = connections.connection_id
),

judged as (
    select
        *,
        case
            when account_status = 'disconnected' then 'disconnected'
            when token_state in ('none', 'needs_reauthorisation') then 'needs_a_person'
            when sync_status in ('failed', 'partial') or token_state = 'failing' then 'failing'
            when is_stale then 'stale'
            else 'healthy'
        end as health
    from joined
),

final as (
    select
        user_account_id,
        user_id,
        amazon_account_id,
        account_name,
        account_type,
        account_status,
        connection_name,
        token_state,
        health,
        coalesce(sync_error_message, last_refresh_error) as last_error,
        case health
            when 'disconnected'
                then 'Amazon no longer lists it: check it in the console'
            when 'needs_a_person' then 'connect it again: warehouse connect amazon'
            when 'failing' then 'read last_error; it is tried again at next_sync_at'
            when 'stale'
                then case
                    when account_type = 'dsp' then 'run warehouse sync-seats'
                    else 'run warehouse sync-accounts'
                end
        end as next_step,
        sync_retry_count as failures_since_success,
        token_failures,
        is_stale,
        last_sync_attempt_at,
        last_sync_success_at,
        last_sync_change_at,
        last_refresh_at as last_token_refresh_at,
        next_sync_at
    from judged
)

select *
from final
