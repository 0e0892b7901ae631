"""A worker in a container of the real docker or podman: it answers, sees little, and leaves nothing behind."""

from __future__ import annotations

import asyncio
import io
import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tailrace.node._confine import Reach
from tailrace.runner.sandbox import Container, container_tool, python_folders
from tailrace.runner.workers import WorkerPool, WorkerSpec

HERE = str(Path(__file__).parent)
IMAGE = f"tailrace-test-{os.getpid()}"
MACHINE = [path for path in ("/usr", "/lib", "/lib64", "/bin") if Path(path).exists()]


@pytest.fixture
def tool() -> Iterator[str]:
    """Docker or podman, with an image that has folders to bind to, and nothing in them."""
    found = container_tool()
    if found is None:
        pytest.skip("neither docker nor podman answers `info`")
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for name in ("usr", "lib", "lib64", "bin", "tmp", "proc", "dev", "sys", "etc"):
            folder = tarfile.TarInfo(name)
            folder.type, folder.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(folder)
    subprocess.run([found, "import", "-", IMAGE], input=archive.getvalue(), capture_output=True, check=True)
    binds = [f"--volume={path}:{path}:ro" for path in MACHINE]
    trial = subprocess.run(
        [found, "run", "--rm", "--network=none", *binds, IMAGE, "/bin/true"],
        capture_output=True,
        text=True,
        check=False,
    )
    if trial.returncode:
        pytest.skip(f"{found} answers, and starts no container here: {trial.stderr.strip()[-200:]}")
    yield found
    subprocess.run([found, "rmi", "--force", IMAGE], capture_output=True, check=False)


async def test_a_worker_answers_from_a_container_and_nothing_stays(tool: str, tmp_path: Path) -> None:
    reach = Reach(reads=(HERE,), network=False)
    container = Container(
        reach=reach,
        tool=tool,
        image=IMAGE,
        name=IMAGE,
        memory_bytes_max=1 << 30,
        processes_max=60,
        paths=tuple(python_folders(sys.executable, MACHINE)),
    )
    pool = WorkerPool(folder=tmp_path / "pools", paths=[HERE], preload=(), sandbox=container, spawn_timeout_s=60)
    await pool.start()
    try:
        worker = await pool.spawn(WorkerSpec(entry="workers_entry:serve", reach=reach))
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(worker.sock, b'{"do": "look"}\n')
        seen = json.loads(await loop.sock_recv(worker.sock, 1 << 20))
        assert seen["pid"] < 20, "a pid namespace of its own"
        assert seen["cwd"] == str(pool.folder / "w1")
        assert sorted(map(int, seen["fds"])) == [0, 1, 2, 3]
        assert seen["no_new_privs"] == "1"
        assert (await worker.close()).orderly
        worker.sock.close()
    finally:
        await pool.close()
    left = subprocess.run(
        [tool, "ps", "--all", "--quiet", "--filter", f"name={IMAGE}"], capture_output=True, check=True
    )
    assert left.stdout == b""
    assert list((tmp_path / "pools").iterdir()) == []
