from patterns import Table

Table("hands", "w").append({"rows": len(Table("roots").read())})
