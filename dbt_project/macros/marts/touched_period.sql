{% macro touched_period(week_start, rebuild) -%}
    {%- if rebuild.period == 'week' -%}
        {{ week_start }} + 7 * reach.periods
    {%- else -%}
        cast(
            {{ first_day_of_period(rebuild.period, week_start) }}
            + reach.periods * interval '1 {{ rebuild.period }}' as date
        )
    {%- endif -%}
{%- endmacro %}
