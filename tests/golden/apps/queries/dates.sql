with recent as (
    select * from {{ Table("facts") }} where at > '2021-05-06'::timestamp - interval '36 month'
)
select
    date_trunc('month', at) as month,
    count(distinct kind) filter (where id > 0) as kinds,
    to_timestamp(min(epoch)) as first,
    7 / 2 as int_div,
    round(cast(sum(price) as numeric), 2) as price,
    round(2.5::float) as half,
    cast('3' as float) as three,
    case when count(*) <> 6 then 'no' else 'yes' end as six,
    now() - interval '1 day' < now() as earlier
from recent
group by 1
