"""Virtual environments of apps with a `requirements_file`: built once for each content, by uv, beside one another.

An environment's name is a hash of all that goes into it: the requirements (files that they include, too), the packages that
our side of a worker needs, Python, and this tailrace. So a deployment that changes none of these finds it there, and the
environment of the version before stays as it is.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import importlib.metadata
import logging
import os
import platform
import posixpath
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import tailrace.node
from tailrace.errors import RejectedError
from tailrace.graph import App
from tailrace.runtime import Probe

__all__ = ["Environment", "EnvironmentBuildError", "Environments", "code_folders", "environment_of"]

log = logging.getLogger(__name__)

NODE_SIDE = (
    *("croniter", "duckdb", "jinja2", "numpy", "orjson", "pandas", "polars", "pyarrow", "python-dateutil", "pyyaml"),
    *("requests", "sqlalchemy", "sqlglot"),
)
"""Packages of ours that node code or our side of the worker imports: installed beside an app's own unless it names them."""

EXPECTED_EXTRA = "nodes"
"""Our extra with the packages that real nodes expect; where it is installed, apps' environments have them, too."""

WITHOUT_DEPENDENCIES = ("patterns-components",)
"""They depend on type stubs that would take the place of our `patterns`, and on versions from before them."""

UV_OUTPUT_BYTES_MAX = 64 * 1024
"""Kept of what uv says, from the end: the reason is there."""

_PASSED_ON = re.compile(r"(UV_|PIP_|SSL_CERT_)\w+|(https?|no|all)_proxy|PATH|LANG", re.IGNORECASE)
_NAME = re.compile(r"\s*([A-Za-z0-9][A-Za-z0-9._-]*)")
_INCLUDE = re.compile(r"\s*(?:-r|-c|--requirement|--constraint)[\s=]*(\S+)")
_LOCAL = re.compile(r"\s*(?:-e\b|--editable\b|\.{0,2}/|file:)")


class EnvironmentBuildError(RejectedError):
    """An app's requirements do not install; what was deployed before goes on."""

    def __init__(self, graph: str, file: str, line: int | None, reason: str) -> None:
        self.graph, self.file, self.line, self.reason = graph, file, line, reason
        place = f"{file}:{line}" if line else file
        super().__init__(
            f"{place} of {graph} does not install: {reason}\nWhat was deployed before goes on. Correct {file} and deploy again"
            " (`uv pip install --dry-run -r` tries it)."
        )


@dataclass(frozen=True, slots=True)
class Environment:
    """What goes into an app's environment. The same values are the same environment."""

    graph: str
    file: str
    """Path of the requirements file in the app; "" where it has none, and gets the packages that nodes expect."""

    texts: tuple[tuple[str, str], ...]
    """Path and text of that file, and of all that it includes."""

    ours: tuple[str, ...]
    """Requirements that are ours: those that the app does not name itself."""

    unchecked: tuple[str, ...] = ()
    """Installed without what they depend on."""

    @property
    def key(self) -> str:
        """Names its folder."""
        parts = (*self.texts, self.ours, self.unchecked, sysconfig.get_config_var("SOABI"), platform.python_version())
        parts += (sys.base_prefix, importlib.metadata.version("tailrace"), code_folders())
        return hashlib.blake2b(repr(parts).encode(), digest_size=12).hexdigest()


def environment_of(app: App) -> Environment | None:
    """The environment of an app's nodes; None where it has no requirements, and its nodes run in ours. Pure but for what
    is installed here."""
    if app.requirements_file is None:
        return None
    texts = tuple(_with_includes(app.files, app.requirements_file))
    named = {_canonical(match[1]) for _, text in texts for line in text.splitlines() if (match := _NAME.match(line))}
    required = importlib.metadata.requires("tailrace") or []
    expected = [line.partition(";")[0].strip() for line in required if _of_extra(line)]
    plain = [line for line in required if "extra ==" not in line and _canonical_of(line) in NODE_SIDE]
    unchecked: tuple[str, ...] = ()
    if expected and all(_installed(_canonical_of(line)) for line in expected):
        plain += expected
        unchecked = tuple(name for name in WITHOUT_DEPENDENCIES if name not in named)
    ours = tuple(sorted(line for line in plain if _canonical_of(line) not in named))
    return Environment(app.slug, app.requirements_file, texts, ours, unchecked)


def _of_extra(line: str) -> bool:
    return re.search(rf"extra == ['\"]{EXPECTED_EXTRA}['\"]", line) is not None and _canonical_of(line) != "uv"


def _installed(name: str) -> bool:
    try:
        importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _canonical_of(requirement: str) -> str:
    match = _NAME.match(requirement)
    return _canonical(match[1]) if match else ""


def _with_includes(
    files: Mapping[str, bytes], path: str, seen: frozenset[str] = frozenset()
) -> Iterator[tuple[str, str]]:
    text = files.get(path, b"").decode("utf-8", "replace")
    yield path, text
    for line in text.splitlines():
        if match := _INCLUDE.match(line):
            included = posixpath.normpath(posixpath.join(posixpath.dirname(path), match[1]))
            if included in files and included not in seen:
                yield from _with_includes(files, included, seen | {path})


def code_folders() -> tuple[str, ...]:
    """The folders of our code that workers import: `tailrace` (the half with the node side) and `patterns`."""
    library = Path(tailrace.node.__file__ or "").resolve().parents[1]
    return str(library), str(library.parent / "patterns")


class Environments:
    """The environments below one folder, which processes may share.

    Args:
        uv: the program; found on PATH or beside this Python where None.
        tell: is given each line that uv says, and what is going on.
    """

    def __init__(
        self, folder: Path, *, uv: str | None = None, probe: Probe | None = None, tell: Callable[[str], None] = log.info
    ) -> None:
        self.folder = folder
        self._uv, self._probe, self._tell = uv, probe or Probe(), tell

    def python(self, environment: Environment) -> Path:
        """Its interpreter; it is there once `build` has returned."""
        return self.folder / environment.key / "bin" / "python"

    def code(self, environment: Environment) -> Path:
        """A folder for the beginning of `sys.path`: in it are our packages, and nothing else."""
        return self.folder / environment.key / "tailrace-code"

    def build(self, environment: Environment) -> None:
        """Have it there; at once where it is already.

         1. `environment-locked`   nothing has changed. Others who want the same wait here, and then find it.
         2. `environment-built`    it is whole, under a name that nobody looks for. A crash before leaves a folder that the
                                   next builder deletes.
         3. `environment-named`    the point of no return: one rename.

        Raises:
            EnvironmentBuildError: rejected; uv cannot install it, and says why, or is not there.
        """
        target = self.folder / environment.key
        if target.exists():
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        with _locked(self.folder / f"{environment.key}.lock"):
            if target.exists():
                return
            self._probe.reached("environment-locked")
            draft = self.folder / f".{environment.key}"
            shutil.rmtree(draft, ignore_errors=True)
            self._tell(f"{environment.graph}: installing {environment.file or 'the packages that nodes expect'}")
            self._install(environment, draft)
            self._probe.reached("environment-built")
            draft.rename(target)
            self._probe.reached("environment-named")
            self._tell(f"{environment.graph}: installed {environment.file}")

    def _install(self, environment: Environment, draft: Path) -> None:
        for path, text in environment.texts:
            for number, line in enumerate(text.splitlines(), 1):
                if _LOCAL.match(line):
                    reason = f"{line.strip()} is a path; what is not in an index lies as modules in the app's folder"
                    raise EnvironmentBuildError(environment.graph, path, number, reason)
        uv = self._uv or shutil.which("uv") or shutil.which("uv", path=str(Path(sys.executable).parent))
        if uv is None:
            reason = "uv is not installed, which builds environments: pip install uv"
            raise EnvironmentBuildError(environment.graph, environment.file, None, reason)
        python = str(draft / "bin" / "python")
        self._call(environment, draft, [uv, "venv", "--relocatable", "--python", sys.executable, str(draft)])
        texts = draft / "requirements"
        for path, text in environment.texts:
            (texts / path).parent.mkdir(parents=True, exist_ok=True)
            (texts / path).write_text(text, encoding="utf-8")
        wanted = [f"--requirement={texts / environment.file}"] if environment.file else []
        install = [uv, "pip", "install", "--python", python]
        if wanted or environment.ours:
            self._call(environment, draft, [*install, *wanted, *environment.ours])
        if environment.unchecked:
            self._call(environment, draft, [*install, "--no-deps", *environment.unchecked])
        code = draft / "tailrace-code"
        code.mkdir()
        for folder in code_folders():
            (code / Path(folder).name).symlink_to(folder)

    def _call(self, environment: Environment, draft: Path, command: Sequence[str]) -> None:
        """Run uv, which may run code of packages: it sees neither our environment nor our files."""
        home = (
            self.folder / f".home-{environment.graph}"
        )  # of each app: what it builds must not reach another's packages
        cache = Path(os.environ.get("UV_CACHE_DIR") or home / "uv-cache")
        for folder in (cache, home, draft):
            folder.mkdir(parents=True, exist_ok=True)
        kept = {name: value for name, value in os.environ.items() if _PASSED_ON.fullmatch(name)}
        reads = [str(Path(command[0]).resolve().parent), "/etc/uv", "/etc/pip.conf"]
        reads += os.environ.get("UV_FIND_LINKS", "").split()
        boot = [sys.executable, "-I", "-m", "tailrace.node.confined", "--read", ":".join(reads)]
        writes = ":".join(str(folder.absolute()) for folder in (draft, cache, home))
        process = subprocess.Popen(
            [*boot, "--write", writes, "--", *command, "--no-config", "--color=never", "--no-progress"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**kept, "UV_CACHE_DIR": str(cache), "UV_NO_PROGRESS": "1", "HOME": str(home), "TMPDIR": str(home)},
            cwd=draft,
            text=True,
            errors="replace",
        )
        said: list[str] = []
        with process, contextlib.ExitStack() as undo:
            undo.callback(process.kill)
            assert process.stdout is not None, "it was started with a pipe"
            for line in process.stdout:
                self._tell(f"{environment.graph}: {line.rstrip()}")
                said.append(line.rstrip())
                while sum(map(len, said)) > UV_OUTPUT_BYTES_MAX:
                    del said[0]
            code = process.wait()
        if code != 0:
            text = " ".join(said).replace(f"{draft}/requirements/", "").replace("╰─▶", " ").replace("×", " ")
            reason = " ".join(text.split()) or f"uv ended with {code}"
            file, number = _blamed(environment, reason)
            raise EnvironmentBuildError(environment.graph, file, number, reason)


def _blamed(environment: Environment, reason: str) -> tuple[str, int | None]:
    """The line whose package uv speaks of first."""
    words = {_canonical(word): at for at, word in reversed(list(enumerate(re.findall(r"[A-Za-z0-9._-]+\w", reason))))}
    found: tuple[int, str, int] | None = None
    for path, text in environment.texts:
        for number, line in enumerate(text.splitlines(), 1):
            at = words.get(_canonical_of(line)) if line.strip() else None
            if at is not None and (found is None or at < found[0]):
                found = (at, path, number)
    if found is None:
        match = re.search(r":(\d+):\d+", reason)
        return environment.file, int(match[1]) if match else None
    return found[1], found[2]


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
