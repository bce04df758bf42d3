with days as (
    {{ days_of_calendar(var('time_spine_start'), var('time_spine_end')) }}
),

final as (
    select
        date_day,
        {{ first_day_of_period('week', 'date_day') }} as sqp_week
    from days
)

select *
from final
