"""Environments of apps: whole or not there, whoever dies when; built once; and an app that does not install stops nothing."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import site
import threading
import zipfile
from dataclasses import replace
from pathlib import Path

import aiohttp
import orjson
import pytest

from tailrace.cli.house import CONTACT_FILE, House, HouseSettings
from tailrace.graph import load_app
from tailrace.runner import Entry, EnvironmentBuildError, LogLine, RunEntry, environments
from tailrace.runner.environments import Environment, Environments, environment_of
from tailrace.runtime import Crash, CrashAt, Probe, Runtime

pytestmark = pytest.mark.timeout(120)


def make_wheel(folder: Path, name: str, files: dict[str, str], version: str = "1.0") -> None:
    """A package in a wheel of its own."""
    info = f"{name}-{version}.dist-info"
    files = {
        **files,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    lines = [f"{path},sha256={_digest(text)},{len(text)}" for path, text in files.items()]
    files[f"{info}/RECORD"] = "\n".join([*lines, f"{info}/RECORD,,", ""])
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as wheel:
        for path, text in files.items():
            wheel.writestr(path, text)


def _digest(text: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).decode().rstrip("=")


@pytest.fixture
def wheels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of packages, in place of an index; one of them brings what our side of a worker needs."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    make_wheel(folder, "waterwheel", {"waterwheel.py": "SPEED = 7\n"})
    make_wheel(folder, "stubs", {"patterns/__init__.py": "raise ImportError('a stub in place of ours')\n"})
    make_wheel(folder, "ours", {"ours.pth": "\n".join(site.getsitepackages()) + "\n"})
    monkeypatch.setenv("UV_FIND_LINKS", str(folder))
    monkeypatch.setattr(environments, "NODE_SIDE", ())
    return folder


def environment(*lines: str) -> Environment:
    return Environment("mill", "requirements.txt", (("requirements.txt", "\n".join(["--no-index", *lines])),), ())


@pytest.mark.parametrize("point", ["environment-locked", "environment-built", "environment-named"])
def test_a_death_leaves_a_whole_environment_or_none(wheels: Path, tmp_path: Path, point: str) -> None:
    """And whoever comes next makes it good."""
    wanted = environment("waterwheel")
    dying = Environments(tmp_path / "environments", probe=CrashAt(point))
    with pytest.raises(Crash):
        dying.build(wanted)
    assert dying.python(wanted).exists() is (point == "environment-named")
    later = Environments(tmp_path / "environments")
    later.build(wanted)
    assert (later.code(wanted) / "patterns" / "__init__.py").exists()
    assert list(later.python(wanted).parents[1].glob("lib/*/site-packages/waterwheel.py"))


def test_who_comes_while_it_is_built_waits_for_it(wheels: Path, tmp_path: Path) -> None:
    """Several runners on one machine build it once."""
    begun, go_on, said = threading.Event(), threading.Event(), []

    class Waiting(Probe):
        def reached(self, point: str) -> None:
            if point == "environment-built":
                begun.set()
                assert go_on.wait(60)

    wanted = environment("waterwheel")
    builders = [Environments(tmp_path / "e", probe=probe, tell=said.append) for probe in (Waiting(), Probe(), Probe())]
    threads = [threading.Thread(target=builder.build, args=(wanted,)) for builder in builders]
    threads[0].start()
    assert begun.wait(60)
    for thread in threads[1:]:
        thread.start()
    go_on.set()
    for thread in threads:
        thread.join()
    assert [line for line in said if "installing" in line] == ["mill: installing requirements.txt"]
    assert builders[2].python(wanted).exists()


def test_another_content_is_another_environment() -> None:
    """One that is in use is never changed."""
    first = environment("waterwheel")
    others = [environment("waterwheel==1.0"), replace(first, ours=("orjson",)), replace(first, unchecked=("x",))]
    assert len({each.key for each in (first, *others)}) == 4
    assert environment("waterwheel").key == first.key


@pytest.mark.parametrize(
    ("lines", "line", "reason"),
    [
        (["waterwheel", "not-there-at-all>=2"], 3, "not-there-at-all was not found"),
        (["waterwheel==9"], 2, "no version of waterwheel==9"),
        (["waterwheel ==== 1"], 2, "waterwheel ==== 1"),
        (["-e ./mine"], 2, "is a path"),
    ],
)
def test_what_does_not_install_is_told_with_line_reason_and_way_out(
    wheels: Path, tmp_path: Path, lines: list[str], line: int, reason: str
) -> None:
    builder = Environments(tmp_path / "e")
    with pytest.raises(EnvironmentBuildError) as caught:
        builder.build(environment(*lines))
    assert caught.value.line == line, str(caught.value)
    assert reason in str(caught.value)
    assert f"requirements.txt:{line} of mill does not install" in str(caught.value)
    assert "deploy again" in str(caught.value)


def test_without_uv_the_error_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda *_, **__: None)
    with pytest.raises(EnvironmentBuildError, match="pip install uv"):
        Environments(tmp_path / "e").build(environment("waterwheel"))


def test_what_an_app_names_itself_is_not_ours_to_choose(tmp_path: Path) -> None:
    """Its pins count, in the files that its file includes, too."""
    (tmp_path / "graph.yml").write_text("slug: mill\nrequirements_file: deep/requirements.txt\n")
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "requirements.txt").write_text("Pandas==1.5.3\n-r more.txt\n")
    (tmp_path / "deep" / "more.txt").write_text("python_dateutil<2.9\n")
    wanted = environment_of(load_app(tmp_path))
    assert wanted is not None
    assert [path for path, _ in wanted.texts] == ["deep/requirements.txt", "deep/more.txt"]
    names = [each.partition("<")[0].partition(">")[0] for each in wanted.ours]
    assert "pandas" not in names and "python-dateutil" not in names and "pyarrow" in names


NODE = """
import sys
import patterns
import waterwheel
from patterns import Table

out = Table("out", "w")
for row in Table("orders").as_stream():
    out.append({"speed": waterwheel.SPEED})
    print("FROM", sys.prefix, patterns.__file__)
"""


async def test_nodes_run_in_their_apps_environment_and_a_broken_one_stops_nothing(wheels: Path, tmp_path: Path) -> None:
    """`patterns` stays ours whatever is installed; requirements that do not install leave the old version at work."""
    app = tmp_path / "app"
    app.mkdir()
    (app / "node.py").write_text(NODE)
    (app / "requirements.txt").write_text("--no-index\nwaterwheel\nstubs\nours\n")
    (app / "graph.yml").write_text(
        "slug: mill\nrequirements_file: requirements.txt\nfunctions:\n  - {webhook: orders, id: orders1}\n"
        "  - {node_file: node.py, id: n1}\nstores:\n  - {table: orders, id: t1}\n  - {table: out, id: t2}\n"
    )
    entries: list[Entry] = []
    house = House(HouseSettings(apps=[app], data_dir=tmp_path / "data", port=0), Runtime(), entries.append)
    await house.start()
    token = orjson.loads((tmp_path / "data" / CONTACT_FILE).read_bytes())["token"]
    try:
        async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {token}"}) as session:
            text = await _post(house, session, entries)
            prefix, _, place = text.removeprefix("FROM ").partition(" ")
            assert Path(prefix).parent == tmp_path / "data" / "environments"
            assert place.startswith(prefix) and "tailrace-code" in place
            (app / "requirements.txt").write_text("--no-index\nwaterwheel==2.0\nours\n")
            with pytest.raises(EnvironmentBuildError, match=r"requirements.txt:2 of mill"):
                await house.load()
            assert await _post(house, session, entries) == text
    finally:
        await house.stop()
    assert not house.failure.done(), house.failure


async def _post(house: House, session: aiohttp.ClientSession, entries: list[Entry]) -> str:
    """What the node prints for one more order."""
    before = len(entries)
    async with session.post(f"{house.base_url}/webhooks/orders1", json={"n": 1}) as response:
        assert response.status == 200
    async with asyncio.timeout(60):
        while True:
            ended = [each for each in entries[before:] if isinstance(each, RunEntry) and each.rows_in]
            if ended:
                assert ended[0].kind == "ok", (ended[0].error, ended[0].traceback)
                return next(each.text for each in entries[before:] if isinstance(each, LogLine) and "FROM" in each.text)
            await asyncio.sleep(0.02)
