{% macro table_grants(relation, declaration, columns, is_built=false) -%}
    {{ return(adapter.dispatch('table_grants')(relation, declaration, columns, is_built)) }}
{%- endmacro %}

{% macro postgres__table_grants(relation, declaration, columns, is_built=false) -%}
    {%- set tenant = declaration.tenant -%}
    {%- set access = declaration.get('access', 'none' if tenant == 'none' else 'read') -%}
    {%- set hidden = declaration.get('hidden', []) -%}
    {%- set readable = columns | reject('in', hidden) | list -%}
    {%- set select_granted = 'select (' ~ readable | join(', ') ~ ')' if hidden else 'select' -%}
    {%- set writers = [] if is_built or declaration.view is defined else declaration.get('writers', ['etl']) -%}

    revoke all on {{ relation }} from public, anon, authenticated, etl{{ '' if is_built else ', dbt' }};
    {%- if hidden %}
    revoke all ({{ columns | join(', ') }}) on {{ relation }} from public, anon, authenticated, dbt;
    {%- endif %}
    grant select on {{ relation }} to etl;
    {%- if not is_built %}
    grant {{ select_granted }} on {{ relation }} to dbt;
    {%- endif %}
    {%- if writers %}
    grant insert, update, delete on {{ relation }} to {{ writers | join(', ') }};
    {%- endif %}

    {%- if access != 'none' %}
    grant {{ select_granted }} on {{ relation }} to authenticated{{ ', anon' if tenant == 'shared' }};
    {%- endif %}
    {%- if access == 'edit' %}
        {%- set editable = declaration.get('editable', []) -%}
        {%- set own = ['id', tenant.column, (tenant.from or {}).get('key')] -%}
        {%- set insertable = [] -%}
        {%- for column in own + editable + declaration.get('insertable', [])
            if column in columns and column not in insertable -%}
            {%- do insertable.append(column) -%}
        {%- endfor %}
    revoke insert ({{ columns | join(', ') }}), update ({{ columns | join(', ') }})
    on {{ relation }} from authenticated;
        {%- if 'insert' in tenant_commands(declaration) %}
    grant insert ({{ insertable | join(', ') }}) on {{ relation }} to authenticated;
        {%- endif %}
        {%- if 'delete' in tenant_commands(declaration) %}
    grant delete on {{ relation }} to authenticated;
        {%- endif %}
        {%- if editable %}
    grant update ({{ editable | join(', ') }}) on {{ relation }} to authenticated;
        {%- endif %}
    {%- endif %}
{%- endmacro %}

{% macro bigquery__table_grants(relation, declaration, columns, is_built=false) -%}
    {%- if declaration.tenant != 'none' and declaration.access != 'none' %}
    grant `roles/bigquery.dataViewer`
    on {{ 'view' if model.config.materialized == 'view' else 'table' }} {{ relation }}
    to {{ bigquery_principals().readers }};
    {%- endif %}
{%- endmacro %}
