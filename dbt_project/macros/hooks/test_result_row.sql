{% macro test_result_row(result, check_status) -%}
    {%- set test = result.node -%}
    {%- set tested = test.attached_node or (test.depends_on.nodes | first) -%}
    {%- set relation = graph.nodes.get(tested) or graph.sources.get(tested) or {} -%}
    {%- set table_name = none -%}
    {%- if relation -%}
        {%- set table_name = relation.schema ~ '.' ~ (relation.alias or relation.identifier) -%}
    {%- endif -%}
    {%- set message = (result.message or '') | replace('\x00', '') -%}
    {{ return({
        'check_name': test.name,
        'check_status': check_status,
        'failures': result.failures,
        'table_name': table_name,
        'column_name': test.column_name or none,
        'check_query': test.compiled_code or none if check_status != 'passed' else none,
        'check_message': message or none,
        'check_metadata': {
            'unique_id': test.unique_id,
            'resource_type': test.resource_type,
            'compiled_path': test.compiled_path or none,
            'severity': (test.config.severity or 'error') | lower,
            'execution_seconds': result.execution_time,
            'invocation_id': invocation_id,
        },
    }) }}
{%- endmacro %}
