{% set scope = {
    'macro': 'sqp_touched_slices',
    'period': 'week',
    'columns': ['account_id', 'marketplace_id', 'asin', 'period_start'],
} %}

{{
    config(
        cluster_by=['account_id', 'marketplace_id', 'asin'],
        meta={'rebuild_scope': scope, 'not_compared': ['load_id', 'updated_at']},
    )
}}

{%- set all = not rebuilds_touched_only() %}

with delivered as (
    select *
    from {{ ref('stg_landing__sqp_asin') }}
),

weeks as (
    select *
    from delivered
    where
        period_type = 'WEEK'
        and {{ 'true' if all else within_rebuild_scope('delivered', scope) }}
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
