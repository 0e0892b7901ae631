"""An app's folder on disk: read below itself only."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tailrace.graph import load_app


def write(folder: Path, **files: bytes) -> Path:
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder


def test_a_folder_is_read_with_its_subfolders(tmp_path: Path) -> None:
    """Hidden files and what tools leave behind stay out; the folder names the app."""
    folder = write(
        tmp_path / "My_app",
        **{
            "graph.yml": b"functions: [{node_file: sub/a.py}]",
            "sub/a.py": b"",
            ".git/config": b"",
            "__pycache__/a.pyc": b"",
            "sub/image.png": b"\xff",
        },
    )
    app = load_app(folder)
    assert (app.title, app.slug, app.errors) == ("My_app", "my-app", ())
    assert set(app.files) == {"graph.yml", "sub/a.py", "sub/image.png"}


def test_links_that_leave_the_folder_are_refused(tmp_path: Path) -> None:
    """Those that stay inside are followed, in a ring too."""
    write(tmp_path / "out", **{"secret.py": b"x"})
    folder = write(tmp_path / "app", **{"graph.yml": b"", "sub/a.py": b"a"})
    (folder / "bad.py").symlink_to(tmp_path / "out" / "secret.py")
    (folder / "bad").symlink_to(tmp_path / "out")
    (folder / "good.py").symlink_to("sub/a.py")
    (folder / "sub" / "ring").symlink_to(folder)
    (folder / "broken").symlink_to("gone")
    app = load_app(folder)
    assert set(app.files) == {"graph.yml", "sub/a.py", "good.py"}
    assert [(error.file, error.message) for error in app.errors] == [
        ("bad", "Symbolic link leaves the app's folder"),
        ("bad.py", "Symbolic link leaves the app's folder"),
        ("broken", "File cannot be read: No such file or directory"),
    ]


def test_pipes_and_oversized_files_are_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tailrace.graph.load.FILE_BYTES_MAX", 10)
    folder = write(tmp_path, **{"graph.yml": b"", "large": b"x" * 11})
    os.mkfifo(folder / "pipe")
    app = load_app(folder)
    assert set(app.files) == {"graph.yml"} and app.ok
    assert [(error.file, error.severity) for error in app.errors] == [("large", "warning")]


def test_a_folder_with_too_much_in_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tailrace.graph.load.FILES_MAX", 2)
    app = load_app(write(tmp_path, **{"a": b"", "b": b"", "c": b"", "graph.yml": b""}))
    assert any("more than 2 files" in error.message for error in app.errors)


def test_no_such_folder(tmp_path: Path) -> None:
    app = load_app(tmp_path / "gone")
    assert app.errors[0].message.startswith("No such folder: ")  # the first is what `up` tells


def test_a_name_that_is_not_utf8(tmp_path: Path) -> None:
    write(tmp_path, **{"graph.yml": b""})
    (tmp_path / os.fsdecode(b"a\xff.py")).write_bytes(b"")
    app = load_app(tmp_path)
    assert [error.message for error in app.errors] == ["File name is not UTF-8"]
