{{
    config(
        meta={'follows': ['query_months'], 'rebuild': {'period': 'month', 'reach': [0, 1]}},
        unique_key=['account_id', 'period_start', 'marketplace_id', 'stage', 'share_rank'],
        indexes=[
            {
                'columns': ['account_id', 'period_start', 'marketplace_id', 'stage', 'share_rank'],
                'unique': true,
            },
        ],
    )
}}

with query_months as (
    select *
    from {{ ref('query_months') }}
),

months as (
    select *
    from query_months
    where {{ in_touched_periods('query_months') }}
),

counts as (
    {{ by_stage(
        'months',
        ['account_id', 'marketplace_id', 'query_digest', 'query', 'period_start', 'period_end'],
    ) }}
),

shares as (
    select
        *,
        {{ share_of_market('own_count', 'market_count') }} as share
    from counts
    where
        own_count > 0
        and market_count >= {{ var('top_queries_min_market_count') }}
),

ranked as (
    select
        *,
        row_number() over (
            partition by account_id, marketplace_id, period_start, stage
            order by share desc, own_count desc, query_digest asc
        ) as share_rank
    from shares
),

top_of_month as (
    select
        *,
        {{ months_later('period_start', -1) }} as previous_start
    from ranked
    where share_rank <= {{ var('top_queries_kept') }}
),

compared as (
    select
        top_of_month.*,
        case
            {%- for stage in stages() %}
            when top_of_month.stage = '{{ stage }}' then before.{{ stages()[stage][0] }}
            {%- endfor %}
        end as previous_own_count,
        case
            {%- for stage in stages() %}
            when top_of_month.stage = '{{ stage }}' then before.{{ stage }}_share
            {%- endfor %}
        end as previous_share
    from top_of_month
    left join query_months as before
        on
            top_of_month.account_id = before.account_id
            and top_of_month.marketplace_id = before.marketplace_id
            and top_of_month.query_digest = before.query_digest
            and top_of_month.previous_start = before.period_start
),

final as (
    select
        account_id,
        marketplace_id,
        query_digest,
        query,
        stage,
        cast(share_rank as bigint) as share_rank,
        own_count,
        market_count,
        previous_own_count,
        share,
        {{ rounded('previous_share', 10, 6) }} as previous_share,
        {{ rounded('share - previous_share', 10, 6) }} as share_change,
        period_start,
        period_end,
        {{ statement_time() }} as updated_at
    from compared
)

select *
from final
