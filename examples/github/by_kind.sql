select
    kind
  , repository
  , count(*) as events
  , count(distinct actor) as actors
  , max(time) as latest
from {{ Table("events") }} as e
group by 1, 2
order by 1, 2
