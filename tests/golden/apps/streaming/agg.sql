select "group" as id, count(*) from {{ Table("numbers") }} group by 1 order by 1 desc
