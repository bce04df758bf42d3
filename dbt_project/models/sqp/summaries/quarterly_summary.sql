{% set rebuild_scope = {
    'macro': 'sqp_touched_queries',
    'period': 'quarter',
    'columns': ['account_id', 'marketplace_id', 'query_digest', 'period_start'],
} %}

{{
    config(
        cluster_by=['account_id', 'marketplace_id', 'asin'],
        meta={'rebuild_scope': rebuild_scope, 'not_compared': ['updated_at']},
    )
}}

{{ sqp_period_summary('quarter', rebuild_scope) }}
