{% macro register_table(relation, declaration) -%}
    {%- set partition = declaration.get('partition', {}) -%}
    {%- set retention = declaration.get('retention', {}) -%}
    {%- set condition = (retention.get('when', {}).items() | list or [(none, none)])[0] -%}
    {%- set values = {
        'declaration': tojson(declaration),
        'partition_key': partition.key,
        'partition_unit': partition.unit,
        'partitions_behind': partition.behind,
        'partitions_ahead': partition.ahead,
        'retention_key': retention.key,
        'retention_keep': retention.keep,
        'retention_when_column': condition[0],
        'retention_when_values': '{' ~ condition[1] | join(',') ~ '}' if condition[1] else none,
    } -%}
    {%- set types = {
        'declaration': 'jsonb', 'retention_keep': 'interval', 'retention_when_values': 'text[]',
        'partitions_behind': 'int', 'partitions_ahead': 'int',
    } -%}

    insert into app.table_policies as held (relation, {{ values.keys() | join(', ') }})
    values (
        '{{ relation }}'
        {%- for column, value in values.items() -%}
        ,
        {{ 'null' if value is undefined or value is none
            else dbt.string_literal(dbt.escape_single_quotes(value ~ '')) }}::{{ types.get(column, 'text') }}
        {%- endfor %}
    )
    on conflict (relation) do update
    set
        {%- for column in values %}
        {{ column }} = excluded.{{ column }},
        {%- endfor %}
        declared_at = clock_timestamp()
    where held.declaration is distinct from excluded.declaration;
{%- endmacro %}
