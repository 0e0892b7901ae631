select count(*) as events, max((record ->> 'n')::int) as newest from {{ Table("events") }}
