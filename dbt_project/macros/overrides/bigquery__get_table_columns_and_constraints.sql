{% macro bigquery__get_table_columns_and_constraints() -%}
    (
    {%- for rendered in adapter.render_raw_columns_constraints(raw_columns=bigquery_columns(model['columns'])) %}
        {{ rendered }}{{ ',' if not loop.last }}
    {%- endfor %}
    )
{%- endmacro %}
