"""How node code imports the app's own files: fresh in each run, compiled once.

The app's folder is a package, with or without an `__init__.py`, so `from .helper import x` works in every file;
and it is on `sys.path`, so `import helper` does, too. The package is called like the folder, unless that is no
name or taken.
"""

from __future__ import annotations

import importlib
import importlib.machinery
import importlib.util
import keyword
import linecache
import os
import re
import sys
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.abc import MetaPathFinder
from itertools import takewhile
from pathlib import Path
from types import CodeType, ModuleType

from tailrace.node.user_traceback import is_app_file

__all__ = ["AppImports", "CodeCache"]


class CodeCache:
    """Compiled files, by path, time of change and size."""

    FILES_MAX = 512
    """More than an app has; the least recently used goes."""

    def __init__(self) -> None:
        self._codes: OrderedDict[str, tuple[int, int, CodeType]] = OrderedDict()

    def code(self, path: str) -> CodeType:
        """`path` compiled; raises SyntaxError with its name whatever is wrong with the text."""
        stat = os.stat(path)  # noqa: PTH116 - once an import of a hot run
        found = self._codes.get(path)
        if found is not None and found[:2] == (stat.st_mtime_ns, stat.st_size):
            self._codes.move_to_end(path)
            return found[2]
        source = Path(path).read_bytes()
        try:
            code = compile(source, path, "exec", dont_inherit=True)
        except ValueError as error:  # a null byte, before Python 3.12
            raise SyntaxError(str(error), (path, 1, 1, "")) from None
        except SyntaxError as error:
            error.filename = error.filename or path
            raise
        self._codes[path] = (stat.st_mtime_ns, stat.st_size, code)
        if len(self._codes) > self.FILES_MAX:
            self._codes.popitem(last=False)
        return code


_MARK = "tailrace.node._script_imports.mark"
"""Modules that come after this one in `sys.modules`, which keeps their order, were imported by the run. To remember the
names of those before would touch, and so copy, pages that a worker shares with the process it was forked from."""

_looked_before = False


class _Loader(importlib.machinery.SourceFileLoader):
    """Reads no `.pyc`: those go by whole seconds, and an app may change twice in one."""

    codes: CodeCache

    def get_code(self, fullname: str) -> CodeType:
        return self.codes.code(self.path)


class AppImports(MetaPathFinder):
    """The imports of one app; kept for all runs in a process."""

    def __init__(self, app_dir: str, package: str | None, codes: CodeCache) -> None:
        self._app_dir, self._codes = app_dir, codes
        self._package = package or _package_name(Path(app_dir).name)
        self._folders: dict[str, str] = {self._package: app_dir}
        self._script_dir = app_dir

    def package_of(self, path: str) -> str:
        """Name of the package that the file `path` lies in; every folder on the way counts as one."""
        name, folder = self._package, Path(self._app_dir)
        for part in Path(path).relative_to(folder).parts[:-1]:
            folder /= part
            name += "." + part.replace(".", "_")
            self._folders[name] = str(folder)
        return name

    @contextmanager
    def installed(self, script: str) -> Iterator[None]:
        """Import for the run of `script`, then forget all modules of the app."""
        self._script_dir = str(Path(script).parent)
        self._look_again()
        sys.modules.pop(_MARK, None)
        sys.modules[_MARK] = ModuleType(_MARK)
        # Behind the finders of built-in and frozen modules, before that of sys.path.
        place = next((n for n, finder in enumerate(sys.meta_path) if finder is importlib.machinery.PathFinder), 0)
        sys.meta_path.insert(place, self)
        for folder in dict.fromkeys((self._app_dir, self._script_dir)):
            sys.path.insert(0, folder)
        try:
            yield
        finally:
            self._forget()  # sys.meta_path and sys.path are restored with the rest of the process's state

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if (folder := self._folders.get(fullname)) is not None:
            return self._folder_spec(fullname, folder)
        if path is None:
            path = [self._script_dir, self._app_dir]
        elif not any(self._is_inside(entry) for entry in path):
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path)
        if spec is None or spec.origin is None or not isinstance(spec.loader, importlib.machinery.SourceFileLoader):
            # A folder without `__init__.py` among them: it must not hide an installed package of its name.
            return None
        if is_app_file(spec.origin, self._app_dir):
            spec.loader = self._loader(fullname, spec.origin)
        return spec

    def _is_inside(self, folder: str) -> bool:
        return folder == self._app_dir or is_app_file(folder, self._app_dir)

    def _folder_spec(self, fullname: str, folder: str) -> importlib.machinery.ModuleSpec | None:
        init = os.path.join(folder, "__init__.py")  # noqa: PTH118
        if os.path.isfile(init):  # noqa: PTH113
            loader = self._loader(fullname, init)
            return importlib.util.spec_from_file_location(
                fullname, init, loader=loader, submodule_search_locations=[folder]
            )
        spec = importlib.machinery.ModuleSpec(fullname, None, is_package=True)
        spec.submodule_search_locations = [folder]
        return spec

    def _loader(self, fullname: str, path: str) -> _Loader:
        loader = _Loader(fullname, path)
        loader.codes = self._codes
        return loader

    def _look_again(self) -> None:
        """Python remembers folders' contents by their time of change, which is too coarse."""
        global _looked_before
        if not _looked_before:  # a young worker: nothing of an app is remembered, and looking copies pages
            _looked_before = True
            return
        for path, finder in list(sys.path_importer_cache.items()):
            if isinstance(finder, importlib.machinery.FileFinder) and self._is_inside(path):
                finder.invalidate_caches()

    def _forget(self) -> None:
        new = list(takewhile(lambda name: name != _MARK, reversed(sys.modules)))
        for name in new:
            module = sys.modules.get(name)
            file = getattr(module, "__file__", None)
            if isinstance(file, str):
                inside = is_app_file(file, self._app_dir)
            else:
                inside = any(self._is_inside(str(entry)) for entry in getattr(module, "__path__", ()))
            if inside:
                sys.modules.pop(name, None)
        for path in [path for path in linecache.cache if is_app_file(path, self._app_dir)]:
            linecache.cache.pop(path, None)


def _package_name(folder: str) -> str:
    """The folder's name, if code could write it and it hides nothing; else one made from it."""
    name = re.sub(r"\W", "_", folder)
    if name == folder and name.isidentifier() and not keyword.iskeyword(name) and name not in sys.modules:
        try:
            if importlib.util.find_spec(name) is None:
                return name
        except (ImportError, ValueError):
            pass
    return f"app_{name}"
