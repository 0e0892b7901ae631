select * from {{ Table("never") }}
