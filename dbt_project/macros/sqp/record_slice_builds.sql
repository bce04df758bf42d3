{% macro record_slice_builds() -%}
    {{ return(adapter.dispatch('record_slice_builds')()) }}
{%- endmacro %}

{% macro postgres__record_slice_builds() -%}
    update {{ source('sqp', 'slice_builds').render() }} as recorded
    set load_id = slices.load_id, built_at = clock_timestamp()
    from (select * from {{ ref('int_sqp__slices_to_rebuild') }}) as slices
    where
        recorded.model_name = '{{ this.identifier }}'
        and recorded.slice_id = slices.slice_id
        and recorded.load_id is distinct from slices.load_id
{%- endmacro %}

{% macro bigquery__record_slice_builds() -%}
    merge into {{ source('sqp', 'slice_builds').render() }} as recorded
    using (select * from {{ ref('int_sqp__slices_to_rebuild') }}) as slices
    on recorded.model_name = '{{ this.identifier }}' and recorded.slice_id = slices.slice_id
    when matched and recorded.load_id != slices.load_id then
        update set load_id = slices.load_id, built_at = current_timestamp()
    when not matched then
        insert (model_name, slice_id, load_id, built_at)
        values ('{{ this.identifier }}', slices.slice_id, slices.load_id, current_timestamp())
{%- endmacro %}
