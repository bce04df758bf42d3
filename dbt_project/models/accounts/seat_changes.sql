with changes as (
    select *
    from {{ source('app', 'dsp_seats_history') }}
),

final as (
    select
        id as seat_change_id,
        user_id,
        user_account_id,
        advertiser_id,
        exchange_id,
        seat_id,
        change_type,
        exchange_name,
        previous_exchange_name,
        spend_tracking_id,
        previous_spend_tracking_id,
        observed_at
    from changes
)

select *
from final
