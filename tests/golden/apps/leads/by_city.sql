-- Type '{{' to use Tables and Parameters
/* also here: {{ Nothing( }} {% if %} */
select
    city, -- the city
    count(*),
    sum(amount)::int as "total (all)",
    format('%s%%', round(100.0 * count(*) / 3)) as share,
    '-- {{ "not a comment" }}' as literal
from {{ Table("c") }}
group by 1
order by count(*) desc, city;
