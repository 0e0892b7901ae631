"""What an unconnected port gives: everything works on it and nothing happens."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

__all__ = ["Unconnected"]


class Unconnected:
    """Callable, iterable and empty, falsy; any attribute of it is another one. Its text is empty."""

    def __call__(self, *args: object, **kwargs: object) -> Unconnected:
        return self

    def __getattr__(self, name: str) -> Unconnected:
        if name.startswith("__") and name.endswith("__"):
            raise AttributeError(name)  # copy, pickle and numpy ask for such, and must hear no
        return self

    def __getitem__(self, key: object) -> Unconnected:
        return self

    def __iter__(self) -> Iterator[Any]:
        return iter(())

    def __enter__(self) -> Unconnected:
        return self

    def __exit__(self, *exc: object) -> None:
        return None

    def __len__(self) -> int:
        return 0

    def __bool__(self) -> bool:
        return False

    def __contains__(self, item: object) -> bool:
        return False

    def __str__(self) -> str:
        return ""

    def __repr__(self) -> str:
        return "<unconnected>"
