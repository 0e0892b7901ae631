select id, doc, doc::json -> 'k' ->> 0 as first from {{ Table("facts") }} order by id
