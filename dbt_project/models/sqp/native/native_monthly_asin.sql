with delivered as (
    select *
    from {{ ref('stg_landing__sqp_asin') }}
    where period_type = 'MONTH'
),

final as (
    select
        {{ sqp_summary_columns('asin') }},
        load_id,
        loaded_at
    from delivered
)

select *
from final
