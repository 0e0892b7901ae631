select
    index % 10 as bucket
  , avg(random) as average
from {{ Table("random_data") }} as t
group by 1
