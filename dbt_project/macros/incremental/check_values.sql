{% macro check_values() -%}
    {{ return(adapter.dispatch('check_values')()) }}
{%- endmacro %}

{% macro default__check_values() -%}
{%- endmacro %}

{% macro postgres__check_values() -%}
    {%- set most = var('count_limit') * (100 if config.meta_get('period') else 1) -%}
    {%- set conditions = [] -%}
    {%- for column in model.columns.values() -%}
        {%- if column.data_type == 'bigint' -%}
            {%- do conditions.append(column.name ~ ' between 0 and ' ~ most) -%}
        {%- elif column.data_type.startswith('numeric') -%}
            {%- do conditions.append(column.name ~ " >= 0 and " ~ column.name ~ " <> 'NaN'") -%}
        {%- endif -%}
    {%- endfor %}
    do $do$
    begin
        if not exists (
            select
            from pg_constraint
            where conrelid = '{{ this }}'::regclass and conname = '{{ this.identifier }}_values'
        ) then
            alter table {{ this }} add constraint {{ this.identifier }}_values check (
                {{ conditions | join('\n                and ') }}
            );
        end if;
    end;
    $do$
{%- endmacro %}
