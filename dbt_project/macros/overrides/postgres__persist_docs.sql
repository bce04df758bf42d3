{% macro postgres__persist_docs(relation, model, for_relation, for_columns) %}
    {%- set held = {} -%}
    {%- for row in run_query(comments_held(relation)) -%}
        {%- do held.update({row[0]: row[1]}) -%}
    {%- endfor -%}
    {%- set statements = [] -%}
    {%- if for_relation and config.persist_relation_docs() and model.description -%}
        {%- if held.get('') != model.description -%}
            {%- do statements.append(alter_relation_comment(relation, model.description)) -%}
        {%- endif -%}
    {%- endif -%}
    {%- if for_columns and config.persist_column_docs() and model.columns -%}
        {%- set there = held.keys() | reject('equalto', '') | list -%}
        {%- for name, column in validate_doc_columns(relation, model.columns, there).items() -%}
            {%- if (held[name] or '') != column.description -%}
                {%- do statements.append(
                    'comment on column ' ~ relation ~ '.' ~ adapter.quote(name) ~ ' is '
                    ~ postgres_escape_comment(column.description) ~ ';'
                ) -%}
            {%- endif -%}
        {%- endfor -%}
    {%- endif -%}
    {%- if statements -%}
        {%- do run_query(statements | join('\n')) -%}
    {%- endif -%}
{% endmacro %}
