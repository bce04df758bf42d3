with slices as (
    select *
    from {{ source('landing', 'sqp_slices') }}
),

in_force as (
    select
        slice_id,
        accepted_load_id as load_id,
        account_id,
        marketplace_id,
        report_view,
        period_type,
        subject,
        case when load_id = accepted_load_id then source_file end as source_file,
        accepted_row_count as row_count,
        period_start,
        period_end,
        accepted_at
    from slices
    where accepted_load_id is not null
)

select *
from in_force
