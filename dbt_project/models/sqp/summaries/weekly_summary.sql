{% set rebuild_scope = {
    'macro': 'sqp_touched_slices',
    'period': 'week',
    'columns': ['account_id', 'marketplace_id', 'asin', 'period_start'],
} %}

{{
    config(
        cluster_by=['account_id', 'marketplace_id', 'asin'],
        meta={'rebuild_scope': rebuild_scope, 'not_compared': ['load_id', 'updated_at']},
    )
}}

{% set scope %}
    {{- within_rebuild_scope('delivered', rebuild_scope) if rebuilds_touched_only() else 'true' -}}
{% endset %}

with delivered as (
    select *
    from {{ ref('stg_landing__sqp_asin') }}
),

weeks as (
    select *
    from delivered
    where
        period_type = 'WEEK'
        and {{ scope }}
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
