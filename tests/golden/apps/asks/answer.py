from patterns import Table, respond_to_request

answered = Table("answered", "w")
for row in Table("questions").as_stream():
    payload = {"double": row["record"]["n"] * 2, "when": row["timestamp"].isoformat()}
    respond_to_request(row["patterns_request_key"], payload)
    answered.append({"n": row["record"]["n"]})
