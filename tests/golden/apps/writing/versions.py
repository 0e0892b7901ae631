from patterns import Table, TableVersion

manual = Table("manual", "w")
manual.reset()
version = manual.get_active_version()
assert version.schema is None and not version.exists
manual.append({"n": 1})
manual.flush()
first = manual.get_active_version()
assert isinstance(first, TableVersion) and first.name.startswith("manual_"), first
second = manual.create_new_version()
manual.append({"n": 2})
manual.set_active_version(second)
manual.flush()
assert [row["n"] for row in manual.read()] == [2], manual.read()
assert manual.get_active_version().name == second.name != first.name
assert second.name > first.name, "names grow with time"
manual.set_active_version(first)
manual.flush()
assert [row["n"] for row in manual.read()] == [1], manual.read()
manual.signal_create()
manual.signal_update()
manual.signal_reset()
