{% macro replace_rows(target, rebuilt, columns, key, not_compared, in_scope, rebuilt_sql=none) -%}
    {%- set compared = columns | reject('in', key + not_compared) | list -%}
    {%- set tells_little = ['account_id', 'marketplace_id', 'period_start'] -%}
    {%- set order = key | reject('in', tells_little) | list + key | select('in', tells_little) | list -%}
    {% if not rebuilt_sql -%}
    {#- Joins go by the key: what lies in the other columns costs time and tells nothing. -#}
    analyze {{ rebuilt }} ({{ key | join(', ') }});

    {% endif -%}
    with {% if rebuilt_sql -%}
    {{ rebuilt }} as materialized (
        {{ rebuilt_sql }}
    ),

    {% endif -%}
    gone as (
        delete from {{ target }} as held
        where {{ in_scope }}
            and not exists (
                select 1
                from {{ rebuilt }} as rebuilt
                where {{ columns_match(key, 'held', 'rebuilt') }}
                    and ({{ prefixed(compared, 'held') }})
                    is not distinct from ({{ prefixed(compared, 'rebuilt') }})
            )
        returning 1
    )

    {# Asking for what is gone first makes room in the unique index. -#}
    insert into {{ target }} ({{ columns | join(', ') }})
    select {{ prefixed(columns, 'rebuilt') }}
    from {{ rebuilt }} as rebuilt
    where (select count(*) from gone) >= 0
        and not exists (
            select 1
            from {{ target }} as held
            where {{ columns_match(key, 'held', 'rebuilt') }}
                and {{ in_scope }}
                and ({{ prefixed(compared, 'held') }})
                is not distinct from ({{ prefixed(compared, 'rebuilt') }})
        )
    {#- The order of each index within an account: sorted by what tells most first, it costs least. #}
    order by {{ prefixed(order, 'rebuilt') }};
{%- endmacro %}
