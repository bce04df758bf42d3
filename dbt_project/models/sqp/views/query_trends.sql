{% set weeks = var('trend_weeks') %}

{#- Bounded before the window: a bound that is put to the view stays above it, and every partition
    would be read. The first week told is compared with one more. -#}
with weekly_summary as (
    select *
    from {{ ref('weekly_summary') }}
    where period_start > {{ weeks_later(today_utc(), -(weeks + 2)) }}
),

in_order as (
    select
        *,
        {%- for column in ['avg_ctr', 'avg_cvr', 'click_share', 'purchase_share'] %}
        lag({{ column }}) over in_its_weeks as previous_{{ column }},
        {%- endfor %}
        lag(period_start) over in_its_weeks as previous_period_start
    from weekly_summary
    window in_its_weeks as (
        partition by account_id, marketplace_id, query_digest, asin
        order by weekly_summary.period_start
    )
),

final as (
    select
        account_id,
        marketplace_id,
        asin,
        query_digest,
        query,
        search_query_score,
        search_query_volume,
        {%- for own, market in stages().values() %}
        {{ own }},
        {{ market }},
        {%- endfor %}
        avg_ctr,
        avg_cvr,
        {%- for stage in stages() %}
        {{ stage }}_share,
        {%- endfor %}
        {%- for column in ['avg_ctr', 'avg_cvr', 'click_share', 'purchase_share'] %}
        case
            when {{ weeks_later('previous_period_start', 1) }} = period_start
                then {{ rounded(column ~ ' - previous_' ~ column, 10, 6) }}
        end as {{ column }}_change,
        {%- endfor %}
        coalesce({{ weeks_later('previous_period_start', 1) }} < period_start, false)
            as is_after_gap,
        period_start,
        period_end
    from in_order
    where period_start > {{ weeks_later(today_utc(), -(weeks + 1)) }}
)

select *
from final
