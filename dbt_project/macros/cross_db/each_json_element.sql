{% macro each_json_element(document, key) -%}
    cross join lateral jsonb_array_elements(
        case when jsonb_typeof({{ document }} -> '{{ key }}') = 'array'
            then {{ document }} -> '{{ key }}' else '[]'::jsonb end
    ) as each_element (json_element)
{%- endmacro %}
