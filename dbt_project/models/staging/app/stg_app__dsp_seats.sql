with seats as (
    select *
    from {{ source('app', 'dsp_seats') }}
),

renamed as (
    select
        id as dsp_seat_id,
        user_id,
        user_account_id,
        exchange_id,
        seat_id,
        deal_creation_id,
        spend_tracking_id,
        exchange_name,
        removed_at is null as is_there,
        first_seen_at,
        last_seen_at,
        removed_at
    from seats
)

select *
from renamed
