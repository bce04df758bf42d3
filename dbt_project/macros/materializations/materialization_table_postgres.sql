{% materialization table, adapter='postgres' -%}
    {%- set built = make_intermediate_relation(this.incorporate(type='table')) -%}

    {{ run_hooks(pre_hooks, inside_transaction=False) }}
    {{ run_hooks(pre_hooks, inside_transaction=True) }}

    {% do lock_name(this) %}
    {% call statement('main') -%}
        {{ get_create_table_as_sql(False, built, sql) }}
    {%- endcall %}
    {% do create_indexes(built) %}
    {% do put_in_place(built) %}

    {{ return(finish_relation('table')) }}
{%- endmaterialization %}
