from patterns import Table

Table("roots", "w").append([{"n": n} for n in range(3)])
