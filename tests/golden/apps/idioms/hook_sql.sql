select
    record ->> 'kind' as kind,
    count(*),
    sum((record ->> 'amount')::numeric) as total,
    max((record -> 'nested' ->> 'n')::int) as n,
    min("timestamp") <= max("timestamp") as ordered
from {{ Table("hooks") }} as h
where record ->> 'kind' is not null
group by 1
order by 1
