from patterns import Table

outgoing = Table("outgoing", "w")
for row in Table("between").as_stream():
    outgoing.append(row)
