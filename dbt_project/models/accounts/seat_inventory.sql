with seats as (
    select *
    from {{ ref('stg_app__dsp_seats') }}
    where is_there
),

accounts as (
    select *
    from {{ ref('stg_app__accounts') }}
),

final as (
    select
        seats.user_account_id,
        seats.user_id,
        accounts.amazon_account_id as advertiser_id,
        seats.exchange_id,
        seats.seat_id,
        seats.deal_creation_id,
        seats.spend_tracking_id,
        accounts.account_name,
        seats.exchange_name,
        {{ days_later('seats.first_seen_at', var('seat_new_days')) }} > {{ statement_time() }}
            as is_new,
        seats.first_seen_at,
        greatest(
            seats.last_seen_at, coalesce(accounts.last_sync_success_at, seats.last_seen_at)
        ) as last_seen_at
    from seats
    inner join accounts
        on seats.user_account_id = accounts.user_account_id
)

select *
from final
