{% macro sqp_period_summary(period) -%}
    {%- set stages = ['click', 'cart_add', 'purchase'] -%}
    {%- set counts = ['total_query_impression', 'total_click', 'total_cart_add', 'total_purchase'] -%}

    with weeks as (
        select
            *,
            {{ first_day_of_period(period, 'period_start') }} as first_day
        from {{ ref('weekly_summary') }}
        {%- if rebuilds_touched_only() %}
        where {{ within_touched_periods('period_start', period) }}
        {%- endif %}
    ),

    {%- if rebuilds_touched_only() %}

    touched_queries as (
        {{ sqp_touched_queries(period) }}
    ),

    {%- endif %}

    weeks_to_add_up as (
        select weeks.*
        from weeks
        {%- if rebuilds_touched_only() %}
        inner join touched_queries
            on weeks.account_id = touched_queries.account_id
            and weeks.marketplace_id = touched_queries.marketplace_id
            and weeks.query_digest = touched_queries.query_digest
            and weeks.first_day = touched_queries.period_start
        {%- endif %}
    ),

    market_weeks as (
        select
            account_id,
            marketplace_id,
            query_digest,
            first_day,
            period_start,
            max(search_query_volume) as search_query_volume,
            {%- for count in counts %}
            max({{ count }}_count) as {{ count }}_count,
            {%- endfor %}
            {%- for stage in stages %}
            max(total_median_{{ stage }}_price) as total_median_{{ stage }}_price,
            {%- endfor %}
            min(currency_code) as first_currency_code,
            max(currency_code) as last_currency_code
        from weeks_to_add_up
        group by account_id, marketplace_id, query_digest, first_day, period_start
    ),

    markets as (
        select
            account_id,
            marketplace_id,
            query_digest,
            first_day,
            cast(sum(search_query_volume) as bigint) as search_query_volume,
            {%- for count in counts %}
            cast(sum({{ count }}_count) as bigint) as {{ count }}_count,
            {%- endfor %}
            {%- for stage in stages %}
            {{ weighted_mean('total_median_' ~ stage ~ '_price', 'total_' ~ stage ~ '_count') }}
                as total_median_{{ stage }}_price,
            {%- endfor %}
            min(first_currency_code) as first_currency_code,
            max(last_currency_code) as last_currency_code,
            cast(count(*) as integer) as market_weeks
        from market_weeks
        group by account_id, marketplace_id, query_digest, first_day
    ),

    asins as (
        select
            account_id,
            marketplace_id,
            asin,
            query_digest,
            first_day,
            max(query) as query,
            min(search_query_score) as search_query_score,
            cast(sum(total_impressions) as bigint) as own_impression_count,
            cast(sum(total_clicks) as bigint) as own_click_count,
            cast(sum(cart_adds) as bigint) as own_cart_add_count,
            cast(sum(total_purchases) as bigint) as own_purchase_count,
            {{ weighted_mean('asin_median_click_price', 'total_clicks') }} as own_median_click_price,
            {{ weighted_mean('asin_median_cart_add_price', 'cart_adds') }} as own_median_cart_add_price,
            {{ weighted_mean('asin_median_purchase_price', 'total_purchases') }} as own_median_purchase_price,
            cast(count(*) as integer) as active_weeks,
            cast(count(distinct {{ first_day_of_period('month', 'period_start') }}) as integer) as active_months
        from weeks_to_add_up
        group by account_id, marketplace_id, asin, query_digest, first_day
    ),

    in_one_currency as (
        select
            *,
            coalesce(first_currency_code = last_currency_code, true) as has_one_currency
        from markets
    ),

    joined as (
        select
            asins.account_id,
            asins.marketplace_id,
            asins.asin,
            asins.query_digest,
            asins.first_day as period_start,
            {{ last_day_of_period(period, 'asins.first_day') }} as period_end,
            cast(extract(year from asins.first_day) as integer) as year,
            cast(extract({{ period }} from asins.first_day) as integer) as {{ period }},
            asins.query,
            asins.search_query_score,
            markets.search_query_volume,
            {%- for count in counts %}
            markets.{{ count }}_count,
            {%- endfor %}
            asins.own_impression_count,
            asins.own_click_count,
            asins.own_cart_add_count,
            asins.own_purchase_count,
            {%- for stage in stages %}
            case when markets.has_one_currency then markets.total_median_{{ stage }}_price end
                as total_median_{{ stage }}_price,
            case when markets.has_one_currency then asins.own_median_{{ stage }}_price end
                as own_median_{{ stage }}_price,
            {%- endfor %}
            case when markets.has_one_currency then markets.last_currency_code end as currency_code,
            asins.active_weeks,
            asins.active_months,
            markets.market_weeks
        from asins
        inner join in_one_currency as markets
            on asins.account_id = markets.account_id
            and asins.marketplace_id = markets.marketplace_id
            and asins.query_digest = markets.query_digest
            and asins.first_day = markets.first_day
    ),

    final as (
        select
            {{ sqp_summary_columns('asin', calendar=['year', period]) }},
            active_weeks,
            {%- if period == 'quarter' %}
            active_months,
            {%- endif %}
            market_weeks,
            {{ statement_time() }} as updated_at
        from joined
    )

    select *
    from final
{%- endmacro %}
