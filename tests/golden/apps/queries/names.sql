select count(*), sum(id), avg(id), max("day"), ceil(price), trunc(1.5), coalesce(kind, 'x'), date_trunc('month', day), id::text, 1 + 1, "Length (minutes)"
from {{ Table("facts") }} as n
where id = 4
group by price, kind, day, id, "Length (minutes)"
