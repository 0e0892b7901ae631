"""A node's file runs as a plain script, as often as one likes in one process, and each run finds the same world."""

from __future__ import annotations

import atexit
import builtins
import decimal
import gc
import logging
import os
import random
import signal
import sys
import threading
import warnings
from pathlib import Path
from typing import Any

import pytest

from tailrace.node import _script_state
from tailrace.node.script import NodeTimeLimitError, ScriptEnd, run_script, time_limit


class App:
    """An app's folder that tests write to and run files of."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()

    def write(self, name: str, text: str) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def run(self, text: str, name: str = "node.py", **options: Any) -> ScriptEnd:
        return run_script(self.write(name, text), self.folder, **options)


@pytest.fixture
def app(tmp_path: Path) -> App:
    return App(tmp_path / "leads")


@pytest.fixture
def seen() -> list[Any]:
    """What a script tells its test: it finds this list as `sys.seen`."""
    sys.seen = found = []  # type: ignore[attr-defined]
    yield found
    del sys.seen  # type: ignore[attr-defined]


TELL = "import sys; tell = sys.seen.append\n"


def test_it_is_main_with_its_file_and_arguments(app: App, seen: list[Any]) -> None:
    app.run(TELL + "tell((__name__, __file__, list(sys.argv), sys.modules['__main__'].tell is tell, __doc__))")
    path = str(app.folder / "node.py")
    assert seen == [("__main__", path, [path], True, None)]
    assert sys.modules["__main__"].__dict__.get("tell") is None


def test_each_run_has_a_fresh_namespace(app: App, seen: list[Any]) -> None:
    text = TELL + "tell('x' in globals()); x = 1"
    app.run(text)
    app.run(text)
    assert seen == [False, False]


def test_objects_of_a_run_are_gone_after_it(app: App, seen: list[Any]) -> None:
    """A function and its namespace hold each other; a large frame in there must not outlive the run."""
    app.run(TELL + "import weakref\nclass Big: pass\nbig = Big()\ndef f(): return big\ntell(weakref.ref(big))")
    assert seen[0]() is None


@pytest.mark.parametrize("end", ["exit()", "quit()", "import sys; sys.exit(3)", "raise SystemExit('enough')"])
def test_exit_is_a_normal_end_from_whatever_code(app: App, end: str) -> None:
    app.write("helper.py", f"def stop():\n    {end}\n")
    told: list[BaseException | None] = []
    app.run("from helper import stop\nstop()\nraise AssertionError", on_exit=told.append)
    assert told == [None]


def test_the_exit_code_is_told_and_its_message_printed(app: App, capsys: pytest.CaptureFixture[str]) -> None:
    assert app.run("exit('enough')").exit_code == "enough"
    assert app.run("exit(4)").exit_code == 4
    assert app.run("").exit_code is None
    assert capsys.readouterr().err == "enough\n"


def test_an_error_is_raised_after_its_caller_could_write_what_is_buffered(app: App) -> None:
    told: list[BaseException | None] = []
    with pytest.raises(ZeroDivisionError) as caught:
        app.run("1 / 0", on_exit=told.append)
    assert told == [caught.value]


def test_changed_code_is_compiled_again_even_within_a_second(app: App, seen: list[Any]) -> None:
    for number in range(3):
        app.write("helper.py", f"X = {number}")
        app.run(TELL + f"import helper\ntell((helper.X, {number}))")
    assert seen == [(0, 0), (1, 1), (2, 2)]
    assert not list(app.folder.rglob("*.pyc"))


@pytest.mark.parametrize("with_init", [False, True])
def test_siblings_are_imported_in_every_way(app: App, seen: list[Any], with_init: bool) -> None:
    if with_init:
        for folder in ("", "load/", "load/deep/"):
            app.write(folder + "__init__.py", "import sys; sys.seen.append(__name__)")
    app.write("helper.py", "A = 1")
    app.write("load/helper2.py", "from ..helper import A\nB = A + 1")
    app.write("load/deep/helper3.py", "C = 3")
    app.run(
        TELL + "from ...helper import A\nfrom ..helper2 import B\nfrom .helper3 import C\nfrom . import helper3\n"
        "import helper, helper3 as plain\ntell((A, B, C, helper.A, plain.C, __package__))",
        name="load/deep/node.py",
    )
    packages = ["leads", "leads.load", "leads.load.deep"] if with_init else []
    assert seen == [*packages, (1, 2, 3, 1, 3, "leads.load.deep")]
    assert not [name for name in sys.modules if name.startswith(("leads", "helper"))]


@pytest.mark.parametrize("folder", ["my-app", "2024", "json", "pandas", "class", "v1.2"])
def test_the_folders_name_may_be_no_name_or_taken(tmp_path: Path, folder: str, seen: list[Any]) -> None:
    app = App(tmp_path / folder)
    app.write("__init__.py", "")
    app.write("one.two/helper.py", "X = 1")
    app.run(TELL + "from .helper import X\nimport json\ntell((X, json.dumps(X)))", name="one.two/node.py")
    assert seen == [(1, "1")]


def test_a_folder_hides_no_package_of_its_name(app: App, seen: list[Any]) -> None:
    """Nodes that load from Stripe lie in a folder `stripe`, and import the package `stripe`."""
    app.write("orjson/node2.py", "")
    app.run(TELL + "import orjson\ntell(orjson.dumps(1))")
    assert seen == [b"1"]


def test_the_apps_modules_are_fresh_in_each_run_and_libraries_are_not(app: App, seen: list[Any]) -> None:
    app.write("helper.py", "import sys; sys.seen.append('helper')")
    for _ in range(2):
        app.run(TELL + "import helper, colorsys\ntell(hasattr(colorsys, 'mark'))\ncolorsys.mark = True")
    assert seen == ["helper", False, "helper", True]
    del sys.modules["colorsys"]


def test_what_a_script_changes_is_put_back(app: App, tmp_path: Path) -> None:
    handler = signal.getsignal(signal.SIGTERM)
    before = {
        "cwd": Path.cwd(),
        "environ": dict(os.environ),
        "path": list(sys.path),
        "meta_path": list(sys.meta_path),
        "argv": list(sys.argv),
        "filters": list(warnings.filters),
        "recursion": sys.getrecursionlimit(),
        "streams": (sys.stdin, sys.stdout, sys.stderr),
        "print": builtins.print,
        "precision": decimal.getcontext().prec,
        "mask": signal.pthread_sigmask(signal.SIG_BLOCK, ()),
        "handlers": list(logging.getLogger().handlers),
        "hook": sys.excepthook,
        "gc": gc.isenabled(),
        "register": atexit.register,
    }
    end = app.run(f"""
import builtins, decimal, gc, io, locale, logging, os, random, signal, sys, warnings
os.chdir({str(tmp_path)!r})
os.environ.clear()
os.environ["NEW"] = "1"
os.umask(0)
sys.path[:] = []
sys.path = []
sys.meta_path.append(None)
sys.argv.append("x")
warnings.simplefilter("ignore")
warnings.showwarning = None
sys.setrecursionlimit(77777)
sys.stdout = io.StringIO(); sys.stderr = None
builtins.print = None
builtins.new = 1
decimal.getcontext().prec = 3
locale.setlocale(locale.LC_ALL, "C")
signal.signal(signal.SIGTERM, signal.SIG_IGN)
signal.signal(signal.SIGALRM, signal.SIG_IGN)
signal.pthread_sigmask(signal.SIG_BLOCK, {{signal.SIGALRM, signal.SIGTERM}})
logging.basicConfig(level=10, force=True)
logging.getLogger("theirs").addHandler(logging.StreamHandler())
logging.disable(50)
sys.excepthook = None
gc.disable()
""")
    assert before == {
        "cwd": Path.cwd(),
        "environ": dict(os.environ),
        "path": list(sys.path),
        "meta_path": list(sys.meta_path),
        "argv": list(sys.argv),
        "filters": list(warnings.filters),
        "recursion": sys.getrecursionlimit(),
        "streams": (sys.stdin, sys.stdout, sys.stderr),
        "print": builtins.print,
        "precision": decimal.getcontext().prec,
        "mask": signal.pthread_sigmask(signal.SIG_BLOCK, ()),
        "handlers": list(logging.getLogger().handlers),
        "hook": sys.excepthook,
        "gc": gc.isenabled(),
        "register": atexit.register,
    }
    assert signal.getsignal(signal.SIGTERM) == handler
    assert not hasattr(builtins, "new")
    assert logging.getLogger("theirs").handlers == []
    assert logging.root.manager.disable == 0
    assert end.leftovers.clean, end.leftovers


def test_stdin_is_empty_in_each_run(app: App, seen: list[Any]) -> None:
    """Also after `exit()`, which closes it."""
    for _ in range(2):
        app.run(TELL + "tell(sys.stdin.read())\nexit()")
    assert seen == ["", ""]


def test_runs_draw_different_random_numbers(app: App, seen: list[Any]) -> None:
    random.seed(1)
    for _ in range(2):
        app.run(TELL + "import random; tell(random.random()); random.seed(1)")
    assert seen[0] != seen[1]


def test_a_daemon_thread_is_left_over(app: App) -> None:
    stop = threading.Event()
    sys.stop = stop  # type: ignore[attr-defined]
    try:
        end = app.run(
            "import sys, threading, _thread\n"
            "threading.Thread(target=sys.stop.wait, daemon=True, name='theirs').start()\n"
            "before = len(sys._current_frames())\n"
            "_thread.start_new_thread(sys.stop.wait, ())\n"
            "while len(sys._current_frames()) == before: pass\n"
        )
        assert end.leftovers.threads == ("theirs", "without a name")
        assert not end.leftovers.clean
        assert str(end.leftovers) == "thread 'theirs', thread 'without a name'"
    finally:
        stop.set()
        del sys.stop  # type: ignore[attr-defined]


def test_other_threads_and_executors_are_waited_for(app: App, seen: list[Any]) -> None:
    """As at the end of a plain script; a pool that nobody shut down must not hang the run."""
    end = app.run(
        TELL + "import threading\nfrom concurrent.futures import ThreadPoolExecutor\n"
        "pool = ThreadPoolExecutor(2)\n"
        "for n in range(20): pool.submit(tell, n)\n"
        "threading.Timer(0.05, tell, ['timer']).start()"
    )
    assert sorted(map(str, seen)) == sorted([*map(str, range(20)), "timer"])
    assert end.leftovers.clean, end.leftovers
    assert app.run(
        "from concurrent.futures import ThreadPoolExecutor\nwith ThreadPoolExecutor() as p: p.submit(int).result()"
    )


def test_a_process_is_left_over_also_one_that_became_a_daemon(app: App, seen: list[Any]) -> None:
    end = app.run(TELL + "import subprocess; tell(subprocess.Popen(['sleep', '600']))")
    child = seen[0]
    try:
        assert end.leftovers.children == (child.pid,)
        assert not end.leftovers.clean
    finally:
        child.kill()
        child.wait()


def test_a_process_that_ended_is_none(app: App) -> None:
    text = "import os\npid = os.fork()\nif pid == 0: os._exit(0)\nos.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)"
    assert app.run(text).leftovers.children == ()


def test_open_files_are_counted(app: App, monkeypatch: pytest.MonkeyPatch, seen: list[Any]) -> None:
    monkeypatch.setattr(_script_state, "_open_files_at_first", None)
    assert app.run("").leftovers.open_files_growth == 0
    leftovers = app.run(TELL + "import os\ntell(os.pipe())").leftovers
    assert (leftovers.open_files_growth, leftovers.clean) == (2, True)
    leftovers = app.run(TELL + "import os\nfor _ in range(40): tell(os.pipe())").leftovers
    assert (leftovers.open_files_growth, leftovers.clean) == (82, False)
    assert str(leftovers) == "82 open files more than at first"
    for read, write in seen:
        os.close(read)
        os.close(write)


def test_atexit_functions_of_the_app_are_called_at_its_end(app: App, seen: list[Any]) -> None:
    app.run(TELL + "import atexit\natexit.register(tell, 1)\n@atexit.register\ndef last(): tell(2)\n")
    assert seen == [2, 1]
    app.run(TELL + "import atexit\natexit.register(tell, 3)\natexit.unregister(tell)")
    assert seen == [2, 1]
    with pytest.raises(ZeroDivisionError):
        app.run(TELL + "import atexit\natexit.register(tell, 4)\n1 / 0")
    assert seen == [2, 1, 4]


def test_the_time_limit_is_raised_into_the_code_and_no_except_exception_swallows_it(app: App) -> None:
    with pytest.raises(NodeTimeLimitError, match=r"time limit of 0\.1 s") as caught:
        app.run("while True:\n    try:\n        pass\n    except Exception:\n        pass", limit_s=0.1)
    assert caught.value.limit_s == 0.1


def test_the_time_limit_is_raised_again_into_code_that_catches_everything(app: App, seen: list[Any]) -> None:
    text = TELL + "def spin():\n    while True: pass\ntry:\n    spin()\nexcept BaseException: tell(1)\nspin()"
    with pytest.raises(NodeTimeLimitError):
        app.run(text, limit_s=0.1)
    assert seen == [1]


def test_the_time_limit_covers_threads_that_are_waited_for(app: App) -> None:
    stop = threading.Event()
    sys.stop = stop  # type: ignore[attr-defined]
    try:
        with pytest.raises(NodeTimeLimitError):
            app.run("import sys, threading\nthreading.Thread(target=sys.stop.wait).start()", limit_s=0.1)
    finally:
        stop.set()
        del sys.stop  # type: ignore[attr-defined]


def test_a_body_within_its_limit_is_left_alone() -> None:
    handler = signal.getsignal(signal.SIGALRM)
    with time_limit(60), time_limit(None):
        pass
    assert signal.getsignal(signal.SIGALRM) == handler


def test_a_file_that_is_away_says_so(app: App) -> None:
    with pytest.raises(FileNotFoundError):
        run_script(app.folder / "away.py", app.folder)
