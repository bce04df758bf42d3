{% macro table_triggers(relation, name, declaration, columns) -%}
    {%- set tenant = declaration.tenant -%}
    {%- set triggers = [] -%}
    {%- if declaration.updated_at -%}
        {%- do triggers.append({
            'name': 'update_' ~ name | replace('report_data_', 'report_') ~ '_updated_at',
            'timing': 'before update',
            'when': 'old.* is distinct from new.*',
            'function': 'app.update_updated_at_column',
        }) -%}
    {%- endif -%}
    {%- if tenant is mapping and tenant.from is defined -%}
        {%- do triggers.append({
            'name': 'fill_' ~ name ~ '_' ~ tenant.column,
            'timing': 'before insert',
            'when': 'new.' ~ tenant.column ~ ' is null',
            'function': 'app.fill_owner_from_parent',
            'arguments': [tenant.column, tenant.from.key, tenant.from.table],
        }) -%}
    {%- endif -%}
    {%- if declaration.audit -%}
        {%- set unaudited = declaration.get('unaudited', []) -%}
        {%- set audit = {
            'name': 'audit_' ~ name,
            'timing': 'after insert or update or delete',
            'function': 'app.write_audit_log',
            'arguments': [
                tenant.column,
                declaration.get('key', ['id']) | join(','),
                declaration.get('hidden', []) | join(','),
                unaudited | join(','),
            ],
        } -%}
        {%- if unaudited -%}
            {#- A sync of many rows writes what is passed over: that is to cost next to nothing. -#}
            {%- set audited = columns | reject('in', unaudited + ['updated_at']) | list -%}
            {%- do triggers.append(dict(audit, timing='after insert or delete')) -%}
            {%- do triggers.append(dict(
                audit,
                name='audit_' ~ name ~ '_changes',
                timing='after update',
                when='(old.' ~ audited | join(', old.') ~ ') is distinct from (new.'
                    ~ audited | join(', new.') ~ ')',
            )) -%}
        {%- else -%}
            {%- do triggers.append(audit) -%}
        {%- endif -%}
    {%- endif -%}

    {%- for trigger in triggers + declaration.get('triggers', []) %}
    create trigger {{ trigger.name }} {{ trigger.timing }} on {{ relation }}
    for each {{ trigger.get('level', 'row') }}
    {% if trigger.when is defined %}when ({{ trigger.when }}){% endif %}
    execute function {{ trigger.function }}(
        {%- for argument in trigger.get('arguments', []) -%}
            '{{ argument }}'{{ ', ' if not loop.last }}
        {%- endfor -%}
    );
    comment on trigger {{ trigger.name }} on {{ relation }} is
        'generated from the table''s declaration';
    {%- endfor %}
{%- endmacro %}
