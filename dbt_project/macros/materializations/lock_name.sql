{% macro lock_name(relation) -%}
    {% call statement('lock_name') -%}
        select pg_advisory_xact_lock(hashtextextended('the name {{ relation.render() }}', 0))
    {%- endcall %}
{%- endmacro %}
