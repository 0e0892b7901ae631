"""The control log on both logs, and the archives and folds that it is made of."""

from __future__ import annotations

import io
import stat
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from control_contract import BY, ControlContract, app
from hypothesis import given
from hypothesis import strategies as st

from tailrace.control import (
    VERSIONS_KEPT,
    ArchiveLimits,
    BadArchiveError,
    ControlLog,
    changes,
    pack,
    place_files,
    unpack,
)
from tailrace.log import Log, open_log
from tailrace.runtime import Crash, CrashAt, Runtime
from tailrace.testing.kafka import LocalKafka


class TestControlOnSqlite(ControlContract):
    @pytest.fixture
    def log(self, tmp_path: Path) -> Iterator[Log]:
        log = open_log(f"sqlite:///{tmp_path / 'log.db'}")
        yield log
        log.close()


@pytest.mark.kafka
class TestControlOnKafka(ControlContract):
    @pytest.fixture
    def log(self, kafka_broker: LocalKafka) -> Iterator[Log]:
        log = open_log(kafka_broker.url)
        yield log
        log.close()


def test_old_versions_are_let_go_of(tmp_path: Path) -> None:
    """Each holds the app's files: without an end, a start would read them all."""
    log = open_log(f"sqlite:///{tmp_path / 'log.db'}")
    control = ControlLog(log)
    for number in range(VERSIONS_KEPT + 3):
        control.deploy(app("shop", f"print({number})\n"), BY)
    numbers = [each.event.version for each in control.read().history("shop")]
    assert numbers == list(range(4, VERSIONS_KEPT + 4))
    assert [each.event.version for each in ControlLog(log).read().history("shop")] == numbers
    log.close()


PATHS = st.lists(
    st.text("abc.-", min_size=1, max_size=4).filter(lambda t: t not in (".", "..")), min_size=1, max_size=3
)


@given(st.dictionaries(PATHS.map("/".join), st.binary(max_size=50), max_size=6))
def test_an_archive_gives_back_its_files(files: dict[str, bytes]) -> None:
    plain = {path: data for path, data in files.items() if not any(other.startswith(f"{path}/") for other in files)}
    assert unpack(pack(plain)) == plain
    assert pack(dict(reversed(plain.items()))) == pack(plain), "the same files are the same bytes"


def _zip(**more: object) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, kind, data in more["entries"]:  # type: ignore[attr-defined]
            entry = zipfile.ZipInfo(name)
            entry.external_attr = kind << 16
            archive.writestr(entry, data, compress_type=zipfile.ZIP_DEFLATED)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "entries",
    [
        [("../up.py", 0, b"")],
        [("/etc/x", 0, b"")],
        [("a/../../x", 0, b"")],
        [("a//b", 0, b"")],
        [("a\\..\\b", 0, b"")],
        [("folder/", 0, b"")],
        [("link", stat.S_IFLNK | 0o777, b"/etc/passwd")],
        [("pipe", stat.S_IFIFO, b"")],
        [("a", 0, b""), ("a/b", 0, b"")],
        [("zeros", 0, bytes(3000))],
        [(f"f{number}", 0, b"") for number in range(12)],
    ],
    ids=lambda entries: entries[0][0],
)
def test_hostile_archives_are_refused(entries: list[tuple[str, int, bytes]]) -> None:
    limits = ArchiveLimits(archive_bytes_max=10_000, files_bytes_max=2000, files_max=10)
    with pytest.raises(BadArchiveError):
        unpack(_zip(entries=entries), limits)


@given(st.binary(max_size=200), st.integers(0, 150))
def test_damaged_archives_are_refused(noise: bytes, at: int) -> None:
    """Whatever lies there: the files, or an error of ours."""
    packed = bytearray(pack({"a.py": b"print(1)\n" * 9}))
    packed[at : at + len(noise)] = noise
    try:
        unpack(bytes(packed))
    except BadArchiveError:
        pass


def test_files_of_a_deployment_are_whole_or_not_there(tmp_path: Path) -> None:
    for point in ("files-written", "files-placed"):
        with pytest.raises(Crash):
            place_files(app("shop"), tmp_path / point, Runtime(probe=CrashAt(point)))
        whole = list((tmp_path / point / "shop").glob("[!.]*"))
        assert len(whole) == (point == "files-placed")
        folder = place_files(app("shop"), tmp_path / point)
        assert (folder / "a.py").read_text() == "print(1)\n"
        assert place_files(app("shop"), tmp_path / point) == folder


def test_changes_name_what_comes_changes_and_goes() -> None:
    """A node changes with the modules that it imports, and with no others."""
    lib = {"lib.py": b"f = 1\n", "other.py": b"", "readme.txt": b"x"}
    before = app("shop", "from lib import f\n", **lib)
    assert not changes(before, app("shop", "from lib import f\n", **{**lib, "other.py": b"1", "readme.txt": b"y"})).any
    after = app("shop", "from lib import f\n", **{**lib, "lib.py": b"f = 2\n"})
    assert list(changes(before, after).changed) == ["a"]
    assert list(changes(None, after).added) == ["a"]
    assert list(changes(after, None).tables_removed) == ["t"]
