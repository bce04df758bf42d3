with delivered as (
    select *
    from {{ ref('stg_landing__sqp_brand') }}
    where period_type = 'QUARTER'
),

final as (
    select
        {{ sqp_summary_columns('brand') }},
        load_id,
        loaded_at
    from delivered
)

select *
from final
