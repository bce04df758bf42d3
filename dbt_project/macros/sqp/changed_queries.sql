{% macro changed_queries() -%}
    {{ return(adapter.dispatch('changed_queries')()) }}
{%- endmacro %}

{% macro postgres__changed_queries() -%}
    select *
    from {{ source('sqp', 'changed_queries') }}
    where model_name in ('{{ var("sqp_summaries") | join("', '") }}')
{%- endmacro %}

{% macro bigquery__changed_queries() -%}
    select distinct
        cast(null as int64) as change_id,
        summaries.model_name,
        slices.account_id,
        slices.marketplace_id,
        cast(null as bytes) as query_digest,
        slices.period_start
    from (select * from {{ ref('int_sqp__slices_to_rebuild') }}) as slices
    cross join (
        select 'monthly_summary' as model_name
        union all
        select 'quarterly_summary' as model_name
    ) as summaries
{%- endmacro %}
