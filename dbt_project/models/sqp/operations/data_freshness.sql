{% set stale_after_days = {
    'weekly_summary': var('weekly_stale_after_days'),
    'monthly_summary': var('monthly_stale_after_days'),
    'quarterly_summary': var('quarterly_stale_after_days'),
} %}

with latest_periods as (
    {%- for summary, days in stale_after_days.items() %}
    select
        '{{ summary }}' as table_name,
        {{ days }} as stale_after_days,
        max(period_end) as latest_period,
        {{ today_utc() }} as today
    from {{ ref(summary) }}
    {%- if not loop.last %}

    union all
    {% endif %}
    {%- endfor %}
),

aged as (
    select
        *,
        {{ days_between('latest_period', 'today') }} as days_since
    from latest_periods
),

final as (
    select
        table_name,
        latest_period,
        case when days_since < 0 then 0 else days_since end as days_old,
        stale_after_days,
        coalesce(days_since > stale_after_days, true) as is_stale
    from aged
)

select *
from final
