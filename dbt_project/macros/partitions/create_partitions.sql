{% macro create_partitions(relation, rows) -%}
    {%- set partition_by = config.get('partition_by') -%}
    {%- if partition_by.granularity != 'month' -%}
        {%- do exceptions.raise_compiler_error(
            'partition_by of ' ~ relation ~ ': only granularity month is made on Postgres, not '
            ~ partition_by.granularity
        ) -%}
    {%- endif -%}
    select app.create_monthly_partition('{{ relation.schema }}.{{ relation.identifier }}', months.first_day)
    from (
        select distinct {{ first_day_of_period('month', partition_by.field) }} as first_day
        from {{ rows }}
        order by first_day
    ) as months;
{%- endmacro %}
