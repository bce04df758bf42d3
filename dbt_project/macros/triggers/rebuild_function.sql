{% macro rebuild_function(summary) -%}
    {%- set period = summary.config.meta.period -%}
    {%- set target_table = summary.schema ~ '.' ~ summary.alias -%}
    {%- set days = [{'first_day': 'rebuilt_period.first_day', 'last_day': 'rebuilt_period.last_day'}] -%}
    create or replace function sqp.rebuild_{{ summary.name }}()
    returns void
    language plpgsql
    set search_path = pg_catalog, pg_temp
    set enable_nestloop = off
    set enable_mergejoin = off
    set enable_sort = off
    set plan_cache_mode = force_custom_plan
    set work_mem = '{{ var("rebuild_work_mem") }}'
    as $function$
    declare
        rebuilt_period record;
    begin
        for rebuilt_period in
            select distinct
                {{ first_day_of_period(period, 'changes.period_start') }} as first_day,
                {{ last_day_of_period(period, 'changes.period_start') }} as last_day,
                changes.query_digest is null as is_whole
            from (
            {{ changes_of_this_transaction(summary.name) }}
            ) as changes
        loop
            perform app.create_monthly_partition('{{ target_table }}', rebuilt_period.first_day);
            {%- for whole in [true, false] %}
            {%- set changes = changes_of_this_transaction(summary.name, whole) %}
            {{ 'if rebuilt_period.is_whole then' if whole else 'else' }}
                {{ replace_rows(
                    target_table,
                    'rebuilt_rows',
                    columns=summary.columns.keys() | list,
                    key=summary.config.unique_key,
                    not_compared=summary.config.meta.not_compared,
                    in_scope=within_changes('held', period, changes, days, whole),
                    rebuilt_sql=sqp_period_summary(
                        period,
                        weeks=this.schema ~ '.' ~ this.identifier,
                        in_scope=within_changes('all_weeks', period, changes, days, whole),
                    ),
                ) }}
            {%- endfor %}
            end if;
        end loop;
        delete from {{ changed_queries_table() }}
        where model_name = '{{ summary.name }}' and noted_by = pg_current_xact_id();
    end;
    $function$;
    comment on function sqp.rebuild_{{ summary.name }}() is
        'Recomputes the rows of {{ target_table }} whose weeks this transaction changed.';
    revoke execute on function sqp.rebuild_{{ summary.name }}() from public;
{%- endmacro %}
