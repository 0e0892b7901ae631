from patterns import Table

Table("numbers", "w").replace([{"n": n} for n in range(12)])
