"""What all tests share: the real broker, and a real S3 server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from full_disk import mounted
from hypothesis import HealthCheck, settings
from s3_server import S3Server, begin_build, find_server

from tailrace.testing.kafka import LocalKafka

# Before any test file imports it: its assertions then tell what they compared.
pytest.register_assert_rewrite("log_contract")

# How long an example takes says how busy the machine is.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")

_TURNS = ("crash", "cli", "golden", "contract", "s3", "unit/test_engine_simulator.py", "property")
"""Folders and files with long tests go first: of several processes none is left with a long file at the end. Files whose
tests take the S3 server wait until it may have been built."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    folders = Path(__file__).parent
    on_s3 = {item.path for item in items if _takes_s3(item)}

    def turn(item: pytest.Item) -> int:
        file = item.path.relative_to(folders)
        kinds = {"s3"} if item.path in on_s3 else {file.as_posix(), file.parts[0]}
        return next((place for place, kind in enumerate(_TURNS) if kind in kinds), len(_TURNS))

    items.sort(key=turn)


def pytest_collection_finish(session: pytest.Session) -> None:
    if any(map(_takes_s3, session.items)) and not session.config.option.collectonly:
        begin_build()


def _takes_s3(item: pytest.Item) -> bool:
    return "s3" in getattr(item, "fixturenames", ())


@pytest.fixture(scope="session")
def kafka_broker() -> Iterator[LocalKafka]:
    """A real Kafka for this session (with pytest-xdist: one a worker); tests use fresh names on it."""
    with LocalKafka() as broker:
        yield broker


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 24 MiB."""
    with mounted(tmp_path / "disk") as folder:
        yield folder


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """A real S3 server for this session, which has to be built the first time; tests use prefixes of their own."""
    program = find_server()
    if program is None:
        pytest.skip("the S3 server could not be built (that takes go and a network)")
    server = S3Server(program, tmp_path_factory.mktemp("s3"))
    server.start()
    yield server
    server.stop()


@pytest.fixture
def s3(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> S3Server:
    """The S3 server, with the environment that its clients need."""
    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)
    return s3_server
