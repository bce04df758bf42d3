{% macro each_json_element(document, key) -%}
    {{ return(adapter.dispatch('each_json_element')(document, key)) }}
{%- endmacro %}

{% macro postgres__each_json_element(document, key) -%}
    cross join lateral jsonb_array_elements(
        case when jsonb_typeof({{ document }} -> '{{ key }}') = 'array'
            then {{ document }} -> '{{ key }}' else '[]'::jsonb end
    ) as each_element (json_element)
{%- endmacro %}

{% macro bigquery__each_json_element(document, key) -%}
    cross join unnest(json_query_array({{ document }}, '$.{{ key }}')) as json_element
{%- endmacro %}
