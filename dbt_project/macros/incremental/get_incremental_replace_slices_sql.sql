{% macro get_incremental_replace_slices_sql(arg_dict) -%}
    {%- set target = arg_dict['target_relation'] -%}
    {%- set rebuilt = arg_dict['temp_relation'] -%}
    {%- set columns = arg_dict['dest_columns'] | map(attribute='name') | list -%}
    {%- set key = arg_dict['unique_key'] -%}
    {%- set compared = columns | reject('in', key + config.meta_get('not_compared')) | list -%}
    {%- set scope = config.meta_get('rebuild_scope') -%}
    {%- set in_scope, in_periods = 'true', 'true' -%}
    {%- if rebuilds_touched_only() -%}
        {%- set in_scope = within_rebuild_scope('held', scope) -%}
        {%- set in_periods = within_touched_periods('held.period_start', scope.period) -%}
    {%- endif -%}

    analyze {{ rebuilt }};

    {{ create_partitions(target, rebuilt) }}

    delete from {{ target }} as held
    where {{ in_scope }}
        and not exists (
            select 1
            from {{ rebuilt }} as rebuilt
            where {{ columns_match(key, 'held', 'rebuilt') }}
                and ({{ prefixed(compared, 'held') }})
                is not distinct from ({{ prefixed(compared, 'rebuilt') }})
        );

    insert into {{ target }} ({{ columns | join(', ') }})
    select {{ prefixed(columns, 'rebuilt') }}
    from {{ rebuilt }} as rebuilt
    where not exists (
        select 1
        from {{ target }} as held
        where {{ columns_match(key, 'held', 'rebuilt') }}
            and {{ in_periods }}
    )
    order by {{ prefixed(key, 'rebuilt') }};
{%- endmacro %}
