{{
    config(
        unique_key=['account_id', 'period_start', 'marketplace_id', 'asin', 'query_digest'],
        cluster_by=['account_id', 'marketplace_id', 'asin'],
        indexes=[
            {'columns': ['account_id', 'period_start', 'marketplace_id', 'asin', 'query_digest'], 'unique': true},
            {'columns': ['query_digest', 'asin']},
        ],
        pre_hook="{{ follow_the_weeks() }}",
        post_hook=[
            "{{ index_sync_tracking() }}",
            "{{ record_slice_builds() }}",
            "{{ follow_the_weeks(once_made=true) }}",
            "{{ summary_triggers() }}",
        ],
        meta={
            'rebuild_scope': 'within_slices_to_rebuild',
            'not_compared': ['sync_log_id', 'bigquery_sync_id', 'last_synced_at', 'updated_at'],
        },
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
        and {{ 'true' if all else within_slices_to_rebuild('delivered') }}
),

final as (
    select
        {{ sqp_summary_columns('asin') }},
        load_id as sync_log_id,
        left(source_file, 255) as bigquery_sync_id,
        accepted_at as last_synced_at,
        {{ statement_time() }} as updated_at
    from weeks
)

select *
from final
