{% macro within_changed_queries(relation, period=none) -%}
    {{ return(adapter.dispatch('within_changed_queries')(relation, period or config.meta_get('period'))) }}
{%- endmacro %}

{% macro postgres__within_changed_queries(relation, period) -%}
    {%- set scopes = [] -%}
    {%- for whole in [true, false] -%}
        {%- set changes -%}
            select *
                from {{ ref('int_sqp__queries_to_rebuild') }}
                where
                    model_name = '{{ period }}ly_summary'
                    and query_digest is {{ 'null' if whole else 'not null' }}
        {%- endset -%}
        {%- set ranges = day_ranges(period, changes) -%}
        {%- if ranges -%}
            {%- do scopes.append(within_changes(relation, period, changes, ranges, whole)) -%}
        {%- endif -%}
    {%- endfor -%}
    {{ return('(' ~ scopes | join('\n        or ') ~ ')' if scopes else 'false') }}
{%- endmacro %}

{% macro bigquery__within_changed_queries(relation, period) -%}
    {{ first_day_of_period(period, relation ~ '.period_start') }} in (
            select {{ first_day_of_period(period, 'changes.period_start') }}
            from (select * from {{ ref('int_sqp__queries_to_rebuild') }}) as changes
        )
{%- endmacro %}
