"""A table that was never written, and ports without a store."""

import pandas as pd

from patterns import Table

never = Table("never")
assert never.is_connected and not never.exists and never.has_active_version() is False
assert never.schema is None and never.record_count is None and never.sql_name is None
assert never.get_active_version() is None
assert never.read() == []
frame = never.read_dataframe()
assert isinstance(frame, pd.DataFrame) and frame.empty
assert list(never.as_stream().consume_records()) == [] and list(never.as_stream()) == []

lost = Table("lost_in_space", required=False)
nowhere = Table("nowhere", "w")
for port in (lost, nowhere):
    assert port.is_connected is False
    assert not port.read() and not list(port.as_stream())
    assert not port.exists and not port.record_count
for _ in lost.read():
    raise AssertionError("nothing to read")
nowhere.init(unique_on="id")
nowhere.append({"a": 1})
nowhere.upsert([{"a": 1}])
nowhere.replace([{"a": 1}])
nowhere.write([{"a": 1}], replace=True)
nowhere.reset()
nowhere.truncate()
nowhere.flush()
dummy = nowhere.get_active_version()
assert not dummy
assert not lost.schema
assert not lost.read_sql("select 1 from {{ lost_in_space }}")
with lost.as_stream().consume_with_rollback() as rows:
    assert list(rows) == []
