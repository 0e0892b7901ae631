"""The files of an app's folder: the only place of this package that touches a disk."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from tailrace.graph.build import build_app
from tailrace.graph.expand import ResolveComponent
from tailrace.graph.model import App
from tailrace.graph.problems import Problems
from tailrace.graph.texts import whole

__all__ = ["load_app"]

FILE_BYTES_MAX = 16 << 20
"""Largest file that is carried. What is larger is data, which belongs into a Table."""
FOLDER_BYTES_MAX = 128 << 20
"""Most that one app's files may take: they are held in memory and sent as a whole."""
FILES_MAX = 10_000
"""Most files of one app; a folder with more is somebody's home, named by mistake."""

_SKIPPED = frozenset({"__pycache__", "node_modules", "venv"})


def load_app(folder: Path, root_yaml: str = "graph.yml", resolve_component: ResolveComponent | None = None) -> App:
    """The app in `folder`; all that is wrong with it, unreadable files too, is in `App.errors`.

    Hidden files and folders and those that tools fill (`__pycache__`, `node_modules`, `venv`) are not read. Symbolic
    links are followed as long as they stay inside `folder`; others are errors.
    """
    problems = Problems()
    files: dict[str, bytes] = {}
    folder_bytes = 0
    root = Path(os.path.realpath(folder))
    if not root.is_dir():
        problems.add(".", 1, f"No such folder: {whole(str(folder))}")
    for path, place in _walk(root, problems):
        if len(files) >= FILES_MAX or folder_bytes > FOLDER_BYTES_MAX:
            limits = f"{FILES_MAX} files or {FOLDER_BYTES_MAX >> 20} MiB"
            problems.add(path, 1, f"The folder holds more than {limits}", hint="is it the right folder?")
            break
        data = _read(place, path, problems)
        if data is not None:
            files[path] = data
            folder_bytes += len(data)
    return build_app(files, root_yaml, root.name or "app", resolve_component, problems)


def _walk(root: Path, problems: Problems) -> Iterator[tuple[str, Path]]:
    """Each file's path below `root`, POSIX, and where it really is; folder by folder, in order of names."""
    seen = {root}
    folders = [("", root)] if root.is_dir() else []
    while folders:
        prefix, folder = folders.pop()
        try:
            places = sorted(folder.iterdir())
        except OSError as error:
            problems.add(prefix or ".", 1, f"Folder cannot be read: {error.strerror}")
            continue
        for place in places:
            path = prefix + place.name
            if place.name.startswith(".") or place.name in _SKIPPED:
                continue
            if whole(path) != path:
                problems.add(whole(path), 1, "File name is not UTF-8", hint="rename it")
                continue
            try:
                real = Path(os.path.realpath(place)) if place.is_symlink() else place
                is_folder = real.is_dir()
            except OSError as error:
                problems.add(path, 1, f"File cannot be read: {error.strerror}")
                continue
            if not real.is_relative_to(root):
                problems.add(path, 1, "Symbolic link leaves the app's folder", hint="copy what it points to")
            elif not is_folder:
                yield path, real
            elif real not in seen:
                seen.add(real)
                folders.append((f"{path}/", real))


def _read(place: Path, path: str, problems: Problems) -> bytes | None:
    try:
        # A link put in its place meanwhile is not followed, and a pipe does not block us.
        handle = os.open(place, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(handle, "rb") as file:
            status = os.fstat(handle)
            if not stat.S_ISREG(status.st_mode):
                return None
            data = file.read(FILE_BYTES_MAX + 1)
    except OSError as error:
        problems.add(path, 1, f"File cannot be read: {error.strerror}")
        return None
    if len(data) > FILE_BYTES_MAX:
        hint = "put data into a Table, not into the app's folder"
        problems.add(path, 1, f"File is over {FILE_BYTES_MAX >> 20} MiB and left out", severity="warning", hint=hint)
        return None
    return data
