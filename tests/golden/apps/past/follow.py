from patterns import Table

events = Table("events")
followed = Table("followed", "w")

for event in events.as_stream():
    followed.append({"n": event["n"], "id": event["patterns_id"]})
