-- depends_on: {{ ref('int_sqp__queries_to_rebuild') }}
-- depends_on: {{ ref('int_sqp__slices_to_rebuild') }}

{{
    config(
        cluster_by=['account_id', 'marketplace_id', 'asin'],
        post_hook="{{ forget_changed_queries() }}",
        meta={
            'period': 'month',
            'rebuild_scope': 'within_changed_queries',
            'not_compared': ['updated_at'],
        },
    )
}}

{{ sqp_period_summary(
    'month',
    weeks=ref('weekly_summary'),
    in_scope=within_changed_queries('all_weeks', 'month') if rebuilds_touched_only() else none,
) }}
