-- depends_on: {{ ref('weekly_summary') }}

with changes as (
    {{ changed_queries() }}
),

final as (
    select
        change_id,
        model_name,
        account_id,
        marketplace_id,
        query_digest,
        '{{ invocation_id }}' as frozen_by,
        period_start
    from changes
)

select *
from final
