{% macro follow_the_weeks(once_made=false) -%}
    {%- if not execute or target.type != 'postgres' or once_made == is_incremental() -%}
        {{ return('') }}
    {%- endif -%}
    {%- for summary in period_summaries() -%}
        {{ rebuild_function(summary) }}
    {%- endfor %}

    create or replace function sqp.lock_aggregate_summaries()
    returns trigger
    language plpgsql
    set search_path = pg_catalog, pg_temp
    as $function$
    begin
        if current_setting('transaction_isolation') <> 'read committed' then
            raise exception '% is written in read committed transactions only', tg_table_name
                using errcode = '25001', hint = 'the months and quarters are computed from all weeks'
                    ' that are committed: begin the transaction with isolation level read committed';
        end if;
        {%- for summary in var('sqp_summaries') %}
        perform pg_advisory_xact_lock({{ summary_lock(summary) }});
        {%- endfor %}
        return null;
    end;
    $function$;
    comment on function sqp.lock_aggregate_summaries() is
        'Lets one transaction after the other write the weeks, so that each sees what the one before it committed.';

    create or replace function sqp.update_aggregate_summaries()
    returns trigger
    language plpgsql
    set search_path = pg_catalog, pg_temp
    set enable_nestloop = off
    set work_mem = '{{ var("rebuild_work_mem") }}'
    as $function$
    begin
        case tg_op
            when 'INSERT' then
                {{ note_changed_queries('select * from new_weeks') }};
            when 'DELETE' then
                {{ note_changed_queries('select * from old_weeks') }};
            when 'UPDATE' then
                {{ note_changed_queries(weeks_that_differ()) }};
            else
                {{ note_everything_changed() }}
        end case;
        if current_setting('warehouse.summaries_follow', true) is distinct from 'later' then
            {%- for summary in period_summaries() %}
            if to_regclass('{{ summary.schema }}.{{ summary.alias }}') is not null then
                perform sqp.rebuild_{{ summary.name }}();
            end if;
            {%- endfor %}
        end if;
        return null;
    end;
    $function$;
    comment on function sqp.update_aggregate_summaries() is
        'Takes what a statement changed in the weeks into their months and quarters, or, within a build by dbt, notes it for the models.';

    revoke execute on function
        sqp.lock_aggregate_summaries(), sqp.update_aggregate_summaries()
    from public;
{%- endmacro %}
