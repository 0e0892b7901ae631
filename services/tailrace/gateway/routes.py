"""A file of webhooks, for gateway processes that are to take posts without an app: followed while they run."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from tailrace.errors import RejectedError
from tailrace.gateway.route import WebhookRoute

if TYPE_CHECKING:
    from pydantic import TypeAdapter

__all__ = ["RoutesFile", "RoutesFileError", "write_routes"]


@cache
def _routes() -> TypeAdapter[dict[str, WebhookRoute]]:
    from pydantic import TypeAdapter  # 0.2 s of CPU time, which most gateways do without

    return TypeAdapter(dict[str, WebhookRoute])


class RoutesFileError(RejectedError):
    """The file of webhooks cannot be read."""

    def __init__(self, path: Path, why: str) -> None:
        self.path, self.why = path, why
        super().__init__(f"{path} is no file of webhooks: {why}; `write_routes` writes one")


def write_routes(path: Path, routes: Mapping[str, WebhookRoute]) -> None:
    """Put the routes there, at once for whoever reads. Only this user may: the ids are as good as passwords."""
    waiting = path.with_name(f"{path.name}.new")
    waiting.unlink(missing_ok=True)
    waiting.touch(mode=0o600)
    waiting.write_bytes(_routes().dump_json(dict(routes)))
    waiting.replace(path)


class RoutesFile:
    """Reads the file again when it was changed."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: tuple[int, int] | None = None

    def news(self) -> dict[str, WebhookRoute] | None:
        """The routes where the file is another than the last time, else None.

        Raises RoutesFileError.
        """
        from pydantic import ValidationError

        try:
            stat = self._path.stat()
            seen = (stat.st_mtime_ns, stat.st_ino)
            if seen == self._seen:
                return None
            routes = _routes().validate_json(self._path.read_bytes())
        except OSError as error:
            raise RoutesFileError(self._path, error.strerror or str(error)) from error
        except ValidationError as error:
            raise RoutesFileError(self._path, str(error.errors()[0]["msg"])) from error
        self._seen = seen
        return routes
