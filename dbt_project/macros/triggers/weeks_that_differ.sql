{% macro weeks_that_differ() -%}
    {%- set bookkeeping = config.meta_get('not_compared') -%}
    {%- set columns = model.columns.keys() | reject('in', bookkeeping) | join(', ') -%}
    (
                    select {{ columns }} from old_weeks
                    except all
                    select {{ columns }} from new_weeks
                )
                union all
                (
                    select {{ columns }} from new_weeks
                    except all
                    select {{ columns }} from old_weeks
                )
{%- endmacro %}
