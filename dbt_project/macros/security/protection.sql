{% macro protection(relation, declaration, columns, is_view) -%}
    {%- if is_view %}
    alter view {{ relation }} set (security_invoker = true);
    {%- else %}
    {{ row_policies(relation, declaration) }}
    {%- endif %}
    {{ table_grants(relation, declaration, columns, is_built=true) }}
{%- endmacro %}
