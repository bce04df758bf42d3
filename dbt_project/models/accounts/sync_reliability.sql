with account_syncs as (
    select *
    from {{ ref('stg_app__account_syncs') }}
),

seat_syncs as (
    select *
    from {{ ref('stg_app__seat_syncs') }}
),

syncs as (
    select
        user_id,
        'accounts' as sync_of,
        sync_status,
        started_at,
        completed_at
    from account_syncs

    union all

    select
        user_id,
        'seats' as sync_of,
        sync_status,
        started_at,
        completed_at
    from seat_syncs
),

final as (
    select
        user_id,
        sync_of,
        cast(started_at as date) as sync_date,
        count(*) as syncs,
        sum(case when sync_status = 'success' then 1 else 0 end) as successes,
        sum(case when sync_status = 'partial' then 1 else 0 end) as partial_syncs,
        sum(case when sync_status = 'failed' then 1 else 0 end) as failures,
        sum(case when completed_at is null then 1 else 0 end) as unfinished,
        {{ ratio(
            "sum(case when sync_status = 'success' then 1 else 0 end)",
            "sum(case when completed_at is not null then 1 else 0 end)"
        ) }} as success_rate,
        max({{ seconds_between('started_at', 'completed_at') }}) as longest_seconds,
        max(case when sync_status = 'success' then completed_at end) as last_success_at
    from syncs
    group by user_id, sync_of, cast(started_at as date)
)

select *
from final
