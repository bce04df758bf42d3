{% macro bigquery_columns(columns) -%}
    {%- set types = {'text': 'string', 'bigint': 'int64', 'integer': 'int64', 'boolean': 'bool'} -%}
    {%- set translated = {} -%}
    {%- for name, column in columns.items() -%}
        {%- set plain = column.data_type.split('(')[0] -%}
        {%- do translated.update({name: dict(column, data_type=types.get(plain, plain))}) -%}
    {%- endfor -%}
    {{ return(translated) }}
{%- endmacro %}
