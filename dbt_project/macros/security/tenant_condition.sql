{% macro tenant_condition(tenant) -%}
    {%- if tenant.column is defined -%}
        {{ tenant.column }} = (select auth.uid())
    {%- elif tenant.account is defined -%}
        {{ tenant.account }} = any(array(
            select sqp_accounts.account_id
            from app.sqp_accounts
            where sqp_accounts.user_id = (select auth.uid())
        ))
    {%- elif tenant.run is defined -%}
        {{ tenant.run }} = any(array(select sync_log.id from sqp.sync_log))
    {%- elif tenant == 'shared' -%}
        true
    {%- else -%}
        {%- do exceptions.raise_compiler_error('unknown kind of tenant: ' ~ tenant) -%}
    {%- endif -%}
{%- endmacro %}
