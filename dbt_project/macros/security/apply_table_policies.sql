{% macro apply_table_policies() -%}
    {{ return(adapter.dispatch('apply_table_policies')()) }}
{%- endmacro %}

{% macro default__apply_table_policies() -%}
{%- endmacro %}

{% macro postgres__apply_table_policies() -%}
    {%- set existing = relations_of_the_warehouse() -%}
    {%- set declared, statements, registrations = [], [], [] -%}

    {%- for node in graph.sources.values() -%}
        {%- set relation = node.schema ~ '.' ~ node.identifier -%}
        {%- set declaration = table_declaration(node) -%}
        {%- if relation not in existing -%}
            {%- do exceptions.raise_compiler_error(
                relation ~ ' is declared and does not exist: run `warehouse up`'
            ) -%}
        {%- endif -%}
        {%- if declaration.view is defined -%}
            {%- do statements.append('alter view ' ~ relation ~ ' set (security_invoker = true);') -%}
        {%- else -%}
            {%- do statements.append(row_policies(relation, declaration)) -%}
            {%- do statements.append(table_triggers(
                relation, node.identifier, declaration, node.columns.keys() | list
            )) -%}
        {%- endif -%}
        {%- do statements.append(table_grants(relation, declaration, node.columns.keys() | list)) -%}
        {%- do registrations.append(register_table(relation, declaration)) -%}
        {%- do statements.append(describe_table(relation, node)) -%}
        {%- do declared.append(relation) -%}
    {%- endfor -%}

    {%- for node in graph.nodes.values()
        if node.resource_type in ['model', 'seed', 'snapshot'] and node.config.materialized != 'ephemeral' -%}
        {%- set relation = node.schema ~ '.' ~ node.alias -%}
        {%- set declaration = table_declaration(node) -%}
        {%- if relation in existing -%}
            {%- set is_view = existing[relation] == 'v' -%}
            {%- do statements.append(
                protection(relation, declaration, node.columns.keys() | list, is_view)
            ) -%}
        {%- endif -%}
        {%- do registrations.append(register_table(relation, declaration)) -%}
        {%- do declared.append(relation) -%}
    {%- endfor -%}

    {%- call statement('apply_table_policies') -%}
    rollback;
    begin;
    select pg_advisory_xact_lock(hashtextextended('policies of the warehouse', 0));
    set local role none;
    set local lock_timeout = '{{ var("policies_lock_timeout") }}';
    set local role app_owner;
    set local search_path = '';
    select private.drop_generated_objects();
    {{ statements | join('\n') }}
    {{ registrations | join('\n') }}
    {{ protect_partitions() }}
    delete from app.table_policies
    where relation <> all(array['{{ declared | join("', '") }}']);
    select app.ensure_partitions();
    commit;
    {%- endcall -%}
    {%- do log(
        'row security, triggers, partitions and grants of ' ~ declared | length
        ~ ' relations are as declared', info=true
    ) -%}
{%- endmacro %}
