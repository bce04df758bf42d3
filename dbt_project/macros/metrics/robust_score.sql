{% macro robust_score(value, median, median_deviation, mean_deviation) -%}
    cast(
        case
            when {{ median_deviation }} > 0
                then 0.6745 * ({{ value }} - {{ median }}) / {{ median_deviation }}
            when {{ mean_deviation }} > 0
                then ({{ value }} - {{ median }}) / (1.253314 * {{ mean_deviation }})
        end as numeric(12, 4)
    )
{%- endmacro %}
