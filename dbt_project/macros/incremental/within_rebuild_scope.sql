{% macro within_rebuild_scope(relation, scope) -%}
    {{ within_touched_periods(relation ~ '.period_start', scope.period) }}
        and exists (
            select 1
            from (
                {{ context[scope.macro](scope.period) }}
            ) as scope
            where {{ columns_match(scope.columns, relation, 'scope') }}
        )
{%- endmacro %}
