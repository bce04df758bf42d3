{% macro summary_triggers() -%}
    {%- if not execute or target.type != 'postgres' -%}
        {{ return('') }}
    {%- endif -%}
    {%- set transitions = {
        'insert': 'new table as new_weeks',
        'update': 'old table as old_weeks new table as new_weeks',
        'delete': 'old table as old_weeks',
        'truncate': none,
    } -%}
    do $do$
    declare
        written regclass;
        followed constant boolean := exists (
            select
            from pg_trigger
            where
                tgrelid = '{{ this.schema }}.{{ this.identifier }}'::regclass
                and tgname = 'update_summaries_on_weekly_truncate'
        );
    begin
        for written in
            select tree.relid
            from pg_partition_tree('{{ this.schema }}.{{ this.identifier }}') as tree
            where not exists (
                select
                from pg_trigger
                where
                    pg_trigger.tgrelid = tree.relid
                    and pg_trigger.tgname = 'update_summaries_on_weekly_truncate'
            )
        loop
            execute format(
                'create trigger lock_summaries_before_weekly_write'
                ' before insert or update or delete or truncate on %s'
                ' for each statement execute function sqp.lock_aggregate_summaries()',
                written
            );
            {%- for event, tables in transitions.items() %}
            execute format(
                'create trigger update_summaries_on_weekly_{{ event }} after {{ event }} on %s'
                {%- if tables %}
                ' referencing {{ tables }}'
                {%- endif %}
                ' for each statement execute function sqp.update_aggregate_summaries()',
                written
            );
            {%- endfor %}
        end loop;
        if not followed then
        {{ note_everything_changed() }}
        end if;
    end;
    $do$;
{%- endmacro %}
