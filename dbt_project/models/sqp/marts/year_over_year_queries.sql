{{
    config(
        meta={
            'follows': ['query_months', 'account_months'],
            'rebuild': {'period': 'month', 'reach': [0, 12]},
        },
        indexes=[
            {
                'columns': ['account_id', 'period_start', 'marketplace_id', 'query_digest'],
                'unique': true,
            },
            {'columns': ['account_id', 'marketplace_id', 'period_start', 'purchases_change']},
            {'columns': ['query_digest']},
        ],
    )
}}

with query_months as (
    select *
    from {{ ref('query_months') }}
),

account_months as (
    select *
    from {{ ref('account_months') }}
),

compared_months as (
    select
        account_months.account_id,
        account_months.marketplace_id,
        account_months.period_start,
        account_months.period_end,
        account_months.weeks,
        before.period_start as previous_start,
        before.weeks as previous_weeks
    from account_months
    inner join account_months as before
        on
            account_months.account_id = before.account_id
            and account_months.marketplace_id = before.marketplace_id
            and {{ months_later('account_months.period_start', -12) }} = before.period_start
    where {{ in_touched_periods('account_months') }}
),

both_years as (
    select
        compared_months.account_id,
        compared_months.marketplace_id,
        compared_months.period_start,
        compared_months.period_end,
        compared_months.weeks,
        compared_months.previous_weeks,
        query_months.query_digest,
        query_months.query,
        query_months.total_clicks,
        query_months.total_purchases,
        query_months.click_share,
        query_months.purchase_share,
        query_months.search_query_volume,
        0 as previous_clicks,
        0 as previous_purchases,
        null as previous_click_share,
        null as previous_purchase_share,
        null as previous_search_query_volume
    from compared_months
    inner join query_months
        on
            compared_months.account_id = query_months.account_id
            and compared_months.marketplace_id = query_months.marketplace_id
            and compared_months.period_start = query_months.period_start

    union all

    select
        compared_months.account_id,
        compared_months.marketplace_id,
        compared_months.period_start,
        compared_months.period_end,
        compared_months.weeks,
        compared_months.previous_weeks,
        query_months.query_digest,
        query_months.query,
        0 as total_clicks,
        0 as total_purchases,
        null as click_share,
        null as purchase_share,
        null as search_query_volume,
        query_months.total_clicks as previous_clicks,
        query_months.total_purchases as previous_purchases,
        query_months.click_share as previous_click_share,
        query_months.purchase_share as previous_purchase_share,
        query_months.search_query_volume as previous_search_query_volume
    from compared_months
    inner join query_months
        on
            compared_months.account_id = query_months.account_id
            and compared_months.marketplace_id = query_months.marketplace_id
            and compared_months.previous_start = query_months.period_start
),

joined as (
    select
        account_id,
        marketplace_id,
        query_digest,
        period_start,
        max(period_end) as period_end,
        max(weeks) as weeks,
        max(previous_weeks) as previous_weeks,
        {%- for count in ['clicks', 'purchases'] %}
        cast(sum(total_{{ count }}) as bigint) as total_{{ count }},
        cast(sum(previous_{{ count }}) as bigint) as previous_{{ count }},
        {%- endfor %}
        {%- for value in ['click_share', 'purchase_share', 'search_query_volume'] %}
        max({{ value }}) as {{ value }},
        max(previous_{{ value }}) as previous_{{ value }},
        {%- endfor %}
        max(query) as query
    from both_years
    group by account_id, marketplace_id, query_digest, period_start
),

final as (
    select
        account_id,
        marketplace_id,
        query_digest,
        query,
        weeks,
        previous_weeks,
        search_query_volume,
        previous_search_query_volume,
        total_clicks,
        previous_clicks,
        total_clicks - previous_clicks as clicks_change,
        total_purchases,
        previous_purchases,
        total_purchases - previous_purchases as purchases_change,
        click_share,
        previous_click_share,
        {{ rounded('click_share - previous_click_share', 10, 6) }} as click_share_change,
        purchase_share,
        previous_purchase_share,
        {{ rounded('purchase_share - previous_purchase_share', 10, 6) }} as purchase_share_change,
        period_start,
        period_end,
        {{ statement_time() }} as updated_at
    from joined
    where total_clicks + previous_clicks >= {{ var('year_over_year_min_clicks') }}
)

select *
from final
