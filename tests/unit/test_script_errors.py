"""What an author sees of an error: their own lines, paths of the app, and what to write instead."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import pytest

from tailrace.node.script import error_hint, error_place, format_user_traceback, run_script
from tailrace.node.user_traceback import TEXT_CHARS_MAX


def failure(app: Path, text: str | bytes, name: str = "node.py") -> BaseException:
    path = app / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    try:
        run_script(path, app)
    except BaseException as error:
        return error
    raise AssertionError("it should have failed")


def test_a_traceback_begins_at_the_app_and_names_its_files_from_its_folder(tmp_path: Path) -> None:
    (tmp_path / "helper.py").write_text("def divide(n):\n    return n / 0\n")
    error = failure(tmp_path, "from helper import divide\n\ndivide(1)\n", "load/node.py")
    text = format_user_traceback(error, tmp_path)
    assert text.splitlines()[:5] == [
        "Traceback (most recent call last):",
        '  File "load/node.py", line 3, in <module>',
        "    divide(1)",
        '  File "helper.py", line 2, in divide',
        "    return n / 0",
    ]
    assert text.endswith("ZeroDivisionError: division by zero\n")
    assert error_place(error, tmp_path) == ("helper.py", 2)


def test_libraries_frames_stay_and_the_place_is_the_apps(tmp_path: Path) -> None:
    error = failure(tmp_path, "import json\njson.loads('{')\n")
    text = format_user_traceback(error, tmp_path)
    assert "json/decoder.py" in text
    assert error_place(error, tmp_path) == ("node.py", 2)


def test_our_frames_are_left_out_wherever_they_are(tmp_path: Path) -> None:
    text = "from tailrace.runtime import CrashAt\nclass P(CrashAt): pass\nP('x').reached('x')\n"
    shown = format_user_traceback(failure(tmp_path, text), tmp_path)
    assert "tailrace/" not in shown
    assert "line 3" in shown


def test_causes_are_cleaned_too(tmp_path: Path) -> None:
    text = (
        "def f():\n    raise KeyError('a')\ntry:\n    f()\nexcept KeyError as e:\n    raise RuntimeError('no') from e\n"
    )
    shown = format_user_traceback(failure(tmp_path, text), tmp_path)
    assert "The above exception was the direct cause" in shown
    assert str(tmp_path) not in shown
    assert "line 2, in f" in shown


def test_an_error_of_ours_is_told_without_what_it_was_made_of(tmp_path: Path) -> None:
    """What the parser of a library said, and where in it, helps nobody who wrote the query."""
    query = "from tailrace.sql import analyse\nanalyse('select coun(*) form x')\n"
    shown = format_user_traceback(failure(tmp_path, query), tmp_path)
    assert "sqlglot" not in shown and "direct cause" not in shown
    assert (
        shown.splitlines()[1] == '  File "node.py", line 2, in <module>' and "SqlError: line 1: syntax error" in shown
    )
    within = "try:\n    {}['k']\nexcept KeyError:\n    " + "from tailrace.sql import analyse; analyse('selec')\n"
    assert "KeyError: 'k'" in format_user_traceback(failure(tmp_path, within), tmp_path)  # the app's own is shown


def test_who_writes_where_a_node_may_not_is_told_where_it_may(tmp_path: Path) -> None:
    shown = format_user_traceback(
        failure(tmp_path, "raise PermissionError(13, 'Permission denied', '/tmp/x')\n"), tmp_path
    )
    assert shown.endswith("hint: a node reads its app's files, and writes below `tempfile.gettempdir()` alone\n")
    shown = format_user_traceback(failure(tmp_path, "raise PermissionError('not for you')\n"), tmp_path)
    assert "hint" not in shown


def test_groups_are_cleaned_too(tmp_path: Path) -> None:
    text = "try:\n    1 / 0\nexcept ZeroDivisionError as e:\n    raise ExceptionGroup('several', [e])\n"
    shown = format_user_traceback(failure(tmp_path, text), tmp_path)
    assert "several (1 sub-exception)" in shown
    assert str(tmp_path) not in shown


def test_a_syntax_error_has_file_line_and_caret(tmp_path: Path) -> None:
    error = failure(tmp_path, "x = 1\ndef f(:\n    pass\n", "load/node.py")
    shown = format_user_traceback(error, tmp_path)
    assert shown.splitlines()[0] == '  File "load/node.py", line 2'
    assert "def f(:" in shown
    assert "^" in shown
    assert error_place(error, tmp_path) == ("load/node.py", 2)


def test_a_syntax_error_of_a_sibling_names_both_files(tmp_path: Path) -> None:
    (tmp_path / "helper.py").write_text("def f(:\n")
    error = failure(tmp_path, "import helper\n")
    shown = format_user_traceback(error, tmp_path)
    assert 'File "node.py", line 1' in shown
    assert 'File "helper.py", line 1' in shown
    assert error_place(error, tmp_path) == ("helper.py", 1)


@pytest.mark.parametrize("text", [b"x = '\xff\xfe'\n", b"x = 1\0\n"])
def test_bytes_that_are_no_python_are_a_syntax_error_of_that_file(tmp_path: Path, text: bytes) -> None:
    error = failure(tmp_path, text)
    assert isinstance(error, SyntaxError)
    assert error_place(error, tmp_path) is not None
    assert "node.py" in format_user_traceback(error, tmp_path)


def test_the_product_pages_import_gets_what_to_write(tmp_path: Path) -> None:
    shown = format_user_traceback(failure(tmp_path, "from datetime.datetime import now\n"), tmp_path)
    assert shown.endswith(
        "hint: write `from datetime import datetime`, and `datetime.now()` where the time is needed\n"
    )


def test_now_of_the_module_datetime_gets_a_hint(tmp_path: Path) -> None:
    assert "from datetime import datetime" in (error_hint(failure(tmp_path, "from datetime import now\n")) or "")


@pytest.mark.parametrize(("module", "package"), [("not_there_at_all", "not_there_at_all"), ("cv2", "opencv")])
def test_a_missing_package_gets_the_key_to_set(tmp_path: Path, module: str, package: str) -> None:
    hint = error_hint(failure(tmp_path, f"import {module}\n")) or ""
    assert "`requirements_file`" in hint
    assert package in hint


def test_the_helper_library_is_installed_alone(tmp_path: Path) -> None:
    """Its dependencies hold a package of type stubs that is called `patterns` too."""
    error = failure(tmp_path, "from patterns_components.helpers.api import handle_rate_limiting\n")
    assert "--no-deps patterns-components" in (error_hint(error) or "")


def test_recursion_without_end_is_told_shortly(tmp_path: Path) -> None:
    error = failure(tmp_path, "def f():\n    return f()\nf()\n")
    shown = format_user_traceback(error, tmp_path)
    assert "more times" in shown
    assert "hint: a function calls itself without end" in shown
    assert len(shown) < 2000


@pytest.mark.parametrize("error", ["MemoryError", "SystemError"])
def test_a_chain_that_memory_cut_short_is_still_told_as_recursion(tmp_path: Path, error: str) -> None:
    """Python wants memory for each line of a traceback too: of a million calls a thousand may be left."""
    text = f"def f(n):\n    if n: f(n - 1)\n    else: raise {error}\nf(150)\n"
    assert "hint: a function calls itself without end" in format_user_traceback(failure(tmp_path, text), tmp_path)


def test_a_memory_error_below_a_few_calls_is_no_recursion(tmp_path: Path) -> None:
    text = "def f(n):\n    if n: f(n - 1)\n    else: raise MemoryError\nf(20)\n"
    assert "calls itself" not in format_user_traceback(failure(tmp_path, text), tmp_path)


def test_a_chain_of_a_million_calls_is_cut_before_it_is_looked_at(tmp_path: Path) -> None:
    """With a raised recursion limit it is the memory that ends it, and there is none left for a long text."""
    text = "import sys\nsys.setrecursionlimit(300_000)\ndef f(n):\n    if n: f(n - 1)\n    else: 1 / 0\nf(200_000)\n"
    error = failure(tmp_path, text)
    shown = format_user_traceback(error, tmp_path)
    assert "(198,0" in shown
    assert shown.splitlines()[1] == '  File "node.py", line 6, in <module>'
    assert error_place(error, tmp_path) == ("node.py", 5)


def test_a_giant_message_is_cut(tmp_path: Path) -> None:
    shown = format_user_traceback(failure(tmp_path, "raise ValueError('x' * 10_000_000)"), tmp_path)
    assert len(shown) < TEXT_CHARS_MAX + 100
    assert "characters left out" in shown


def test_a_virtual_environment_in_the_apps_folder_is_not_the_app(tmp_path: Path) -> None:
    package = tmp_path / ".venv/lib/python3/site-packages"
    package.mkdir(parents=True)
    (package / "theirs_only.py").write_text("def f():\n    raise ValueError\n")
    error = failure(tmp_path, f"import sys\nsys.path.append({str(package)!r})\nimport theirs_only\ntheirs_only.f()\n")
    assert error_place(error, tmp_path) == ("node.py", 4)
    assert isinstance(sys.modules.pop("theirs_only"), ModuleType)


def test_an_error_that_never_was_in_the_app_has_no_place(tmp_path: Path) -> None:
    assert error_place(ValueError("x"), tmp_path) is None
    assert format_user_traceback(ValueError("x"), tmp_path) == "ValueError: x\n"
