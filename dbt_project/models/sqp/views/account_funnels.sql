with account_months as (
    select *
    from {{ ref('account_months') }}
),

final as (
    {{ funnel_steps(
        'account_months',
        ['account_id', 'marketplace_id'],
        ['period_start', 'period_end'],
    ) }}
)

select *
from final
