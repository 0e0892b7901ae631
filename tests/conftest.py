"""What all tests share: the real broker, and a real S3 server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from full_disk import mounted
from hypothesis import HealthCheck, settings
from s3_server import S3Server, find_server

from tailrace.testing.kafka import LocalKafka

# Before any test file imports it: its assertions then tell what they compared.
pytest.register_assert_rewrite("log_contract")

# How long an example takes says how busy the machine is.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")

_LONG_FIRST = ("crash", "cli", "golden", "contract", "property")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Folders with long tests go first: of several processes none is left with a long file at the end."""
    folders = Path(__file__).parent

    def turn(item: pytest.Item) -> int:
        folder = item.path.relative_to(folders).parts[0]
        return _LONG_FIRST.index(folder) if folder in _LONG_FIRST else len(_LONG_FIRST)

    items.sort(key=turn)


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
