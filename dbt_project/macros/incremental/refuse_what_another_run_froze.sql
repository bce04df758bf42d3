{% macro refuse_what_another_run_froze(relation_name) -%}
    lock table {{ relation_name }} in access share mode;
    do $do$
    begin
        if exists (select 1 from {{ relation_name }} where frozen_by <> '{{ invocation_id }}') then
            raise exception 'another dbt run is rebuilding the summaries at the same time'
                using errcode = '55006', hint = 'nothing was changed: run dbt again when it is done, with'
                    ' what the model is built from, such as --select +monthly_summary';
        end if;
    end;
    $do$;
{%- endmacro %}
