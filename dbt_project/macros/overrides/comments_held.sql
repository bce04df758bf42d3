{% macro comments_held(relation) %}
    {%- set name = relation.include(database=false) -%}
    select
        '' as column_name,
        obj_description(to_regclass('{{ name }}'), 'pg_class') as comment_held
    union all
    select
        attname as column_name,
        col_description(attrelid, attnum) as comment_held
    from pg_attribute
    where
        attrelid = to_regclass('{{ name }}')
        and attnum > 0
        and not attisdropped
{% endmacro %}
