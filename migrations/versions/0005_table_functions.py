"""What every table's upkeep shares: the register of declarations, partitions, retention, triggers.

Functions that must see all rows and own all tables run as `rls_definer`; what only reads the
catalogue, and what must stay under the caller's row security, runs as its caller.
"""

import importlib

from migrations.operations import run_as_owner, run_sql

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

REGISTER = """
create table app.table_policies (
    relation text primary key check (relation ~ '^[^.]+[.][^.]+$'),
    declaration jsonb not null check (jsonb_typeof(declaration) = 'object'),
    partition_key text,
    partition_unit text check (partition_unit in ('month', 'day')),
    partitions_behind integer check (partitions_behind between 0 and 1200),
    partitions_ahead integer check (partitions_ahead between 0 and 1200),
    retention_key text,
    retention_keep interval check (retention_keep > interval '0'),
    retention_when_column text,
    retention_when_values text[] check (cardinality(retention_when_values) > 0),
    retention_hold boolean not null default false,
    retention_hold_reason text check (retention_hold_reason <> ''),
    declared_at timestamptz not null default clock_timestamp(),
    constraint table_policies_partition_is_whole check (
        num_nonnulls(partition_key, partition_unit, partitions_behind, partitions_ahead) in (0, 4)
    ),
    constraint table_policies_retention_is_whole check (
        num_nonnulls(retention_key, retention_keep) in (0, 2)
    ),
    constraint table_policies_when_is_whole check (
        num_nonnulls(retention_when_column, retention_when_values) in (0, 2)
        and (retention_when_column is null or retention_key is not null)
    ),
    constraint table_policies_hold_says_why check (
        retention_hold = (retention_hold_reason is not null)
    )
);

create table app.retention_log (
    id bigint generated always as identity primary key,
    relation text not null check (relation <> ''),
    cutoff timestamptz not null,
    partitions_dropped text[] not null default '{}',
    rows_before bigint not null check (rows_before >= 0),
    rows_removed bigint not null check (rows_removed >= 0),
    rows_after bigint not null check (rows_after >= 0),
    applied_by text not null default session_user,
    applied_at timestamptz not null default clock_timestamp()
);
create index retention_log_relation on app.retention_log (relation, applied_at desc);
"""

CATALOGUE = """
create function app.table_named(p_table text)
returns regclass
language plpgsql
stable
strict
set search_path = pg_catalog, pg_temp
as $function$
declare
    served text[] := array['app', 'sqp', 'reporting', 'landing'];
    parts text[] := parse_ident(p_table);
    place text;
    found regclass;
begin
    if cardinality(parts) = 2 and parts[1] <> all (served) or cardinality(parts) > 2 then
        raise exception '% lies outside of the schemas %', p_table, array_to_string(served, ', ')
            using errcode = '42501';
    end if;
    foreach place in array case cardinality(parts) when 2 then parts[1:1] else served end loop
        found := to_regclass(format('%I.%I', place, parts[cardinality(parts)]));
        exit when found is not null;
    end loop;
    if found is null then
        raise exception 'there is no table %', p_table
            using errcode = '42P01',
            hint = 'looked for it in ' || array_to_string(served, ', ');
    end if;
    return found;
end;
$function$;
comment on function app.table_named(text) is
    'The table of that name; a name without schema is looked for in app, sqp, reporting, landing.';

create function app.partition_bounds(p_table regclass)
returns table (
    partition_table regclass,
    is_default boolean,
    lower_bound timestamptz,
    upper_bound timestamptz
)
language sql
stable
set search_path = pg_catalog, pg_temp
set timezone = 'UTC'
set datestyle = 'ISO, YMD'
as $function$
    select
        tables.oid::regclass,
        tables.oid = partitioned.partdefid,
        (regexp_match(bounds.expression, 'FROM \\(''([^'']+)''\\)'))[1]::timestamptz,
        (regexp_match(bounds.expression, 'TO \\(''([^'']+)''\\)'))[1]::timestamptz
    from pg_catalog.pg_partitioned_table as partitioned
    inner join pg_catalog.pg_inherits as children on partitioned.partrelid = children.inhparent
    inner join pg_catalog.pg_class as tables on children.inhrelid = tables.oid
    cross join lateral pg_get_expr(tables.relpartbound, tables.oid) as bounds (expression)
    where partitioned.partrelid = p_table
    order by tables.relname;
$function$;
comment on function app.partition_bounds(regclass) is
    'The partitions of a table that is partitioned by time, with their bounds in UTC: lower'
    ' inclusive, upper exclusive, NULL where there is none.';
"""

MAKING = """
create function app.make_partition(
    p_table regclass,
    p_unit text,
    p_date date,
    out partition_name text,
    out was_made boolean,
    out moved_rows bigint
)
language plpgsql
set search_path = pg_catalog, pg_temp
set timezone = 'UTC'
set datestyle = 'ISO, YMD'
as $function$
declare
    parent record;
    first_day date;
    next_first date;
    from_text text;
    to_text text;
    target text;
    columns text;
    silenced name[];
    trigger_name name;
begin
    select
        namespaces.nspname as schema_name,
        tables.relname as table_name,
        tables.relowner::regrole as owner,
        keys.attname as key_name,
        key_types.typname as key_type,
        nullif(partitioned.partdefid, 0)::regclass as default_partition
    into parent
    from pg_catalog.pg_class as tables
    inner join pg_catalog.pg_namespace as namespaces on tables.relnamespace = namespaces.oid
    inner join pg_catalog.pg_partitioned_table as partitioned
        on
            tables.oid = partitioned.partrelid
            and partitioned.partstrat = 'r'
            and partitioned.partnatts = 1
    inner join pg_catalog.pg_attribute as keys
        on tables.oid = keys.attrelid and partitioned.partattrs[0] = keys.attnum
    inner join pg_catalog.pg_type as key_types on keys.atttypid = key_types.oid
    where tables.oid = p_table;

    if parent.table_name is null or parent.key_type not in ('date', 'timestamp', 'timestamptz') then
        raise exception '% is not partitioned by range of one date or time', p_table
            using errcode = '42P17';
    end if;
    if parent.schema_name <> all (array['app', 'sqp', 'reporting', 'landing']) then
        raise exception '% lies outside of the schemas app, sqp, reporting, landing', p_table
            using errcode = '42501';
    end if;
    if p_unit is null or p_unit not in ('month', 'day') then
        raise exception 'partitions hold a month or a day, not %', coalesce(p_unit, 'NULL')
            using errcode = '22023';
    end if;
    if p_date is null or p_date not between date '0001-01-01' and date '9999-12-31' then
        raise exception 'no partition can be made for the date %', coalesce(p_date::text, 'NULL')
            using errcode = '22008';
    end if;

    first_day := date_trunc(p_unit, p_date::timestamp)::date;
    next_first := (first_day + ('1 ' || p_unit)::interval)::date;
    partition_name := parent.table_name || to_char(first_day, '"_"YYYY"_"MM');
    if p_unit = 'day' then
        partition_name := partition_name || to_char(first_day, '"_"DD');
    end if;
    if octet_length(partition_name) > 63 then
        raise exception 'partition name % is longer than 63 bytes', partition_name
            using errcode = '42622';
    end if;

    -- One maker of a table's partitions at a time; the lock goes with the transaction.
    perform pg_advisory_xact_lock(hashtextextended('partitions of ' || p_table::oid::text, 0));
    was_made := false;
    moved_rows := 0;
    select tables.relname
    into target
    from app.partition_bounds(p_table) as bounds
    inner join pg_catalog.pg_class as tables on bounds.partition_table = tables.oid
    where
        not bounds.is_default
        and coalesce(bounds.lower_bound <= first_day, true)
        and coalesce(bounds.upper_bound >= next_first, true);
    if found then
        partition_name := target;
        return;
    end if;
    target := format('%I.%I', parent.schema_name, partition_name);
    if to_regclass(target) is not null then
        raise exception '% exists and is not a partition of % for %',
            target, p_table, to_char(first_day, 'YYYY-MM-DD') using errcode = '42P07';
    end if;

    -- A bare date literal would mean midnight in the session's zone for a timestamptz key.
    from_text := to_char(first_day, 'YYYY-MM-DD')
        || case parent.key_type when 'timestamptz' then ' 00:00:00+00' else '' end;
    to_text := to_char(next_first, 'YYYY-MM-DD')
        || case parent.key_type when 'timestamptz' then ' 00:00:00+00' else '' end;
    execute format(
        'create table %s (like %s including defaults including constraints)', target, p_table
    );
    execute format('alter table %s owner to %s', target, parent.owner);
    execute format('alter table %s enable row level security, force row level security', target);

    if parent.default_partition is not null then
        -- A writer that waited for the default partition alone would be refused once the new
        -- partition is there; one that waits for the parent finds it.
        execute format('lock table only %s in share row exclusive mode', p_table);
        execute format('lock table only %s in access exclusive mode', parent.default_partition);
        select string_agg(quote_ident(attname), ', ' order by attnum)
        into columns
        from pg_catalog.pg_attribute
        where attrelid = p_table and attnum > 0 and not attisdropped;
        -- The rows stay rows of the table, so that no trigger is to see them go.
        silenced := array(
            select tgname
            from pg_catalog.pg_trigger
            where tgrelid = parent.default_partition and not tgisinternal and tgenabled = 'O'
        );
        foreach trigger_name in array silenced loop
            execute format(
                'alter table %s disable trigger %I', parent.default_partition, trigger_name
            );
        end loop;
        execute format(
            'with moved as ('
            '    delete from only %1$s where %2$I >= %3$L and %2$I < %4$L returning %5$s'
            ') insert into %6$s (%5$s) select %5$s from moved',
            parent.default_partition, parent.key_name, from_text, to_text, columns, target
        );
        get diagnostics moved_rows = row_count;
        foreach trigger_name in array silenced loop
            execute format(
                'alter table %s enable trigger %I', parent.default_partition, trigger_name
            );
        end loop;
    end if;

    execute format(
        'alter table %s attach partition %s for values from (%L) to (%L)',
        p_table, target, from_text, to_text
    );
    was_made := true;
end;
$function$;
comment on function app.make_partition(regclass, text, date) is
    'Makes sure that the table has a partition for the month or day (UTC) of the date. Rows of the'
    ' period that lie in the default partition move into it, in the same transaction.';

create function app.create_partition(p_table regclass, p_unit text, p_date date)
returns text
language sql
security definer
set search_path = pg_catalog, pg_temp
begin atomic
    select made.partition_name from app.make_partition(p_table, p_unit, p_date) as made;
end;
comment on function app.create_partition(regclass, text, date) is
    'Makes sure that the table has a partition for the month or day of the date, and returns its'
    ' name. Safe to repeat and safe for concurrent callers; bounds are in UTC.';

drop function app.create_monthly_partition(text, date);
create function app.create_monthly_partition(p_table text, p_date date)
returns text
language sql
security definer
set search_path = pg_catalog, pg_temp
begin atomic
    select min(
        app.create_partition(
            app.table_named(p_table),
            coalesce(units.unit, 'month'),
            date_trunc('month', p_date::timestamp)::date + days.number
        )
    )
    from (
        select (
            select policies.partition_unit
            from app.table_policies as policies
            inner join pg_catalog.pg_class as tables on tables.oid = app.table_named(p_table)
            inner join pg_catalog.pg_namespace as namespaces
                on tables.relnamespace = namespaces.oid
            where policies.relation = namespaces.nspname || '.' || tables.relname
        )
    ) as units (unit)
    cross join lateral generate_series(
        0,
        case
            when units.unit = 'day' and isfinite(p_date)
                then extract(
                    day from date_trunc('month', p_date::timestamp) + interval '1 month - 1 day'
                )::integer - 1
            else 0
        end
    ) as days (number);
end;
comment on function app.create_monthly_partition(text, date) is
    'Makes sure that the table has a partition for the month of the date, and returns its name.'
    ' Where the table''s declaration says days, it makes those of the month and returns the first'
    ' one''s name. Safe to repeat and safe for concurrent callers; bounds are months in UTC.';

create function app.create_daily_partition(p_table text, p_date date)
returns text
language sql
security definer
set search_path = pg_catalog, pg_temp
begin atomic
    select app.create_partition(app.table_named(p_table), 'day', p_date);
end;
comment on function app.create_daily_partition(text, date) is
    'Makes sure that the table has a partition for the day, and returns its name.'
    ' Safe to repeat and safe for concurrent callers; bounds are days in UTC.';

create function app.create_default_partition(p_table regclass)
returns text
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
    parent record;
    existing name;
    partition_name text;
    target text;
begin
    select
        namespaces.nspname as schema_name,
        tables.relname as table_name,
        tables.relowner::regrole as owner
    into parent
    from pg_catalog.pg_class as tables
    inner join pg_catalog.pg_namespace as namespaces on tables.relnamespace = namespaces.oid
    where tables.oid = p_table and tables.relkind = 'p';
    if parent.table_name is null then
        raise exception '% is not partitioned', p_table using errcode = '42P17';
    end if;
    if parent.schema_name <> all (array['app', 'sqp', 'reporting', 'landing']) then
        raise exception '% lies outside of the schemas app, sqp, reporting, landing', p_table
            using errcode = '42501';
    end if;
    partition_name := parent.table_name || '_default';
    if octet_length(partition_name) > 63 then
        raise exception 'partition name % is longer than 63 bytes', partition_name
            using errcode = '42622';
    end if;

    perform pg_advisory_xact_lock(hashtextextended('partitions of ' || p_table::oid::text, 0));
    select tables.relname
    into existing
    from pg_catalog.pg_partitioned_table as partitioned
    inner join pg_catalog.pg_class as tables on partitioned.partdefid = tables.oid
    where partitioned.partrelid = p_table;
    if found then
        return existing;
    end if;
    target := format('%I.%I', parent.schema_name, partition_name);
    if to_regclass(target) is not null then
        raise exception '% exists and is not a partition of %', target, p_table
            using errcode = '42P07';
    end if;
    execute format(
        'create table %s (like %s including defaults including constraints)', target, p_table
    );
    execute format('alter table %s owner to %s', target, parent.owner);
    execute format('alter table %s enable row level security, force row level security', target);
    execute format('alter table %s attach partition %s default', p_table, target);
    return partition_name;
end;
$function$;
comment on function app.create_default_partition(regclass) is
    'Makes sure that the table has a default partition, where rows of missing periods go until'
    ' ensure_partitions makes one for them; returns its name.';

create function app.ensure_partitions(p_table text default null)
returns table (relation text, made integer, moved_rows bigint)
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
set timezone = 'UTC'
set datestyle = 'ISO, YMD'
set lock_timeout = '10s'
as $function$
declare
    at_most constant integer := 400;
    policy app.table_policies;
    parent regclass;
    default_partition regclass;
    had_default boolean;
    step interval;
    current_first timestamp;
    kept_from timestamp;
    periods date[];
    period date;
    outcome record;
begin
    for policy in
        select *
        from app.table_policies as policies
        where
            policies.partition_key is not null
            and (p_table is null or to_regclass(policies.relation) = app.table_named(p_table))
        order by policies.relation
    loop
        parent := to_regclass(policy.relation);
        continue when parent is null;
        relation := policy.relation;
        made := 0;
        moved_rows := 0;
        had_default := exists (
            select from app.partition_bounds(parent) as bounds where bounds.is_default
        );
        if not had_default then
            perform app.create_default_partition(parent);
            made := 1;
        end if;
        select bounds.partition_table
        into default_partition
        from app.partition_bounds(parent) as bounds
        where bounds.is_default;

        step := ('1 ' || policy.partition_unit)::interval;
        current_first := date_trunc(policy.partition_unit, now()::timestamp);
        -- What retention would drop at once is not made.
        kept_from := case
            when policy.retention_key = policy.partition_key
                and policy.retention_when_column is null
                and not policy.retention_hold
                then now()::timestamp - policy.retention_keep
            else '-infinity'
        end;
        -- Rows whose time is infinite, or of no year that a name can have, stay where they are.
        execute format(
            $query$
            with wanted as (
                select generate_series($1 - $2 * $4, $1 + $3 * $4, $4) as first_day
            ),

            strays as (
                select distinct date_trunc(%1$L, %2$I::timestamp) as first_day
                from only %3$s
                where %2$I >= '0001-01-01' and %2$I < '10000-01-01'
            ),

            missing as (
                select first_day
                from (
                    select first_day from wanted where first_day + $4 > $5
                    union
                    select first_day from strays
                ) as needed
                where not exists (
                    select
                    from app.partition_bounds($6) as bounds
                    where
                        not bounds.is_default
                        and coalesce(bounds.lower_bound <= needed.first_day, true)
                        and coalesce(bounds.upper_bound >= needed.first_day + $4, true)
                )
                order by first_day desc
                limit $7
            )

            select array_agg(first_day::date order by first_day) from missing
            $query$,
            policy.partition_unit, policy.partition_key, default_partition
        )
        into periods
        using
            current_first, policy.partitions_behind, policy.partitions_ahead, step, kept_from,
            parent, at_most;
        foreach period in array coalesce(periods, '{}') loop
            select * into outcome from app.make_partition(parent, policy.partition_unit, period);
            made := made + outcome.was_made::integer;
            moved_rows := moved_rows + outcome.moved_rows;
        end loop;
        return next;
    end loop;
end;
$function$;
comment on function app.ensure_partitions(text) is
    'Makes the partitions that the declared horizon of a table, or of all, still lacks, and those'
    ' that rows in the default partition need; counts what it made and the rows it moved. At most'
    ' 400 partitions of a table in one call: a further call makes the rest.';

create function app.default_partition_rows()
returns table (relation text, rows bigint)
language plpgsql
stable
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
    found_table record;
begin
    for found_table in
        select
            format('%s.%s', namespaces.nspname, tables.relname) as relation,
            nullif(partitioned.partdefid, 0)::regclass as default_partition
        from pg_catalog.pg_partitioned_table as partitioned
        inner join pg_catalog.pg_class as tables on partitioned.partrelid = tables.oid
        inner join pg_catalog.pg_namespace as namespaces on tables.relnamespace = namespaces.oid
        where namespaces.nspname in ('app', 'sqp', 'reporting', 'landing')
        order by namespaces.nspname, tables.relname
    loop
        relation := found_table.relation;
        rows := 0;
        if found_table.default_partition is not null then
            execute format('select count(*) from %s', found_table.default_partition) into rows;
        end if;
        return next;
    end loop;
end;
$function$;
comment on function app.default_partition_rows() is
    'How many rows lie in the default partition of each partitioned table; none should.';
"""

RETENTION = """
create function app.apply_retention(
    p_dry_run boolean default true,
    p_as_of timestamptz default null,
    p_table text default null
)
returns table (
    relation text,
    cutoff timestamptz,
    held boolean,
    partitions_dropped text[],
    rows_before bigint,
    rows_removed bigint,
    rows_after bigint
)
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
set timezone = 'UTC'
set datestyle = 'ISO, YMD'
set lock_timeout = '5s'
as $function$
declare
    dry_run boolean := coalesce(p_dry_run, true);
    policy app.table_policies;
    target regclass;
    key_type text;
    by_partition boolean;
    condition text;
    partition_table regclass;
    counted bigint;
begin
    if not dry_run and p_as_of > clock_timestamp() then
        raise exception 'retention as of %, which has not come yet, would remove rows too early',
            p_as_of using errcode = '22023';
    end if;
    for policy in
        select *
        from app.table_policies as policies
        where
            policies.retention_key is not null
            and (p_table is null or to_regclass(policies.relation) = app.table_named(p_table))
        order by policies.relation
        for share
    loop
        target := to_regclass(policy.relation);
        continue when target is null;
        relation := policy.relation;
        cutoff := coalesce(p_as_of, now()) - policy.retention_keep;
        held := policy.retention_hold;
        partitions_dropped := '{}';
        rows_removed := 0;

        select
            key_types.typname,
            coalesce(partitioned.partattrs[0] = keys.attnum and partitioned.partnatts = 1, false)
            and policy.retention_when_column is null
        into key_type, by_partition
        from pg_catalog.pg_class as tables
        inner join pg_catalog.pg_attribute as keys
            on tables.oid = keys.attrelid and policy.retention_key = keys.attname
        inner join pg_catalog.pg_type as key_types on keys.atttypid = key_types.oid
        left join pg_catalog.pg_partitioned_table as partitioned
            on tables.oid = partitioned.partrelid
        where tables.oid = target;
        if key_type is null or key_type not in ('date', 'timestamp', 'timestamptz') then
            raise exception 'the retention of % needs a column of dates or times, not %',
                relation, policy.retention_key using errcode = '42703';
        end if;
        condition := format('%I < %L::%s', policy.retention_key, cutoff::timestamp, key_type);
        if policy.retention_when_column is not null then
            condition := condition || format(
                ' and %I::text = any (%L::text[])',
                policy.retention_when_column, policy.retention_when_values
            );
        end if;

        execute format('select count(*) from %s', target) into rows_before;
        if held then
            rows_after := rows_before;
            return next;
            continue;
        end if;

        if by_partition then
            if not dry_run and exists (
                select
                from app.partition_bounds(target) as bounds
                where bounds.upper_bound <= cutoff
            ) then
                -- What detaching needs anyway: a row that comes late is counted or kept.
                execute format('lock table only %s in access exclusive mode', target);
            end if;
            for partition_table in
                select bounds.partition_table
                from app.partition_bounds(target) as bounds
                where bounds.upper_bound <= cutoff
                order by bounds.upper_bound
            loop
                if not dry_run then
                    execute format('alter table %s detach partition %s', target, partition_table);
                end if;
                execute format('select count(*) from %s', partition_table) into counted;
                rows_removed := rows_removed + counted;
                partitions_dropped := partitions_dropped || (
                    select tables.relname::text
                    from pg_catalog.pg_class as tables
                    where tables.oid = partition_table
                );
                if not dry_run then
                    execute format('drop table %s', partition_table);
                end if;
            end loop;
            select bounds.partition_table
            into target
            from app.partition_bounds(target) as bounds
            where bounds.is_default;
        end if;

        if target is not null then
            if dry_run then
                execute format('select count(*) from %s where %s', target, condition) into counted;
            else
                execute format('delete from %s where %s', target, condition);
                get diagnostics counted = row_count;
            end if;
            rows_removed := rows_removed + counted;
        end if;

        if dry_run then
            rows_after := rows_before - rows_removed;
        else
            execute format('select count(*) from %s', to_regclass(policy.relation)) into rows_after;
            insert into app.retention_log (
                relation, cutoff, partitions_dropped, rows_before, rows_removed, rows_after
            )
            values (
                policy.relation, apply_retention.cutoff, apply_retention.partitions_dropped,
                apply_retention.rows_before, apply_retention.rows_removed,
                apply_retention.rows_after
            );
        end if;
        return next;
    end loop;
end;
$function$;
comment on function app.apply_retention(boolean, timestamptz, text) is
    'Removes what is older than its table''s declared retention: whole partitions where the'
    ' retention key is the partition key, rows elsewhere; tables on hold are left alone. A dry'
    ' run, which is the default, only counts.';

create function app.hold_retention(p_table text, p_reason text)
returns text
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
    held text;
begin
    update app.table_policies
    set
        retention_hold = p_reason is not null,
        retention_hold_reason = p_reason
    where
        to_regclass(relation) = app.table_named(p_table)
        and retention_key is not null
    returning relation into held;
    if held is null then
        raise exception 'no retention is declared for %', p_table using errcode = '22023';
    end if;
    return held;
end;
$function$;
comment on function app.hold_retention(text, text) is
    'Holds the retention of a table for a reason, or releases it where the reason is NULL;'
    ' returns the table''s name. A retention that is at work ends first.';
"""

TRIGGERS = """
create function app.update_updated_at_column()
returns trigger
language plpgsql
set search_path = pg_catalog, pg_temp
as $function$
begin
    new.updated_at := clock_timestamp();
    return new;
end;
$function$;
comment on function app.update_updated_at_column() is
    'Trigger, before update: stamps updated_at. The trigger''s WHEN says that the row differs.';

create function app.fill_owner_from_parent()
returns trigger
language plpgsql
set search_path = pg_catalog, pg_temp
as $function$
declare
    owner_column text := tg_argv[0];
    key_column text := tg_argv[1];
    parent regclass := tg_argv[2]::regclass;
    owner uuid;
begin
    if to_jsonb(new) ->> owner_column is not null then
        return new;
    end if;
    execute format(
        'select parents.user_id from %s as parents where parents.id = ($1).%I', parent, key_column
    )
    into owner
    using new;
    if owner is null then
        raise exception 'there is no row of % with the id that %.% names',
            parent, tg_table_name, key_column using errcode = '23503';
    end if;
    return jsonb_populate_record(new, jsonb_build_object(owner_column, owner));
end;
$function$;
comment on function app.fill_owner_from_parent() is
    'Trigger, before insert (owner column, key column, parent table): where the row names no owner,'
    ' it has its parent''s. Runs as its caller, who cannot name a parent that row security hides.';

create function app.request_origin(out ip_address inet, out user_agent text)
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $function$
declare
    header_text text := nullif(current_setting('request.headers', true), '');
    headers jsonb;
begin
    ip_address := inet_client_addr();
    user_agent := nullif(current_setting('application_name', true), '');
    if header_text is null then
        return;
    end if;
    begin
        headers := header_text::jsonb;
        user_agent := coalesce(left(headers ->> 'user-agent', 1000), user_agent);
        ip_address := coalesce(
            nullif(trim(split_part(headers ->> 'x-forwarded-for', ',', 1)), '')::inet, ip_address
        );
    exception
        when others then
            return;
    end;
end;
$function$;
comment on function app.request_origin() is
    'Where the current request comes from: its headers, else the connection. Never fails.';

create function app.write_audit_log()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
    owner_column text := tg_argv[0];
    key_columns text[] := string_to_array(tg_argv[1], ',');
    secret_columns text[] := string_to_array(coalesce(tg_argv[2], ''), ',');
    passed_over text[] := string_to_array(coalesce(tg_argv[3], ''), ',') || 'updated_at'::text;
    before jsonb;
    after jsonb;
    changed text[];
    old_values jsonb;
    new_values jsonb;
    row_owner uuid;
    acting_user uuid;
    acting_role text := nullif(current_setting('role'), 'none');
    origin record;
begin
    if tg_op <> 'INSERT' then
        before := to_jsonb(old);
    end if;
    if tg_op <> 'DELETE' then
        after := to_jsonb(new);
    end if;
    changed := array(
        select columns.name
        from jsonb_object_keys(coalesce(after, before)) as columns (name)
        where
            before is null
            or after is null
            or before -> columns.name <> after -> columns.name
            and (columns.name <> all (passed_over) or columns.name = 'updated_at')
    );
    if changed <@ array['updated_at'] then
        return null;
    end if;

    select
        jsonb_object_agg(
            columns.name,
            case
                when columns.name = any (secret_columns) and before ->> columns.name is not null
                    then to_jsonb('***'::text)
                else before -> columns.name
            end
        ) filter (where before is not null),
        jsonb_object_agg(
            columns.name,
            case
                when columns.name <> all (secret_columns) or after ->> columns.name is null
                    then after -> columns.name
                when tg_op = 'UPDATE' then to_jsonb('*** (changed)'::text)
                else to_jsonb('***'::text)
            end
        ) filter (where after is not null)
    into old_values, new_values
    from unnest(changed) as columns (name);

    -- A user who is being deleted cannot be referred to any more.
    select users.id
    into row_owner
    from app.users
    where users.id = (coalesce(after, before) ->> owner_column)::uuid;
    select users.id into acting_user from app.users where users.id = auth.uid();
    select * into origin from app.request_origin();

    insert into app.audit_logs (
        owner_user_id, user_id, actor, entity_type, entity_id, action, old_values, new_values,
        ip_address, user_agent
    )
    values (
        row_owner,
        acting_user,
        session_user || coalesce(' as ' || nullif(acting_role, session_user), ''),
        tg_table_name,
        array_to_string(
            array(
                select coalesce(after, before) ->> keys.name
                from unnest(key_columns) with ordinality as keys (name, position)
                order by keys.position
            ),
            ','
        ),
        (case tg_op when 'INSERT' then 'create' when 'UPDATE' then 'update' else 'delete' end)
        ::app.audit_action,
        old_values,
        new_values,
        origin.ip_address,
        origin.user_agent
    );
    return null;
end;
$function$;
comment on function app.write_audit_log() is
    'Trigger, after each row (owner column, key columns, secret columns, columns whose updates are'
    ' not of interest; lists with commas): writes to app.audit_logs who changed what, from where.'
    ' Secrets appear as ***.';

create function app.refuse_change()
returns trigger
language plpgsql
set search_path = pg_catalog, pg_temp
as $function$
begin
    if not pg_has_role(current_user, 'app_owner', 'member') then
        raise exception '%.% is append-only: % is refused', tg_table_schema, tg_table_name, tg_op
            using errcode = '42501';
    end if;
    if tg_op = 'UPDATE' then
        return new;
    end if;
    return old;
end;
$function$;
comment on function app.refuse_change() is
    'Trigger, before update, delete or truncate: refuses the change of a table that only grows.'
    ' Its owner passes: foreign keys that set NULL, and retention.';
"""

UPGRADE = REGISTER + CATALOGUE + MAKING + RETENTION + TRIGGERS

KEEPERS = (
    "app.create_partition(regclass, text, date)",
    "app.create_monthly_partition(text, date)",
    "app.create_daily_partition(text, date)",
    "app.create_default_partition(regclass)",
    "app.ensure_partitions(text)",
    "app.default_partition_rows()",
)
"""Functions for whoever loads or builds."""

REMOVERS = (
    "app.apply_retention(boolean, timestamptz, text)",
    "app.hold_retention(text, text)",
)
"""Functions for the upkeep alone."""

TRIGGER_FUNCTIONS = ("app.write_audit_log()",)

RIGHTS = "revoke execute on all functions in schema app from public;\n" + "".join(
    f"alter function {function} owner to rls_definer;\n"
    f"grant execute on function {function} to {grantees};\n"
    for functions, grantees in (
        (KEEPERS, "app_owner, etl, dbt"),
        (REMOVERS, "etl"),
        (TRIGGER_FUNCTIONS, "app_owner"),
    )
    for function in functions
)

FORMER_CREATE = importlib.import_module("migrations.versions.0001_foundations").UPGRADE
FORMER_CREATE = FORMER_CREATE[FORMER_CREATE.index("create function app.create_monthly_partition") :]

DOWNGRADE = f"""
drop function app.refuse_change();
drop function app.write_audit_log();
drop function app.request_origin();
drop function app.fill_owner_from_parent();
drop function app.update_updated_at_column();
drop function app.hold_retention(text, text);
drop function app.apply_retention(boolean, timestamptz, text);
drop function app.default_partition_rows();
drop function app.ensure_partitions(text);
drop function app.create_default_partition(regclass);
drop function app.create_daily_partition(text, date);
drop function app.create_monthly_partition(text, date);
drop function app.create_partition(regclass, text, date);
drop function app.make_partition(regclass, text, date);
drop function app.partition_bounds(regclass);
drop function app.table_named(text);
drop table app.retention_log;
drop table app.table_policies;

{FORMER_CREATE}
alter function app.create_monthly_partition(text, date) owner to app_owner;
revoke execute on function app.create_monthly_partition(text, date) from public;
grant execute on function app.create_monthly_partition(text, date) to etl, dbt;
"""


def upgrade() -> None:
    run_as_owner(UPGRADE)
    run_sql(RIGHTS)


def downgrade() -> None:
    run_as_owner(DOWNGRADE)
