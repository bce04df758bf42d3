{% macro protect_model() -%}
    {{ return(adapter.dispatch('protect_model')()) }}
{%- endmacro %}

{% macro default__protect_model() -%}
{%- endmacro %}

{% macro postgres__protect_model() -%}
    {%- if not execute -%}
        {{ return('') }}
    {%- endif -%}
    {%- set declaration = table_declaration(model) -%}
    {%- set relation = this.schema ~ '.' ~ this.identifier -%}
    {%- set is_view = model.config.materialized == 'view' -%}
    {%- set state -%}
        select
            (tables.relforcerowsecurity or tables.relkind = 'v')
            and tables.relacl is not null
            and (
                tables.relkind = 'v' and 'security_invoker=true' = any(tables.reloptions)
                or exists (
                    select from pg_catalog.pg_policy
                    where
                        polrelid = tables.oid
                        and polname = 'owner_all'
                )
            ) as is_protected
        from pg_catalog.pg_class as tables
        where tables.oid = to_regclass('{{ relation }}')
    {%- endset -%}
    {%- set found = run_query(state).rows -%}
    {%- if found and found[0]['is_protected'] -%}
        {{ return('') }}
    {%- endif -%}
    {{ protection(relation, declaration, model.columns.keys() | list, is_view) }}
{%- endmacro %}

{% macro bigquery__protect_model() -%}
    {%- if not execute or not bigquery_principals().readers -%}
        {{ return('') }}
    {%- endif -%}
    {%- set declaration = table_declaration(model) -%}
    {%- set relation = '`' ~ [this.project, this.schema, this.identifier] | join('.') ~ '`' -%}
    {%- if model.config.materialized != 'view' %}
    {{ row_policies(relation, declaration) }}
    {%- endif %}
    {{ table_grants(relation, declaration, model.columns.keys() | list, is_built=true) }}
{%- endmacro %}
