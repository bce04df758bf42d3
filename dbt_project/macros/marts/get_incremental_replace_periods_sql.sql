{% macro get_incremental_replace_periods_sql(arg_dict) -%}
    {{ replace_rows(
        arg_dict['target_relation'],
        arg_dict['temp_relation'],
        columns=arg_dict['dest_columns'] | map(attribute='name') | list,
        key=arg_dict['unique_key'],
        not_compared=['updated_at'],
        in_scope=in_touched_periods('held'),
    ) }}
{%- endmacro %}
