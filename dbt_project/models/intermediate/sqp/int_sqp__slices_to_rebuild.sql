with slices as (
    select *
    from {{ ref('stg_landing__sqp_slices') }}
    where
        report_view = 'asin'
        and period_type = 'WEEK'
),

{% if flags.FULL_REFRESH -%}
slices_to_rebuild as (
    select *
    from slices
),

{% else -%}
slice_builds as (
    select *
    from {{ source('sqp', 'slice_builds') }}
),

slices_to_rebuild as (
    {{ slices_not_built() }}
),

{% endif -%}
final as (
    select
        slice_id,
        load_id,
        account_id,
        marketplace_id,
        subject as asin,
        '{{ invocation_id }}' as frozen_by,
        period_start,
        period_end
    from slices_to_rebuild
)

select *
from final
