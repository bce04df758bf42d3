{% macro get_incremental_replace_periods_sql(arg_dict) -%}
    {%- set target = arg_dict['target_relation'] -%}
    {%- set rebuilt = arg_dict['temp_relation'] -%}
    {%- set columns = arg_dict['dest_columns'] | map(attribute='name') | list -%}
    {%- set key = arg_dict['unique_key'] -%}
    {%- set compared = columns | reject('in', key + ['updated_at']) | list -%}

    analyze {{ rebuilt }};

    delete from {{ target }} as held
    where
        {{ in_touched_periods('held') }}
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
        where
            {{ columns_match(key, 'held', 'rebuilt') }}
            and {{ in_touched_periods('held') }}
    )
    order by {{ prefixed(key, 'rebuilt') }};
{%- endmacro %}
