{% set summaries = {
    'weekly_summary': ['week', var('weekly_stale_after_days')],
    'monthly_summary': ['month', var('monthly_stale_after_days')],
    'quarterly_summary': ['quarter', var('quarterly_stale_after_days')],
} %}

with slices as (
    select *
    from {{ source('landing', 'sqp_slices') }}
    where
        report_view = 'asin'
        and period_type = 'WEEK'
),

weekly_summary as (
    select *
    from {{ ref('weekly_summary') }}
),

summaries as (
    {%- for summary, (period, days) in summaries.items() %}
    select
        '{{ summary }}' as table_name,
        {{ days }} as stale_after_days
    {%- if not loop.last %}
    union all
    {%- endif %}
    {%- endfor %}
),

deliveries as (
    select
        account_id,
        marketplace_id,
        max(loaded_at) as last_attempt_at,
        max(case when slice_status = 'accepted' then loaded_at end) as last_success_at,
        max(accepted_at) as last_change_at
    from slices
    group by account_id, marketplace_id
),

held as (
    select
        *,
        (
            select min(weekly_summary.period_start)
            from weekly_summary
            where
                weekly_summary.account_id = deliveries.account_id
                and weekly_summary.marketplace_id = deliveries.marketplace_id
        ) as first_week,
        (
            select max(weekly_summary.period_start)
            from weekly_summary
            where
                weekly_summary.account_id = deliveries.account_id
                and weekly_summary.marketplace_id = deliveries.marketplace_id
        ) as last_week
    from deliveries
),

latest as (
    select
        held.*,
        summaries.table_name,
        summaries.stale_after_days
    from held
    cross join summaries
),

aged as (
    select
        *,
        case
            {%- for summary, (period, days) in summaries.items() %}
            when table_name = '{{ summary }}' then {{ first_day_of_period(period, 'first_week') }}
            {%- endfor %}
        end as first_period,
        case
            {%- for summary, (period, days) in summaries.items() %}
            when table_name = '{{ summary }}' then {{ last_day_of_period(period, 'last_week') }}
            {%- endfor %}
        end as latest_period,
        {{ today_utc() }} as today
    from latest
),

final as (
    select
        account_id,
        marketplace_id,
        table_name,
        first_period,
        latest_period,
        case
            when latest_period >= today then 0
            else {{ days_between('latest_period', 'today') }}
        end as days_old,
        stale_after_days,
        coalesce({{ days_between('latest_period', 'today') }} > stale_after_days, true) as is_stale,
        coalesce(
            {{ days_later('last_success_at', var('sync_due_after_days')) }}
            <= {{ statement_time() }},
            true
        ) as is_due,
        last_attempt_at,
        last_success_at,
        last_change_at,
        coalesce(
            {{ days_later('last_success_at', var('sync_due_after_days')) }},
            {{ statement_time() }}
        ) as next_sync_due
    from aged
)

select *
from final
