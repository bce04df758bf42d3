with marketplaces as (
    select *
    from {{ ref('account_marketplaces') }}
),

accounts as (
    select *
    from {{ ref('stg_app__accounts') }}
),

entities as (
    select distinct
        user_id,
        user_account_id,
        'advertising' as account_type,
        entity_id
    from marketplaces
    where entity_id is not null

    union all

    select
        user_id,
        user_account_id,
        account_type,
        entity_id
    from accounts
    where account_type in ('dsp', 'amc') and entity_id is not null
),

final as (
    select
        one.user_account_id,
        other.user_account_id as related_account_id,
        one.user_id,
        one.entity_id,
        one.account_type,
        other.account_type as related_account_type
    from entities as one
    inner join entities as other
        on
            one.user_id = other.user_id
            and one.entity_id = other.entity_id
            and one.account_type <> other.account_type
)

select *
from final
