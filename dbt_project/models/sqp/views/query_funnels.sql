with monthly_summary as (
    select *
    from {{ ref('monthly_summary') }}
),

final as (
    {{ funnel_steps(
        'monthly_summary',
        ['account_id', 'marketplace_id', 'asin', 'query_digest', 'query'],
        ['period_start', 'period_end'],
    ) }}
)

select *
from final
