{% macro row_policies(relation, declaration) -%}
    {{ return(adapter.dispatch('row_policies')(relation, declaration)) }}
{%- endmacro %}

{% macro postgres__row_policies(relation, declaration) -%}
    {%- set tenant = declaration.tenant -%}
    {%- set access = declaration.get('access', 'none' if tenant == 'none' else 'read') -%}
    {%- set policies = [
        ('owner_all', 'all', 'app_owner', 'true'), ('loader_reads', 'select', 'etl', 'true'),
    ] -%}

    {%- if access != 'none' -%}
        {%- set own = tenant_condition(tenant) -%}
        {%- set commands = tenant_commands(declaration) -%}
        {%- set shares = declaration.get('shared', {}) -%}
        {%- for command in commands -%}
            {%- set ways = [own] -%}
            {%- if command == 'select' and declaration.also_readable_by is defined -%}
                {%- do ways.append(declaration.also_readable_by ~ ' = (select auth.uid())') -%}
            {%- endif -%}
            {%- if shares and (command == 'select' or command in shares.editors) -%}
                {%- set level = 'view' if command == 'select' else 'edit' -%}
                {%- do ways.append(
                    shares.key ~ " = any(array(select private.shared_dashboard_ids('" ~ level ~ "')))"
                ) -%}
            {%- endif -%}
            {%- do policies.append(
                ('tenant_' ~ command, command, 'authenticated', ways | join('\n        or '))
            ) -%}
        {%- endfor -%}
    {%- endif -%}

    alter table {{ relation }} enable row level security, force row level security;
    {%- for name, command, role, condition in policies %}
    drop policy if exists {{ name }} on {{ relation }};
    create policy {{ name }} on {{ relation }} for {{ command }} to {{ role }}
        {% if command != 'insert' %}using ({{ condition }}){% endif %}
        {% if command not in ['select', 'delete'] %}with check ({{ condition }}){% endif %};
    comment on policy {{ name }} on {{ relation }} is 'generated from the table''s declaration';
    {%- endfor %}
{%- endmacro %}

{% macro bigquery__row_policies(relation, declaration) -%}
    {%- set who = bigquery_principals() -%}
    {#- Whoever is named by no policy of a table sees none of its rows: not even who builds it. #}
    create or replace row access policy operators_all on {{ relation }}
    grant to ({{ who.operators }})
    filter using (true);

    create or replace row access policy tenant_select on {{ relation }}
    grant to ({{ who.readers }})
    filter using (
        {{ 'false' if declaration.tenant == 'none' or declaration.access == 'none'
            else tenant_condition(declaration.tenant) }}
    );
{%- endmacro %}
