"""Enters the context, but loops over the stream itself: an error goes back to the start of the execution."""

from patterns import State, Table

rounds = Table("rounds", "w")
stream = Table("numbers").as_stream()
state = State()
with stream.consume_with_rollback() as records:
    for record in stream:
        rounds.append({"n": record["n"]})
        if record["n"] == 5:
            raise TimeoutError("on purpose")
