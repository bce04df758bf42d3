{% macro robust_score(value, median, median_deviation, mean_deviation) -%}
    {%- set score -%}
        case
            when {{ median_deviation }} > 0
                then {{ robust_quotient(
                    '0.6745 * (' ~ value ~ ' - ' ~ median ~ ')', median_deviation
                ) }}
            when {{ mean_deviation }} > 0
                then {{ robust_quotient(
                    '(' ~ value ~ ' - ' ~ median ~ ')', '(1.253314 * ' ~ mean_deviation ~ ')'
                ) }}
        end
    {%- endset -%}
    {{ rounded(score, 12, 4) }}
{%- endmacro %}
