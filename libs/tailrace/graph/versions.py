"""What a node runs, named by a hash: it changes with the node's code, with the modules that the code imports, with
parameters and wiring, and with nothing else."""

from __future__ import annotations

import ast
import hashlib
import warnings
from collections.abc import Iterable

from tailrace.graph.model import App, Node

__all__ = ["node_version"]

_ANY = ("importlib", "__import__", "exec", "eval", "runpy")
"""Code that names one of these may import whatever it likes."""


def node_version(app: App, node: Node) -> str:
    """The version of what `node` runs; "" for nodes without code.

    Modules are found by their names alone, wherever they lie in the app: rather one too many than one too few.
    """
    if node.node_file is None or node.node_file not in app.files:
        return ""
    digest = hashlib.blake2b(digest_size=8)
    for path in sorted({node.node_file, *_imported(app, node.node_file)}):
        data = app.files[path]
        digest.update(f"{path}\0{len(data)}\0".encode())
        digest.update(data)
    digest.update(repr((node.node_file, sorted(node.parameter_values.items(), key=str), node.ports)).encode())
    return digest.hexdigest()


def _imported(app: App, first: str) -> set[str]:
    """The Python files of the app that `first` imports, and those that they import."""
    if not first.endswith(".py"):
        return set()
    modules = [path for path in app.files if path.endswith(".py")]
    found: set[str] = set()
    waiting = [first]
    while waiting:
        names = _names(app.files[waiting.pop()])
        if names is None:
            return set(modules)
        new = {path for path in modules if path not in found and _stem(path) in {*names, "__init__"}}
        found |= new
        waiting += new
    return found


def _stem(path: str) -> str:
    """What an import calls the file; that of a package, `__init__`, is imported along with anything in it."""
    return path.rpartition("/")[2].removesuffix(".py")


def _names(source: bytes) -> set[str] | None:
    """The names that import statements mention, part by part; None where anything may be imported."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(source)
    except (SyntaxError, ValueError, LookupError, RecursionError, MemoryError):
        return None
    names: set[str] = set()
    for each in ast.walk(tree):
        match each:
            case ast.Import(names=imported):
                names |= _split(alias.name for alias in imported)
            case ast.ImportFrom(module=module, names=imported):
                names |= _split([module or "", *(alias.name for alias in imported)])
            case ast.Name(id=name) if name in _ANY:
                return None
    return None if names & set(_ANY) else names


def _split(names: Iterable[str]) -> set[str]:
    return {part for name in names for part in name.split(".") if part}
