{% macro within_days(day, ranges) -%}
    (
        {%- for range in ranges %}
        {{ day }} between {{ range.first_day }} and {{ range.last_day }}
        {%- if not loop.last %} or {% endif -%}
        {%- endfor %}
    )
{%- endmacro %}
