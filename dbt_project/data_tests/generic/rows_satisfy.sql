{% test rows_satisfy(model, condition) %}
select *
from {{ model }}
where not ({{ condition }})
{% endtest %}
