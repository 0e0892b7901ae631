"""Errors of the lake, and what the libraries below it raise as one of them.

A lake that cannot be reached, or written to, is expected to come back: call again. What lies there and cannot be right
is a person's business: the text names the table, the file and the ways out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from tailrace.errors import RejectedError, RetriableError

__all__ = ["LakeConflictError", "LakeDamagedError", "LakeUnavailableError", "LakeUrlError", "lake_errors"]

_OUTSIDE = re.compile(
    r"os error|permission denied|no space left|read-only|generic (s3|gcs|azure|\w*filesystem|http) |timed? ?out|"
    r"connection|dns|unauthori[sz]ed|forbidden|access ?denied|credential|\b(403|408|429|5\d\d)\b|throttl|slow ?down",
    re.IGNORECASE,
)
"""What the texts of Delta's errors say where the cause lies outside of the table."""

_WAYS_OUT = (
    (
        re.compile(r"no space left|quota|storage ?full", re.IGNORECASE),
        "the lake's disk is full, so free some space there",
    ),
    (
        re.compile(r"permission denied|read-only", re.IGNORECASE),
        "give the snapshotter's user the right to read and write there",
    ),
    (
        re.compile(r"forbidden|access ?denied|\b40[13]\b|unauthori[sz]ed|privileges", re.IGNORECASE),
        "look at the credentials and at what they allow",
    ),
)
"""What to do, by what the cause says of itself."""

_COLOUR = re.compile("\x1b\\[[0-9;]*m")
_REASON_CHARS_MAX = 600


class LakeUrlError(RejectedError):
    """A lake's URL cannot be understood."""

    def __init__(self, url: str, rule: str) -> None:
        self.url, self.rule = url, rule
        super().__init__(
            f"lake {url!r}: {rule}; a folder, or s3://bucket/prefix, gs://bucket/prefix, az://container/prefix"
        )


class LakeUnavailableError(RetriableError):
    """The lake cannot be reached, read or written at the moment."""

    def __init__(self, table: str, file: str, reason: str) -> None:
        self.table, self.file, self.reason = table, file, reason
        way_out = next(
            (way_out for cause, way_out in _WAYS_OUT if cause.search(reason)), "look at network and credentials"
        )
        super().__init__(f"lake table {table}: {file}: {reason}; nothing is lost, and it is tried again: {way_out}")


class LakeConflictError(RetriableError):
    """Another snapshotter committed to the same Delta table first."""

    def __init__(self, table: str, reason: str) -> None:
        self.table, self.reason = table, reason
        super().__init__(f"lake table {table}: {reason}; open it again and look what is left to do")


class LakeDamagedError(RejectedError):
    """A Delta table, or a file of it, is not as we left it."""

    def __init__(self, table: str, file: str, reason: str, way_out: str = "") -> None:
        self.table, self.file, self.reason = table, file, reason
        way_out = way_out or (
            "bring the file back from a copy, or move the table's folder away: the rows that the log still has are then "
            "written anew"
        )
        super().__init__(f"lake table {table}: {file}: {reason}; {way_out}")


@contextmanager
def lake_errors(table: str, file: str = "_delta_log") -> Iterator[None]:
    """What deltalake, obstore, pyarrow and the system raise inside, as errors of ours that name `table` and `file`."""
    import pyarrow as pa
    from deltalake.exceptions import CommitFailedError, DeltaError
    from obstore.exceptions import BaseError, NotFoundError

    try:
        yield
    except (FileNotFoundError, NotFoundError) as error:
        raise LakeDamagedError(table, file, f"is missing ({_short(error)})") from error
    except (OSError, BaseError) as error:
        if _OUTSIDE.search(str(error)) or not _is_parquet_complaint(error):
            raise LakeUnavailableError(table, file, _short(error)) from error
        raise LakeDamagedError(table, file, _short(error)) from error
    except CommitFailedError as error:
        if _OUTSIDE.search(str(error)):
            raise LakeUnavailableError(table, file, _short(error)) from error
        raise LakeConflictError(table, _short(error)) from error
    except DeltaError as error:
        if _OUTSIDE.search(str(error)):
            raise LakeUnavailableError(table, file, _short(error)) from error
        raise LakeDamagedError(table, file, _short(error)) from error
    except pa.ArrowException as error:
        raise LakeDamagedError(table, file, f"cannot be read ({_short(error)})") from error


def _short(error: Exception) -> str:
    """What an error says on one line, without colours, and without what a store echoes of the request."""
    text = " ".join(_COLOUR.sub("", str(error)).split()).partition("<StringToSign>")[0]
    return text if len(text) <= _REASON_CHARS_MAX else f"{text[: _REASON_CHARS_MAX - 1]}…"


def _is_parquet_complaint(error: Exception) -> bool:
    """pyarrow says OSError both for a disk that fails and for bytes that make no sense."""
    return type(error) is OSError and error.errno is None
