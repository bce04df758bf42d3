{% materialization view, adapter='postgres' -%}
    {%- set built = make_intermediate_relation(this.incorporate(type='view')) -%}

    {{ run_hooks(pre_hooks, inside_transaction=False) }}
    {{ run_hooks(pre_hooks, inside_transaction=True) }}

    {% do lock_name(this) %}
    {% call statement('main') -%}
        {{ get_create_view_as_sql(built, sql) }}
    {%- endcall %}
    {% if is_same_view(built, this) -%}
        {% do adapter.drop_relation(built) %}
    {%- else -%}
        {% do put_in_place(built) %}
    {%- endif %}

    {{ return(finish_relation('view')) }}
{%- endmaterialization %}
