{% test ratios_are_derived(model, ratios) %}
select *
from {{ model }}
where
    {%- for column, parts in ratios.items() %}
    {{ column }} is distinct from {{ ratio(parts[0], parts[1]) }}
    {%- if not loop.last %} or {% endif %}
    {%- endfor %}
{% endtest %}
