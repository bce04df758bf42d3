{% set failures, minutes = var('alert_failures_in_a_row'), var('alert_run_minutes') %}

with sync_log as (
    select *
    from {{ source('sqp', 'sync_log') }}
),

numbered as (
    select
        *,
        row_number() over (partition by sync_type order by id desc) as recency
    from sync_log
    where sync_status <> 'started'
),

last_success as (
    select
        sync_type,
        min(recency) as recency
    from numbered
    where sync_status = 'completed'
    group by sync_type
),

failed_in_a_row as (
    select
        numbered.sync_type,
        'failed_in_a_row' as alert_rule,
        count(*) as observed,
        {{ failures }} as threshold,
        max(numbered.id) as sync_log_id,
        min(numbered.completed_at) as since
    from numbered
    left join last_success
        on numbered.sync_type = last_success.sync_type
    where last_success.recency is null or numbered.recency < last_success.recency
    group by numbered.sync_type
),

timed as (
    select
        sync_type,
        id,
        started_at,
        {{ seconds_between('started_at', "coalesce(completed_at, " ~ statement_time() ~ ")") }}
            as seconds,
        row_number() over (partition by sync_type order by id desc) as recency
    from sync_log
),

long_runs as (
    select
        sync_type,
        'long_run' as alert_rule,
        seconds as observed,
        {{ 60 * minutes }} as threshold,
        id as sync_log_id,
        started_at as since
    from timed
    where recency = 1
),

rules as (
    select *
    from failed_in_a_row
    where observed >= threshold

    union all

    select *
    from long_runs
    where observed > threshold
),

final as (
    select
        sync_type,
        alert_rule,
        observed,
        threshold,
        sync_log_id,
        since
    from rules
)

select *
from final
