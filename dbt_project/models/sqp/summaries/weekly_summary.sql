{{
    config(
        cluster_by=['account_id', 'marketplace_id', 'asin'],
        meta={
            'rebuild_scope': {
                'macro': 'sqp_touched_slices',
                'period': 'week',
                'columns': ['account_id', 'marketplace_id', 'asin', 'period_start'],
            },
            'not_compared': ['load_id', 'updated_at'],
        },
    )
}}

with delivered as (
    select *
    from {{ ref('stg_landing__sqp_asin') }}
    where
        period_type = 'WEEK'
        {%- if rebuilds_touched_only() %}
        and {{ within_touched_periods('period_start', 'week') }}
        {%- endif %}
),

{%- if rebuilds_touched_only() %}

touched_slices as (
    {{ sqp_touched_slices('week') }}
),

{%- endif %}

weeks as (
    select delivered.*
    from delivered
    {%- if rebuilds_touched_only() %}
    inner join touched_slices
        on
            delivered.account_id = touched_slices.account_id
            and delivered.marketplace_id = touched_slices.marketplace_id
            and delivered.asin = touched_slices.asin
            and delivered.period_start = touched_slices.period_start
    {%- endif %}
),

final as (
    select
        {{ sqp_summary_columns('asin') }},
        load_id,
        {{ statement_time() }} as updated_at
    from weeks
)

select *
from final
