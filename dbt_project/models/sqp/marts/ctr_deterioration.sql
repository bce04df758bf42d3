{% set recent, baseline = var('ctr_recent_weeks'), var('ctr_baseline_weeks') %}
{{
    config(
        meta={
            'follows': ['weekly_summary'],
            'rebuild': {'period': 'week', 'reach': range(0, recent + baseline) | list},
        },
        unique_key=['account_id', 'period_start', 'marketplace_id', 'asin', 'query_digest'],
        indexes=[
            {
                'columns': ['account_id', 'period_start', 'marketplace_id', 'asin', 'query_digest'],
                'unique': true,
            },
            {'columns': ['account_id', 'marketplace_id', 'period_start', 'lost_clicks']},
        ],
    )
}}

with weekly_summary as (
    select *
    from {{ ref('weekly_summary') }}
),

seen as (
    select
        account_id,
        marketplace_id,
        asin,
        query_digest,
        query,
        period_start,
        period_end
    from weekly_summary
    where
        {{ in_touched_periods('weekly_summary') }}
        and total_impressions >= {{ var('ctr_min_week_impressions') }}
),

history as (
    select
        account_id,
        marketplace_id,
        asin,
        query_digest,
        period_start as week_start,
        total_impressions,
        total_clicks,
        total_query_impression_count,
        total_click_count
    from weekly_summary
    where {{ in_touched_periods('weekly_summary', periods_before=recent + baseline - 1) }}
),

windows as (
    select
        seen.account_id,
        seen.marketplace_id,
        seen.asin,
        seen.query_digest,
        seen.period_start,
        max(seen.period_end) as period_end,
        max(seen.query) as query,
        {%- for name, column in {
            'impressions': 'total_impressions',
            'clicks': 'total_clicks',
            'market_impressions': 'total_query_impression_count',
            'market_clicks': 'total_click_count',
        }.items() %}
        {%- for window, condition in {'recent': '>', 'baseline': '<='}.items() %}
        cast(sum(case
            when history.week_start {{ condition }} {{ weeks_later('seen.period_start', -recent) }}
                then history.{{ column }}
            else 0
        end) as bigint) as {{ window }}_{{ name }},
        {%- endfor %}
        {%- endfor %}
        cast(sum(case
            when history.week_start <= {{ weeks_later('seen.period_start', -recent) }} then 1
            else 0
        end) as bigint) as baseline_weeks
    from seen
    inner join history
        on
            seen.account_id = history.account_id
            and seen.marketplace_id = history.marketplace_id
            and seen.asin = history.asin
            and seen.query_digest = history.query_digest
            and {{ weeks_later('seen.period_start', -(recent + baseline)) }} < history.week_start
            and seen.period_start >= history.week_start
    group by
        seen.account_id,
        seen.marketplace_id,
        seen.asin,
        seen.query_digest,
        seen.period_start
),

rates as (
    select
        *,
        {{ click_through_rate('recent_clicks', 'recent_impressions') }} as recent_ctr,
        {{ click_through_rate('baseline_clicks', 'baseline_impressions') }} as baseline_ctr,
        {{ click_through_rate('recent_market_clicks', 'recent_market_impressions') }}
            as recent_market_ctr,
        {{ click_through_rate('baseline_market_clicks', 'baseline_market_impressions') }}
            as baseline_market_ctr
    from windows
    where
        recent_impressions >= {{ var('ctr_min_impressions') }}
        and baseline_impressions >= {{ var('ctr_min_impressions') }}
),

final as (
    select
        account_id,
        marketplace_id,
        asin,
        query_digest,
        query,
        recent_impressions,
        recent_clicks,
        baseline_impressions,
        baseline_clicks,
        baseline_weeks,
        recent_ctr,
        baseline_ctr,
        {{ ratio('recent_ctr', 'baseline_ctr') }} as ctr_ratio,
        recent_market_ctr,
        baseline_market_ctr,
        {{ ratio('recent_market_ctr', 'baseline_market_ctr') }} as market_ctr_ratio,
        {{ rounded('recent_impressions * baseline_ctr - recent_clicks', 18, 4) }} as lost_clicks,
        period_start,
        period_end,
        {{ statement_time() }} as updated_at
    from rates
    where
        baseline_ctr > 0
        and recent_ctr <= {{ var('ctr_deterioration_ratio') }} * baseline_ctr
)

select *
from final
