insert into {{ Table("summed", mode="w") }}
select kind, count(*) as n, sum("Length (minutes)") as minutes from {{ Table("facts") }} group by kind order by kind
