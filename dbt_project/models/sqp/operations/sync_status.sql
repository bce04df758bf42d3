with sync_log as (
    select *
    from {{ source('sqp', 'sync_log') }}
),

sync_types as (
    select 'weekly' as sync_type
    union all
    select 'monthly' as sync_type
    union all
    select 'quarterly' as sync_type
),

attempts as (
    select
        sync_type,
        max(started_at) as last_attempt_at,
        max(case when sync_status = 'completed' then completed_at end) as last_success_at,
        max(case when sync_status = 'completed' and slices_changed > 0 then completed_at end)
            as last_change_at
    from sync_log
    group by sync_type
),

numbered as (
    select
        *,
        row_number() over (partition by sync_type order by started_at desc, id desc) as recency
    from sync_log
),

last_attempts as (
    select *
    from numbered
    where recency = 1
),

final as (
    select
        sync_types.sync_type,
        last_attempts.id as last_sync_log_id,
        last_attempts.sync_status as last_attempt_status,
        last_attempts.error_message as last_attempt_error,
        last_attempts.records_processed as last_attempt_records_processed,
        last_attempts.slices_changed as last_attempt_slices_changed,
        last_attempts.slices_held as last_attempt_slices_held,
        coalesce(
            attempts.last_success_at is null
            or {{ days_later('attempts.last_success_at', var('sync_due_after_days')) }}
            <= {{ statement_time() }},
            true
        ) as is_due,
        attempts.last_attempt_at,
        attempts.last_success_at,
        attempts.last_change_at,
        coalesce(
            {{ days_later('attempts.last_success_at', var('sync_due_after_days')) }},
            {{ statement_time() }}
        ) as next_sync_due
    from sync_types
    left join attempts
        on sync_types.sync_type = attempts.sync_type
    left join last_attempts
        on sync_types.sync_type = last_attempts.sync_type
)

select *
from final
