{% macro rebuilds_touched_only() -%}
    {{ return(is_incremental() and not (flags.FULL_REFRESH and not flags.EMPTY)) }}
{%- endmacro %}
