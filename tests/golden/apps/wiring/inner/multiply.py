from patterns import Parameter, Table

incoming, between = Table("incoming"), Table("between", "w")
factor = Parameter("factor", type=int, default=1)
for row in incoming.as_stream():
    between.append({"n": row["record"]["n"] * factor, "factor": factor})
