{% macro get_incremental_replace_slices_sql(arg_dict) -%}
    {%- set target = arg_dict['target_relation'] -%}
    {%- set rebuilt = arg_dict['temp_relation'] -%}

    {{ create_partitions(target, rebuilt) }}

    {{ replace_rows(
        target,
        rebuilt,
        columns=arg_dict['dest_columns'] | map(attribute='name') | list,
        key=arg_dict['unique_key'],
        not_compared=config.meta_get('not_compared'),
        in_scope=context[config.meta_get('rebuild_scope')]('held') if rebuilds_touched_only() else 'true',
    ) }}
{%- endmacro %}
