from patterns import Table

Table("minutes", "w").append({"n": 1})
