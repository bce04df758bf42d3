{% macro within_changes(relation, period, changes, ranges, whole) -%}
    {%- set key = ['account_id', 'marketplace_id'] + ([] if whole else ['query_digest']) -%}
    (
        {{ within_days(relation ~ '.period_start', ranges) }}
        {%- for column in key %}
        and {{ relation }}.{{ column }} = any(array(
            select distinct changes.{{ column }}
            from (
            {{ changes }}
            ) as changes
        ))
        {%- endfor %}
        and ({{ prefixed(key, relation) }}, {{ first_day_of_period(period, relation ~ '.period_start') }}) in (
            select {{ prefixed(key, 'changes') }}, {{ first_day_of_period(period, 'changes.period_start') }}
            from (
            {{ changes }}
            ) as changes
        )
    )
{%- endmacro %}
