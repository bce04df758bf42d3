with slices as (
    select *
    from {{ ref('stg_landing__sqp_slices') }}
    where
        report_view = 'asin'
        and period_type = 'WEEK'
),

slice_builds as (
    select *
    from {{ source('sqp', 'slice_builds') }}
),

built_everywhere as (
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
),

final as (
    select
        slices.slice_id,
        slices.load_id,
        slices.account_id,
        slices.marketplace_id,
        slices.subject as asin,
        slices.period_start,
        slices.period_end
    from slices
    left join built_everywhere
        on
            slices.slice_id = built_everywhere.slice_id
            and slices.load_id = built_everywhere.load_id
    where
        built_everywhere.slice_id is null
        or {{ 'true' if flags.FULL_REFRESH else 'false' }}
)

select *
from final
