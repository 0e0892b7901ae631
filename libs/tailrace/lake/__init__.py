"""The lake: Delta tables that hold the rows of table versions, so that the log need not keep them. The only user of
deltalake and obstore."""

from __future__ import annotations

__all__: list[str] = []
