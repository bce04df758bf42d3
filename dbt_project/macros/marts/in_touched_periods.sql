{% macro in_touched_periods(relation, periods_before=0) -%}
    {%- if not rebuilds_touched_only() -%}
        {{ return('true') }}
    {%- endif -%}
    {%- set earliest = 'min(period_start)' if not periods_before else 'min(period_start) - ' ~ 7 * periods_before -%}
    {{ relation }}.period_start >= (select {{ earliest }} from touched_periods)
        and {{ relation }}.period_start <= (select max(period_start) from touched_periods)
        and exists (
            select 1
            from touched_periods
            where
                {{ relation }}.account_id = touched_periods.account_id
                and {{ relation }}.marketplace_id = touched_periods.marketplace_id
                {%- if not periods_before %}
                and {{ relation }}.period_start = touched_periods.period_start
                {%- endif %}
        )
{%- endmacro %}
