"""The environment variables that hold the values of secrets and connections."""

from __future__ import annotations

from functools import lru_cache

__all__ = ["connection_variable", "secret_variable"]


@lru_cache(maxsize=1024)
def secret_variable(secret: str) -> str:
    """The variable of the secret `${{ secret }}`; asked for at each post that is signed."""
    return f"TAILRACE_SECRET_{secret.upper()}"


def connection_variable(connection: str) -> str:
    """The variable of `${{ connection.<name> }}`."""
    return f"TAILRACE_CONNECTION_{connection.upper().replace('-', '_')}"
