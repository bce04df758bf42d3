with slices as (
    select *
    from {{ ref('stg_landing__sqp_slices') }}
    where
        report_view = 'asin'
        and period_type = 'WEEK'
),

next_weeks as (
    select
        account_id,
        marketplace_id,
        subject as asin,
        {{ weeks_later('period_start', 1) }} as period_start
    from slices
),

delivered_weeks as (
    select
        account_id,
        marketplace_id,
        period_start,
        max(period_end) as period_end,
        count(*) as delivered_asins
    from slices
    group by account_id, marketplace_id, period_start
),

missing as (
    select
        next_weeks.account_id,
        next_weeks.marketplace_id,
        next_weeks.period_start,
        count(*) as missing_asins,
        min(next_weeks.asin) as first_missing_asin
    from next_weeks
    left join slices
        on
            next_weeks.account_id = slices.account_id
            and next_weeks.marketplace_id = slices.marketplace_id
            and next_weeks.asin = slices.subject
            and next_weeks.period_start = slices.period_start
    where slices.subject is null
    group by next_weeks.account_id, next_weeks.marketplace_id, next_weeks.period_start
),

final as (
    select
        missing.account_id,
        missing.marketplace_id,
        missing.missing_asins,
        delivered_weeks.delivered_asins,
        missing.first_missing_asin,
        {{ days_between('delivered_weeks.period_end', today_utc()) }}
        >= {{ var('week_complete_after_days') }} as is_overdue,
        missing.period_start,
        delivered_weeks.period_end
    from missing
    inner join delivered_weeks
        on
            missing.account_id = delivered_weeks.account_id
            and missing.marketplace_id = delivered_weeks.marketplace_id
            and missing.period_start = delivered_weeks.period_start
)

select *
from final
