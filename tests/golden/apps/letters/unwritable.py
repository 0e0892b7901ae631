from patterns import Table

Table("good", "w").append("a text is no record")
