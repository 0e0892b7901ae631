SELECT Id, row_number() over (partition by kind order by id desc) AS place
FROM {{ Table("facts") }} AS t
Order By id Desc
