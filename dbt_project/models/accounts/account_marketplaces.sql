with accounts as (
    select *
    from {{ ref('stg_app__accounts') }}
    where account_type = 'advertising'
),

marketplaces as (
    select
        accounts.user_account_id,
        accounts.user_id,
        accounts.amazon_account_id,
        each_element.json_element as marketplace
    from accounts
    {{ each_json_element('accounts.metadata', 'marketplaces') }}
),

final as (
    select
        user_account_id,
        user_id,
        amazon_account_id,
        {{ json_text('marketplace', 'country_code') }} as country_code,
        {{ json_text('marketplace', 'marketplace_id') }} as marketplace_id,
        {{ json_text('marketplace', 'profile_id') }} as profile_id,
        {{ json_text('marketplace', 'entity_id') }} as entity_id,
        {{ json_text('marketplace', 'currency_code') }} as currency_code,
        {{ json_text('marketplace', 'timezone') }} as timezone
    from marketplaces
)

select *
from final
