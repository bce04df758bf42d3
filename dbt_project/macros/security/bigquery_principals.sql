{% macro bigquery_principals() -%}
    {%- set named = {} -%}
    {%- for list, name in [('readers', 'BIGQUERY_READERS'), ('operators', 'BIGQUERY_OPERATORS')] -%}
        {%- set principals = [] -%}
        {%- for principal in env_var(name, '').split(',') | map('trim') | select -%}
            {%- if not modules.re.fullmatch("(user|group|serviceAccount|domain|principal|principalSet):[^'\"\\\\]+", principal) -%}
                {%- do exceptions.raise_compiler_error(
                    name ~ ' names ' ~ principal ~ ', which is no principal of Google: write for'
                    ~ ' example user:ann@example.com, group:… or domain:example.com'
                ) -%}
            {%- endif -%}
            {%- do principals.append("'" ~ principal ~ "'") -%}
        {%- endfor -%}
        {%- do named.update({list: principals}) -%}
    {%- endfor -%}
    {%- if named.readers and not named.operators -%}
        {%- do exceptions.raise_compiler_error(
            'BIGQUERY_READERS is set and BIGQUERY_OPERATORS is not: whom no policy names sees no row,'
            ~ ' dbt included. Name at least the account that dbt works as'
        ) -%}
    {%- endif -%}
    {{ return({'readers': named.readers | join(', '), 'operators': named.operators | join(', ')}) }}
{%- endmacro %}
