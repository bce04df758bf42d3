{% macro slices_not_built() -%}
    {{ return(adapter.dispatch('slices_not_built')()) }}
{%- endmacro %}

{% macro postgres__slices_not_built() -%}
    select slices.*
    from slices
    inner join slice_builds
        on slices.slice_id = slice_builds.slice_id
    where
        slice_builds.model_name = 'weekly_summary'
        and slice_builds.load_id is distinct from slice_builds.wanted_load_id
        and slices.slice_id = any(array(
            select waiting.slice_id
            from {{ source('sqp', 'slice_builds').render() }} as waiting
            where
                waiting.model_name = 'weekly_summary'
                and waiting.load_id is distinct from waiting.wanted_load_id
        ))
{%- endmacro %}

{% macro bigquery__slices_not_built() -%}
    select slices.*
    from slices
    left join (
        select
            slice_id,
            load_id
        from slice_builds
        where
            model_name in (
                {%- for summary in var('sqp_summaries') %}
                '{{ summary }}'{{ ',' if not loop.last }}
                {%- endfor %}
            )
        group by slice_id, load_id
        having count(*) = {{ var('sqp_summaries') | length }}
    ) as built_everywhere
        on slices.slice_id = built_everywhere.slice_id and slices.load_id = built_everywhere.load_id
    where built_everywhere.slice_id is null
{%- endmacro %}
