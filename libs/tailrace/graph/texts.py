"""Bytes and paths that come from outside, made safe: text without halves of characters, paths below a folder."""

from __future__ import annotations

import posixpath

from tailrace.graph.problems import Problem

__all__ = ["decode", "inside", "whole"]


def decode(data: bytes) -> str | Problem:
    """The text of a file, without byte order mark; a problem with its line where it is not UTF-8."""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        return Problem(
            line, f"Not UTF-8: byte 0x{data[error.start]:02x} at position {error.start}", hint="save the file as UTF-8"
        )


def whole(text: str) -> str:
    """`text` with lone surrogates replaced by U+FFFD: it can be encoded, hashed and printed."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def inside(folder: str, path: str) -> str | None:
    """`path`, as written in a file of `folder`, from the root of all folders; None where it leaves that root.

    Both are POSIX; `folder` is "" for the root itself.
    """
    if not path or path.startswith("/") or "\\" in path or "\0" in path:
        return None
    joined = posixpath.normpath(posixpath.join(folder, path))
    return None if joined == ".." or joined.startswith(("../", "/")) or joined == "." else joined
