{% macro record_mart_build() -%}
    {{ return(adapter.dispatch('record_mart_build')()) }}
{%- endmacro %}

{% macro default__record_mart_build() -%}
{%- endmacro %}

{% macro postgres__record_mart_build() -%}
    insert into {{ source('sqp', 'mart_builds').render() }} as recorded (model_name, built_until)
    select
        '{{ this.identifier }}',
        built_until
    from mart_seen
    on conflict (model_name) do update
    set built_until = excluded.built_until
    where recorded.built_until is distinct from excluded.built_until
{%- endmacro %}
