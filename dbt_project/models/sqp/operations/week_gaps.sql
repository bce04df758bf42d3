with slices as (
    select *
    from {{ ref('stg_landing__sqp_slices') }}
    where
        report_view = 'asin'
        and period_type = 'WEEK'
),

weeks as (
    select distinct
        account_id,
        marketplace_id,
        period_start
    from slices
),

ordered as (
    select
        *,
        lead(period_start) over (
            partition by account_id, marketplace_id
            order by weeks.period_start
        ) as next_start
    from weeks
),

final as (
    select
        account_id,
        marketplace_id,
        cast(({{ days_between('period_start', 'next_start') }}) / 7 as integer) - 1
            as missing_weeks,
        {{ weeks_later('period_start', 1) }} as first_missing_week,
        {{ weeks_later('next_start', -1) }} as last_missing_week
    from ordered
    where next_start > {{ weeks_later('period_start', 1) }}
)

select *
from final
