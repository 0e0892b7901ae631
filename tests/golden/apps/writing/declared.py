from datetime import datetime
from decimal import Decimal

from patterns import Table

invoices = Table("invoices", "w", schema="Invoice")
invoices.reset()
version = invoices.get_active_version()
assert version.schema is not None and version.schema.field_names()[0] == "seq", version
known = version.schema.field_names()
assert list(version.schema.unique_on) == ["invoice_no"]
invoices.upsert([{"seq": 1, "invoice_no": "a-1", "total": "10.50", "issued_at": "2021-01-01T00:00:00Z", "lines": [1]}])
invoices.upsert([{"seq": "2", "invoice_no": 7, "extra": "kept or dropped, never an error"}])
invoices.upsert([{"seq": 3, "invoice_no": "a-1", "total": 11}])
invoices.flush()
rows = {row["invoice_no"]: row for row in invoices.read()}
assert set(rows) == {"a-1", "7"}, rows
assert rows["a-1"]["seq"] == 3 and rows["a-1"]["total"] == Decimal("11")
assert rows["7"]["total"] is None
assert invoices.schema.name == "Invoice"
types = {field.name: str(field.field_type) for field in invoices.schema.fields}
assert types["total"] == "Decimal(precision=12, scale=2)", types
