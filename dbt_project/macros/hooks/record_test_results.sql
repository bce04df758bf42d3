{% macro record_test_results(results) -%}
    {{ return(adapter.dispatch('record_test_results')(results)) }}
{%- endmacro %}

{% macro default__record_test_results(results) -%}
{%- endmacro %}

{% macro postgres__record_test_results(results) -%}
    {%- set checks = source('sqp', 'data_quality_checks') -%}
    {%- if not execute or flags.WHICH not in ['build', 'test'] or load_relation(checks) is none -%}
        {{ return('') }}
    {%- endif -%}

    {%- set statuses = {
        'pass': 'passed', 'warn': 'warning', 'fail': 'failed', 'error': 'failed',
    } -%}
    {%- set rows = [] -%}
    {%- for result in results
        if result.node.resource_type in ['test', 'unit_test'] and result.status in statuses -%}
        {%- do rows.append(test_result_row(result, statuses[result.status])) -%}
    {%- endfor -%}
    {%- if not rows -%}
        {{ return('') }}
    {%- endif -%}

    insert into {{ checks.render() }} (
        sync_log_id, check_type, check_name, check_status, source_value, target_value, difference,
        table_name, column_name, check_query, check_message, check_metadata
    )
    select
        {{ env_var('WAREHOUSE_SYNC_LOG_ID', '') or 'null' }},
        'dbt_test',
        left(check_name, 255),
        check_status,
        0,
        failures,
        failures,
        left(table_name, 255),
        left(column_name, 255),
        check_query,
        check_message,
        check_metadata
    from jsonb_to_recordset(
        {{ dbt.string_literal(dbt.escape_single_quotes(tojson(rows))) }}
    ) as results (
        check_name text,
        check_status text,
        failures numeric,
        table_name text,
        column_name text,
        check_query text,
        check_message text,
        check_metadata jsonb
    )
{%- endmacro %}
