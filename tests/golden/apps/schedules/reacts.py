from patterns import Table

Table("reactions", "w").append({"rows": len(Table("roots").read()), "hands": Table("hands").record_count or 0})
