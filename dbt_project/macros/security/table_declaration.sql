{% macro table_declaration(node) -%}
    {%- set declaration = node.config.get('meta', {}) -%}
    {%- if 'tenant' not in declaration -%}
        {%- do exceptions.raise_compiler_error(
            node.unique_id ~ ' does not say whose its rows are: add config.meta.tenant to its YAML'
            ~ ' (see the macro table_declaration)'
        ) -%}
    {%- endif -%}
    {{ return(declaration) }}
{%- endmacro %}
