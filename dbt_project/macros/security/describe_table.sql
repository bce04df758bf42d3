{% macro describe_table(relation, node) -%}
    {%- set kind = 'view' if table_declaration(node).view is defined else 'table' -%}
    comment on {{ kind }} {{ relation }} is
        {{ dbt.string_literal(dbt.escape_single_quotes(node.description)) }};
    {%- for column in node.columns.values() %}
    comment on column {{ relation }}.{{ column.name }} is
        {{ dbt.string_literal(dbt.escape_single_quotes(column.description)) }};
    {%- endfor %}
{%- endmacro %}
