{% macro sqp_period_summary(period, weeks, in_scope=none) -%}
    {%- set stages = ['click', 'cart_add', 'purchase'] -%}
    {%- set totals = ['total_query_impression_count'] -%}
    {%- for stage in stages %}{% do totals.append('total_' ~ stage ~ '_count') %}{% endfor -%}
    {%- set market = ['account_id', 'marketplace_id', 'query_digest', 'period_start'] -%}

    {#- Asked for twice and written out twice: kept, so many rows would go to disk. -#}
    {%- set weeks_in_scope -%}
        select
            all_weeks.account_id,
            all_weeks.marketplace_id,
            all_weeks.asin,
            all_weeks.query_digest,
            {{ first_day_of_period(period, 'all_weeks.period_start') }} as period_start,
            all_weeks.period_start as week_start,
            all_weeks.query,
            all_weeks.search_query_score,
            all_weeks.search_query_volume,
            {{ prefixed(totals, 'all_weeks') }},
            all_weeks.total_impressions,
            all_weeks.total_clicks,
            all_weeks.cart_adds,
            all_weeks.total_purchases,
            {%- for stage in stages %}
            all_weeks.total_median_{{ stage }}_price,
            all_weeks.asin_median_{{ stage }}_price,
            {%- endfor %}
            all_weeks.currency_code
        from (select * from {{ weeks }}) as all_weeks
        {%- if in_scope %}
        where {{ in_scope }}
        {%- endif %}
    {%- endset %}

    with market_weeks as (
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
        from (
        {{ weeks_in_scope }}
        ) as weeks
        group by {{ market | join(', ') }}, week_start
    ),

    markets as (
        select
            {{ market | join(', ') }},
            {{ exact_sum('search_query_volume') }} as search_query_volume,
            {%- for total in totals %}
            {{ exact_sum(total) }} as {{ total }},
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
            {{ exact_sum('total_impressions') }} as own_impression_count,
            {{ exact_sum('total_clicks') }} as own_click_count,
            {{ exact_sum('cart_adds') }} as own_cart_add_count,
            {{ exact_sum('total_purchases') }} as own_purchase_count,
            {{ weighted_mean('asin_median_click_price', 'total_clicks') }} as own_median_click_price,
            {{ weighted_mean('asin_median_cart_add_price', 'cart_adds') }} as own_median_cart_add_price,
            {{ weighted_mean('asin_median_purchase_price', 'total_purchases') }} as own_median_purchase_price,
            {%- if period == 'quarter' %}
            {{ distinct_months('week_start') }} as active_months,
            {%- endif %}
            cast(count(*) as integer) as active_weeks
        from (
        {{ weeks_in_scope }}
        ) as weeks
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
