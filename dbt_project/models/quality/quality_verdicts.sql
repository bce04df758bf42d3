with checks as (
    select *
    from {{ source('sqp', 'data_quality_checks') }}
    where created_at >= {{ days_later(statement_time(), -var('quality_history_days')) }}
),

results as (
    select
        check_type,
        check_name,
        coalesce(table_name, '') as table_name,
        coalesce(column_name, '') as column_name,
        id,
        created_at,
        sync_log_id,
        case check_status when 'failed' then 2 when 'warning' then 1 else 0 end as severity,
        coalesce(
            {{ json_text('check_metadata', 'invocation_id') }},
            cast(sync_log_id as {{ dbt.type_string() }}),
            cast(id as {{ dbt.type_string() }})
        ) as run_key
    from checks
),

runs as (
    select
        check_type,
        check_name,
        table_name,
        column_name,
        run_key,
        max(sync_log_id) as sync_log_id,
        count(*) as results,
        sum(case when severity = 2 then 1 else 0 end) as failed_results,
        max(severity) as severity,
        max(id) as last_id,
        max(created_at) as checked_at
    from results
    group by check_type, check_name, table_name, column_name, run_key
),

compared as (
    select
        *,
        row_number() over (
            partition by check_type, check_name, table_name, column_name
            order by last_id desc
        ) as recency,
        lag(severity) over (
            partition by check_type, check_name, table_name, column_name
            order by last_id
        ) as previous_severity
    from runs
),

final as (
    select
        check_type,
        check_name,
        table_name,
        column_name,
        sync_log_id,
        case severity when 2 then 'failed' when 1 then 'warning' else 'passed' end as verdict,
        case previous_severity when 2 then 'failed' when 1 then 'warning' when 0 then 'passed' end
            as previous_verdict,
        results,
        failed_results,
        severity = 2 and coalesce(previous_severity, 0) < 2 as is_newly_failing,
        checked_at
    from compared
    where recency = 1
)

select *
from final
