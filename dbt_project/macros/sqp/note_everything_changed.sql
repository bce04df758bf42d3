{% macro note_everything_changed() -%}
    {%- set weeks = this.schema ~ '.' ~ this.identifier -%}
    {%- for node in period_summaries() + marts() -%}
        {%- set follower = node.schema ~ '.' ~ node.alias %}
            if to_regclass('{{ follower }}') is not null then
                insert into {{ changed_queries_table() }} (
                    model_name, account_id, marketplace_id, period_start
                )
                select
                    '{{ node.name }}',
                    account_id,
                    marketplace_id,
                    period_start
                from {{ follower }}
                union
                select
                    '{{ node.name }}',
                    account_id,
                    marketplace_id,
                    period_start
                from {{ weeks }};
            end if;
    {%- endfor %}
{%- endmacro %}
