{% macro index_sync_tracking() -%}
    {%- if target.type == 'postgres' -%}
        create index if not exists idx_weekly_summary_sync
        on {{ this }} (last_synced_at, bigquery_sync_id)
    {%- endif -%}
{%- endmacro %}
