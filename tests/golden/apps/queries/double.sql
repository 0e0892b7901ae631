select count(*), count(id) from {{ Table("facts") }}
