{% macro sqp_period_summary(period, rebuild_scope) -%}
    {%- set stages = ['click', 'cart_add', 'purchase'] -%}
    {%- set totals = ['total_query_impression_count'] -%}
    {%- for stage in stages %}{% do totals.append('total_' ~ stage ~ '_count') %}{% endfor -%}
    {%- set market = ['account_id', 'marketplace_id', 'query_digest', 'period_start'] -%}

    with weekly_summary as (
        select *
        from {{ ref('weekly_summary') }}
        {%- if rebuilds_touched_only() %}
        where {{ within_touched_periods('period_start', period) }}
        {%- endif %}
    ),

    all_weeks as (
        select
            account_id,
            marketplace_id,
            asin,
            query_digest,
            {{ first_day_of_period(period, 'period_start') }} as period_start,
            period_start as week_start,
            query,
            search_query_score,
            search_query_volume,
            {{ totals | join(', ') }},
            total_impressions,
            total_clicks,
            cart_adds,
            total_purchases,
            {%- for stage in stages %}
            total_median_{{ stage }}_price,
            asin_median_{{ stage }}_price,
            {%- endfor %}
            currency_code
        from weekly_summary
    ),

    weeks as (
        select *
        from all_weeks
        {%- if rebuilds_touched_only() %}
        where {{ within_rebuild_scope('all_weeks', rebuild_scope) }}
        {%- endif %}
    ),

    market_weeks as (
        select
            {{ market | join(', ') }},
            week_start,
            max(search_query_volume) as search_query_volume,
            {%- for total in totals %}
            max({{ total }}) as {{ total }},
            {%- endfor %}
            {%- for stage in stages %}
            max(total_median_{{ stage }}_price) as total_median_{{ stage }}_price,
            {%- endfor %}
            min(currency_code) as first_currency_code,
            max(currency_code) as last_currency_code
        from weeks
        group by {{ market | join(', ') }}, week_start
    ),

    markets as (
        select
            {{ market | join(', ') }},
            cast(sum(search_query_volume) as bigint) as search_query_volume,
            {%- for total in totals %}
            cast(sum({{ total }}) as bigint) as {{ total }},
            {%- endfor %}
            {%- for stage in stages %}
            {{ weighted_mean('total_median_' ~ stage ~ '_price', 'total_' ~ stage ~ '_count') }}
                as total_median_{{ stage }}_price,
            {%- endfor %}
            max(last_currency_code) as currency_code,
            coalesce(min(first_currency_code) = max(last_currency_code), true) as has_one_currency,
            cast(count(*) as integer) as market_weeks
        from market_weeks
        group by {{ market | join(', ') }}
    ),

    asins as (
        select
            {{ market | join(', ') }},
            asin,
            max(query) as query,
            min(search_query_score) as search_query_score,
            cast(sum(total_impressions) as bigint) as own_impression_count,
            cast(sum(total_clicks) as bigint) as own_click_count,
            cast(sum(cart_adds) as bigint) as own_cart_add_count,
            cast(sum(total_purchases) as bigint) as own_purchase_count,
            {{ weighted_mean('asin_median_click_price', 'total_clicks') }} as own_median_click_price,
            {{ weighted_mean('asin_median_cart_add_price', 'cart_adds') }} as own_median_cart_add_price,
            {{ weighted_mean('asin_median_purchase_price', 'total_purchases') }} as own_median_purchase_price,
            {%- if period == 'quarter' %}
            cast(count(distinct extract(month from week_start)) as integer) as active_months,
            {%- endif %}
            cast(count(*) as integer) as active_weeks
        from weeks
        group by {{ market | join(', ') }}, asin
    ),

    joined as (
        select
            {{ prefixed(market + ['asin', 'query', 'search_query_score'], 'asins') }},
            {{ last_day_of_period(period, 'asins.period_start') }} as period_end,
            cast(extract(year from asins.period_start) as integer) as year,
            cast(extract({{ period }} from asins.period_start) as integer) as {{ period }},
            {{ prefixed(['search_query_volume'] + totals, 'markets') }},
            asins.own_impression_count,
            {%- for stage in stages %}
            asins.own_{{ stage }}_count,
            case when markets.has_one_currency then markets.total_median_{{ stage }}_price end
                as total_median_{{ stage }}_price,
            case when markets.has_one_currency then asins.own_median_{{ stage }}_price end
                as own_median_{{ stage }}_price,
            {%- endfor %}
            case when markets.has_one_currency then markets.currency_code end as currency_code,
            {%- if period == 'quarter' %}
            asins.active_months,
            {%- endif %}
            asins.active_weeks,
            markets.market_weeks
        from asins
        inner join markets
            on {{ columns_match(market, 'asins', 'markets') }}
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
