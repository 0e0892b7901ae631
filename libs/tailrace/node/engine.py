"""What `table._get_db_api()` gives: a SQLAlchemy engine over the tables that the run can read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tailrace.node.queries import register

if TYPE_CHECKING:
    from tailrace.node.session import Session

__all__ = ["DatabaseApi"]


class DatabaseApi:
    """The database of the app's tables, as SQLAlchemy sees it. It is read-only."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._engine: Any = None

    def get_engine(self) -> Any:
        """An engine: `engine.connect().execute(text(sql))`.

        It holds the tables that the run has ports for, under their physical names, with what the run has written so
        far.
        """
        from tailrace.sql import Database, engine

        database = Database()
        for table in self._session.ports.values():
            store = table._store
            view = store.view()
            if view is not None:
                register(database, view.name, store)
        self._engine = engine(database)
        return self._engine
