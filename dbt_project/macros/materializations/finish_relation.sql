{% macro finish_relation(type) -%}
    {%- set finished = this.incorporate(type=type) -%}
    {% do apply_grants(finished, config.get('grants'), should_revoke=true) %}
    {% do persist_docs(finished, model) %}
    {{ run_hooks(post_hooks, inside_transaction=True) }}
    {{ adapter.commit() }}
    {{ run_hooks(post_hooks, inside_transaction=False) }}
    {{ return({'relations': [finished]}) }}
{%- endmacro %}
