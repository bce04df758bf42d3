{% macro tenant_condition(tenant) -%}
    {{ return(adapter.dispatch('tenant_condition')(tenant)) }}
{%- endmacro %}

{% macro postgres__tenant_condition(tenant) -%}
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

{% macro bigquery__tenant_condition(tenant) -%}
    {%- if tenant.account is defined -%}
        {{ tenant.account }} in (
            select account_readers.account_id
            from `{{ target.project }}.access.account_readers` as account_readers
            where account_readers.email = lower(session_user())
        )
    {%- elif tenant == 'shared' -%}
        true
    {%- else -%}
        {%- do exceptions.raise_compiler_error('BigQuery has no rows of this kind of tenant: ' ~ tenant) -%}
    {%- endif -%}
{%- endmacro %}
