{% macro bq_generate_incremental_insert_overwrite_build_sql(
    tmp_relation, target_relation, sql, unique_key, partition_by, partitions, dest_columns, tmp_relation_exists,
    copy_partitions
) -%}
    {#- Partitions that are named are replaced also where nothing is left of them. #}
    {%- set touched = touched_partitions() -%}
    {%- if touched -%}
        {{ bq_static_insert_overwrite_sql(
            tmp_relation, target_relation, sql, partition_by, touched, dest_columns, tmp_relation_exists, false
        ) }}
    {%- else -%}
        drop table if exists {{ tmp_relation }}
    {%- endif -%}
{%- endmacro %}
