{% set history_weeks = var('anomaly_history_weeks') %}
{% set key = ['account_id', 'marketplace_id', 'period_start', 'stage', 'query_digest'] %}
{{
    config(
        meta={
            'follows': ['query_weeks'],
            'rebuild': {'period': 'week', 'reach': range(0, history_weeks + 1) | list},
        },
        unique_key=['account_id', 'period_start', 'marketplace_id', 'stage', 'query_digest'],
        indexes=[
            {
                'columns': ['account_id', 'period_start', 'marketplace_id', 'stage', 'query_digest'],
                'unique': true,
            },
            {'columns': ['account_id', 'marketplace_id', 'period_start', 'stage', 'absolute_score']},
            {'columns': ['query_digest']},
        ],
    )
}}

with query_weeks as (
    select *
    from {{ ref('query_weeks') }}
),

weeks as (
    select *
    from query_weeks
    where
        {{ in_touched_periods('query_weeks', periods_before=history_weeks) }}
        and (
            total_click_count >= {{ var('anomaly_min_market_count') }}
            or total_purchase_count >= {{ var('anomaly_min_market_count') }}
        )
),

counts as (
    {{ by_stage(
        'weeks',
        ['account_id', 'marketplace_id', 'query_digest', 'query', 'period_start', 'period_end'],
        chosen=['click', 'purchase'],
    ) }}
),

shares as (
    select
        *,
        {{ share_of_market('own_count', 'market_count') }} as share
    from counts
    where market_count >= {{ var('anomaly_min_market_count') }}
),

judged_weeks as (
    select *
    from shares
    where {{ in_touched_periods('shares') }}
),

histories as (
    select
        {{ prefixed(key, 'judged_weeks') }},
        history.share,
        row_number() over (
            partition by {{ prefixed(key, 'judged_weeks') }}
            order by history.share
        ) as place,
        count(*) over (partition by {{ prefixed(key, 'judged_weeks') }}) as weeks
    from judged_weeks
    inner join shares as history
        on
            judged_weeks.account_id = history.account_id
            and judged_weeks.marketplace_id = history.marketplace_id
            and judged_weeks.stage = history.stage
            and judged_weeks.query_digest = history.query_digest
            and judged_weeks.period_start > history.period_start
            and {{ weeks_later('judged_weeks.period_start', -history_weeks) }}
            <= history.period_start
),

medians as (
    select
        {{ key | join(', ') }},
        max(weeks) as weeks,
        {{ exact_average('case when 2 * place between weeks and weeks + 2 then share end') }}
            as median_share
    from histories
    where weeks >= {{ var('anomaly_min_weeks') }}
    group by {{ key | join(', ') }}
),

deviations as (
    select
        {{ prefixed(key, 'medians') }},
        medians.weeks,
        medians.median_share,
        abs(histories.share - medians.median_share) as deviation,
        row_number() over (
            partition by {{ prefixed(key, 'medians') }}
            order by abs(histories.share - medians.median_share)
        ) as place
    from medians
    inner join histories
        on {{ columns_match(key, 'medians', 'histories') }}
),

spreads as (
    select
        {{ key | join(', ') }},
        max(weeks) as weeks,
        {{ rounded('max(median_share)', 10, 6) }} as median_share,
        {{ rounded(
            exact_average('case when 2 * place between weeks and weeks + 2 then deviation end'), 10, 6
        ) }} as median_deviation,
        {{ rounded(exact_average('deviation'), 10, 6) }} as mean_deviation
    from deviations
    group by {{ key | join(', ') }}
),

scored as (
    select
        judged_weeks.*,
        spreads.weeks,
        spreads.median_share,
        spreads.median_deviation,
        {{ rounded('judged_weeks.share - spreads.median_share', 10, 6) }} as share_change,
        {{ robust_score(
            'judged_weeks.share',
            'spreads.median_share',
            'spreads.median_deviation',
            'spreads.mean_deviation',
        ) }} as robust_score
    from judged_weeks
    inner join spreads
        on {{ columns_match(key, 'judged_weeks', 'spreads') }}
),

final as (
    select
        account_id,
        marketplace_id,
        query_digest,
        query,
        stage,
        own_count,
        market_count,
        cast(weeks as bigint) as history_weeks,
        share,
        median_share,
        median_deviation,
        share_change,
        robust_score,
        {{ rounded('coalesce(abs(robust_score), 999999)', 12, 4) }} as absolute_score,
        period_start,
        period_end,
        {{ statement_time() }} as updated_at
    from scored
    where
        abs(share_change) >= {{ var('anomaly_min_share_change') }}
        and coalesce(abs(robust_score), 999999) >= {{ var('anomaly_min_score') }}
)

select *
from final
