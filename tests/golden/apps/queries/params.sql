select
    {{ Parameter("name") }} as name,
    {{ Parameter("day", type=date) }} as day,
    {{ Parameter("flag", type=bool, default=True) }} as flag,
    {{ Parameter("none", default=None) }} as none,
    {{ Parameter("it's", default="it's") }} as its,
    id
from {{ Table("facts") }}
order by id
limit {{ Parameter("top n", type=int) }}
