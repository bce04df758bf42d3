{% macro sqp_touched_slices(period) -%}
    {{ return(adapter.dispatch('sqp_touched_slices')(period)) }}
{%- endmacro %}

{% macro default__sqp_touched_slices(period) -%}
    select
        account_id,
        marketplace_id,
        asin,
        period_start
    from {{ ref('int_sqp__slices_to_rebuild') }}
{%- endmacro %}

{% macro bigquery__sqp_touched_slices(period) -%}
    select
        account_id,
        marketplace_id,
        subject as asin,
        period_start
    from {{ ref('stg_landing__sqp_slices') }}
    where report_view = 'asin'
        and period_type = 'WEEK'
        and {{ first_day_of_period('month', 'period_start') }} in (
            select {{ first_day_of_period('month', 'period_start') }}
            from {{ ref('int_sqp__slices_to_rebuild') }}
        )
{%- endmacro %}
