create table {{ Table("created", "w") }} as select kind, max(id) from {{ Table("facts") }} group by 1 order by 1;
