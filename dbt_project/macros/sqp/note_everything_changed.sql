{% macro note_everything_changed() -%}
    {%- for summary in var('sqp_summaries') if summary != this.identifier %}
            if to_regclass('{{ this.schema }}.{{ summary }}') is not null then
                insert into {{ source('sqp', 'changed_queries').render() }} (
                    summary, account_id, marketplace_id, period_start
                )
                select
                    '{{ summary }}',
                    account_id,
                    marketplace_id,
                    period_start
                from {{ this.schema }}.{{ summary }}
                union
                select
                    '{{ summary }}',
                    account_id,
                    marketplace_id,
                    period_start
                from {{ this.schema }}.{{ this.identifier }};
            end if;
    {%- endfor %}
{%- endmacro %}
