{% macro tenant_commands(declaration) -%}
    {%- set commands = ['select'] -%}
    {%- if declaration.access == 'edit' -%}
        {%- do commands.append('update') -%}
        {%- if declaration.get('creatable', true) -%}
            {%- do commands.append('insert') -%}
        {%- endif -%}
        {%- if declaration.get('deletable', true) -%}
            {%- do commands.append('delete') -%}
        {%- endif -%}
    {%- endif -%}
    {{ return(commands) }}
{%- endmacro %}
