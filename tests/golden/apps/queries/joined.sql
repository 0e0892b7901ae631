select a.id, b.place, c.n
from {{ Table("a") }} as a
left join {{ Table("b") }} b using (id)
full outer join (select count(*) as n from {{ Table("b") }}) c on 1 = 1
order by 1
