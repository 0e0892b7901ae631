"""What ends a command, and with which exit status.

0    done
1    what was asked for failed: `check` found errors, a query is wrong, a port is in use; `replay` found differences
2    the command was given wrongly, or `replay` could not run the run again
3    what it has to reach is not there: a running `up`, the log, a Kafka broker
130  interrupted (Ctrl-C); `up` that was told to stop ends with 0
"""

from __future__ import annotations

from pathlib import Path

from tailrace.errors import RejectedError, RetriableError, SettingError, TailraceError

__all__ = [
    "EXIT_DIFFERS",
    "EXIT_FAILED",
    "EXIT_INTERRUPTED",
    "EXIT_OK",
    "EXIT_UNREACHABLE",
    "EXIT_USAGE",
    "AnswerError",
    "BrokenOffError",
    "ExistsError",
    "FileReadError",
    "FileWriteError",
    "NotUpError",
    "ReplayError",
    "UsageError",
    "exit_status",
]

EXIT_OK = 0
EXIT_FAILED = 1
EXIT_DIFFERS = 1
EXIT_USAGE = 2
EXIT_UNREACHABLE = 3
EXIT_INTERRUPTED = 130


class UsageError(RejectedError):
    """A command was given wrongly."""

    def __init__(self, what: str, hint: str = "") -> None:
        self.what, self.hint = what, hint
        super().__init__(what)


class NotUpError(RetriableError):
    """No `tailrace up` answers for this folder."""

    def __init__(self, where: str, hint: str = "") -> None:
        self.where = where
        self.hint = hint or "start one with `tailrace up APP`, or name its data folder with --data"
        super().__init__(f"no running `tailrace up` {where}")


class BrokenOffError(RetriableError):
    """A running `up` began to answer, and then did not go on."""

    def __init__(self, url: str, cause: str) -> None:
        self.url, self.cause = url, cause
        self.hint = "if `up` still runs, its own output tells why"
        super().__init__(f"the answer of `up` at {url} broke off: {cause}")


class AnswerError(RejectedError):
    """A running `up` says that it cannot do what was asked for."""

    def __init__(self, status: int, detail: str) -> None:
        self.status, self.detail = status, detail
        super().__init__(detail)


class ExistsError(RejectedError):
    """A file or folder that a command was to make is there already; it was not touched."""

    def __init__(self, path: Path, hint: str) -> None:
        self.path, self.hint = path, hint
        super().__init__(f"{path} exists already; it was not touched")


class FileReadError(RejectedError):
    """A file that a command was given could not be read."""

    def __init__(self, path: Path, cause: str) -> None:
        self.path, self.cause = path, cause
        super().__init__(f"{path} cannot be read: {cause}")


class ReplayError(RejectedError):
    """A run could not be run again. Not the same as rows that differ, so it has a status of its own."""

    def __init__(self, run: str, cause: str) -> None:
        self.run, self.cause = run, cause
        self.hint = "`tailrace runs` lists the newest runs"
        super().__init__(cause)


class FileWriteError(RejectedError):
    """A file could not be written, or a folder not made."""

    def __init__(self, path: Path, cause: str, hint: str = "") -> None:
        self.path, self.cause, self.hint = path, cause, hint
        super().__init__(f"{path} cannot be written: {cause}")


def exit_status(error: TailraceError) -> int:
    """The exit status that tells of `error`."""
    from tailrace.log import LogUnavailableError, LogUrlError

    match error:
        case NotUpError() | BrokenOffError() | LogUnavailableError():
            return EXIT_UNREACHABLE
        case AnswerError(status=status):
            return EXIT_UNREACHABLE if status == 503 else EXIT_FAILED
        case UsageError() | SettingError() | LogUrlError() | FileReadError() | ReplayError():
            return EXIT_USAGE
    return EXIT_FAILED
