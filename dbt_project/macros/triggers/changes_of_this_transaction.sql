{% macro changes_of_this_transaction(summary, whole=none) -%}
    select *
            from {{ changed_queries_table() }}
            where
                model_name = '{{ summary }}'
                and noted_by = pg_current_xact_id()
                {%- if whole is not none %}
                and query_digest is {{ 'null' if whole else 'not null' }}
                {%- endif %}
{%- endmacro %}
