"""What a process takes from its machine: options or their variables, and a folder for itself."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tailrace.process import OPTIONS, REQUIRED, service_parser, take_folder


def test_an_option_comes_before_its_variable_and_that_before_the_default() -> None:
    defaults = {"port": 8700, "log": REQUIRED, "shared_folder": None}
    parser = service_parser("x", "x", defaults, {"TAILRACE_PORT": "9", "TAILRACE_LOG": "a", "TAILRACE_RUNS": "3"})
    found = parser.parse_args(["--log", "b"])
    assert vars(found) == {"port": 9, "log": "b", "shared_folder": None}
    assert service_parser("x", "x", defaults, {"TAILRACE_PORT": ""}).parse_args(["--log", "b"]).port == 8700


def test_a_variable_is_read_as_its_option_is(capsys: pytest.CaptureFixture[str]) -> None:
    found = service_parser("x", "x", {"drain": 5.0, "data": Path("a")}, {"TAILRACE_DATA": "b"}).parse_args([])
    assert (found.drain, found.data) == (5.0, Path("b"))
    with pytest.raises(SystemExit):
        service_parser("x", "x", {"port": 1}, {"TAILRACE_PORT": "high"}).parse_args([])
    assert "--port: invalid int value: 'high'" in capsys.readouterr().err


def test_what_must_be_given_is_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        service_parser("x", "x", {"log": REQUIRED}, {"TAILRACE_LOG": ""}).parse_args([])
    assert "required: --log" in capsys.readouterr().err


def test_names_of_options_differ() -> None:
    assert len({option.name for option in OPTIONS}) == len(OPTIONS)


def test_a_folder_is_one_process_s_until_it_ends(tmp_path: Path) -> None:
    program = f"""
from pathlib import Path
from tailrace.process import take_folder
print(take_folder(Path({str(tmp_path)!r})) is not None, flush=True)
input()
"""
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"True\n"
        assert take_folder(tmp_path) is None
        other.kill()
    release = take_folder(tmp_path)
    assert release is not None
    assert take_folder(tmp_path) is None  # no second time in this process either
    release()
    assert take_folder(tmp_path) is not None
