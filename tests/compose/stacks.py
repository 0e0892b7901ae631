"""The services of docker-compose.yml as containers; and the same as processes, where no docker daemon answers."""

from __future__ import annotations

import itertools
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import yaml
from s3_server import S3Server, find_server

import compose
from tailrace.testing.kafka import LocalKafka

READY_S = 180.0
STOP_S = 40.0


class Stack(Protocol):
    """Kafka, an S3 server, gateways, runners and snapshotters, with apps deployed."""

    @property
    def log_url(self) -> str:
        """The log, for programs of this machine."""
        ...

    def start(self, apps: Path, scale: Mapping[str, int]) -> None:
        """Start everything, with the apps that lie in a folder; returns when it is healthy."""
        ...

    def gateways(self) -> list[str]:
        """Where the gateways are now: `host:port`."""
        ...

    def kill(self, service: str) -> None:
        """`kill -9` one replica, whose supervisor starts it again."""
        ...

    def restart(self, service: str, index: int) -> None:
        """Stop one replica in order, and start it again."""
        ...

    def ask(self, code: str) -> str:
        """What a Python program prints that is run with the snapshotter's settings."""
        ...

    def replicas(self, service: str) -> int:
        """How many are running."""
        ...

    def stop(self) -> None:
        """End everything, and delete its data."""
        ...


class Containers:
    """The stack in docker, as `make compose-up` starts it."""

    def __init__(self, folder: Path) -> None:
        self._environment = folder / "test.env"
        self._compose: compose.Compose | None = None
        self._project = f"tailrace-test-{os.getpid()}"
        self.timings: list[str] = []

    @property
    def log_url(self) -> str:
        known = compose.read_environment(self._environment)
        sasl = f"sasl.mechanism=PLAIN&sasl.username=tailrace&sasl.password={known['KAFKA_PASSWORD']}"
        return f"kafka://127.0.0.1:{known['KAFKA_PORT']}?security.protocol=SASL_PLAINTEXT&{sasl}"

    def start(self, apps: Path, scale: Mapping[str, int]) -> None:
        first = free_ports(10)
        wishes = {"APPS_DIR": apps, "KAFKA_PORT": free_ports(), "GATEWAY_PORTS": f"{first}-{first + 9}"}
        self._environment.write_text("".join(f"{name}={value}\n" for name, value in wishes.items()))
        self._environment.chmod(0o600)
        scales = [word for service, count in scale.items() for word in ("--scale", f"{service}={count}")]
        self._script("up", *scales)
        self._compose = compose.Compose(self._project, self._environment)

    def gateways(self) -> list[str]:
        return self._project_of().addresses("gateway", 8700)

    def kill(self, service: str) -> None:
        name = self._names(service)[0]
        starts = self._inspect(name)["RestartCount"]
        kill = "kill -KILL $(cat /proc/1/task/1/children)"  # the service itself: the first process is docker's init
        subprocess.run(["docker", "exec", name, "bash", "-c", kill], check=False, capture_output=True)
        wait_until(lambda: self._inspect(name)["RestartCount"] > starts, f"docker starts {name} again")
        self._project_of().wait_until_healthy()

    def restart(self, service: str, index: int) -> None:
        name = self._names(service)[index]
        subprocess.run(["docker", "restart", "--time", "30", name], check=True, stdout=subprocess.DEVNULL)
        self._project_of().wait_until_healthy()

    def ask(self, code: str) -> str:
        command = ["docker", "exec", self._names("snapshotter")[0], "python", "-c", code]
        return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout

    def replicas(self, service: str) -> int:
        return len(self._names(service))

    def logs(self) -> str:
        """The last lines of each container, for whoever looks for a fault."""
        names = [each["Name"].lstrip("/") for each in self._project_of().containers()]
        told = [
            subprocess.run(["docker", "logs", "--tail", "15", name], check=False, capture_output=True, text=True)
            for name in names
        ]
        return "\n".join(f"-- {name}\n{each.stdout}{each.stderr}" for name, each in zip(names, told, strict=True))

    def stop(self) -> None:
        self._script("down", "--volumes")

    def _script(self, command: str, *words: str) -> None:
        where = ["--project", self._project, "--env", str(self._environment)]
        subprocess.run(
            [sys.executable, compose.__file__, command, *where, *words], check=True, stdin=subprocess.DEVNULL
        )

    def _project_of(self) -> compose.Compose:
        return self._compose or compose.Compose(self._project, self._environment)

    def _names(self, service: str) -> list[str]:
        found = self._project_of().containers(service)
        return sorted(each["Name"].lstrip("/") for each in found if each["State"]["Running"])

    def _inspect(self, name: str) -> dict[str, Any]:
        return next(each for each in self._project_of().containers() if each["Name"].lstrip("/") == name)


class Processes:
    """The same services as processes of this machine: their commands and settings come from docker-compose.yml."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._kafka = LocalKafka(folder=folder / "kafka")
        self._s3: S3Server | None = None
        self._services: dict[str, Any] = yaml.safe_load(compose.COMPOSE_FILE.read_text())["services"]
        self._replicas: dict[str, list[_Replica]] = {}

    @property
    def log_url(self) -> str:
        return self._kafka.url

    def start(self, apps: Path, scale: Mapping[str, int]) -> None:
        program = find_server()
        assert program is not None, "the S3 server could not be built (that takes go and a network)"
        self._kafka.start()
        (self._folder / "s3").mkdir()
        self._s3 = S3Server(program, self._folder / "s3")
        self._s3.start()
        command = [sys.executable, "-m", "tailrace.cli", "deploy", *map(str, sorted(apps.iterdir()))]
        subprocess.run(command, check=True, env=self._environment("setup", self._folder, 0))
        for service, count in {"snapshotter": 1, "gateway": 1, "runner": 1, **scale}.items():
            made = [self._replica(service, self._folder / f"{service}-{index}") for index in range(count)]
            self._replicas[service] = made
            for each in made:
                each.start()
        for replica in (each for replicas in self._replicas.values() for each in replicas):
            replica.wait_until_healthy()

    def gateways(self) -> list[str]:
        return [f"127.0.0.1:{each.port}" for each in self._replicas["gateway"]]

    def kill(self, service: str) -> None:
        self._replicas[service][0].process.kill()
        self._replicas[service][0].process.wait()
        self._replicas[service][0].start()
        self._replicas[service][0].wait_until_healthy()

    def restart(self, service: str, index: int) -> None:
        replica = self._replicas[service][index]
        replica.end()
        replica.start()
        replica.wait_until_healthy()

    def ask(self, code: str) -> str:
        environment = self._environment("snapshotter", self._folder, 0)
        command = [sys.executable, "-c", code]
        return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment).stdout

    def replicas(self, service: str) -> int:
        return sum(each.process.poll() is None for each in self._replicas[service])

    def logs(self) -> str:
        """The last lines of each process."""
        files = sorted(self._folder.glob("*/output"))
        return "\n".join(f"-- {file.parent.name}\n{file.read_text()[-2000:]}" for file in files)

    def stop(self) -> None:
        for replicas in self._replicas.values():
            for each in replicas:
                each.end()
        if self._s3 is not None:
            self._s3.stop()
        self._kafka.stop()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _replica(self, service: str, folder: Path) -> _Replica:
        folder.mkdir()
        port = free_ports()
        command = [sys.executable, *self._services[service]["command"][1:]]
        checks = self._services[service].get("healthcheck", {}).get("test")
        path = checks[-1] if checks else None
        return _Replica(command, self._environment(service, folder, port), folder, port, path)

    def _environment(self, service: str, folder: Path, port: int) -> dict[str, str]:
        assert self._s3 is not None
        wanted = {name: _default(value) for name, value in self._services[service]["environment"].items()}
        ours = {
            "TAILRACE_LOG": self._kafka.url,
            "TAILRACE_LAKE": "s3://lake/lake",
            "TAILRACE_DATA": str(folder),
            "TAILRACE_INSTANCE": folder.name,
            "TAILRACE_HOST": "127.0.0.1",
            "TAILRACE_PORT": str(port),
            "TAILRACE_OPS_HOST": "127.0.0.1",
            "TAILRACE_OPS_PORT": "0",
        }
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("TAILRACE_", "AWS_"))}
        return {**kept, **wanted, **ours, **self._s3.environment}


class _Replica:
    def __init__(
        self, command: list[str], environment: dict[str, str], folder: Path, port: int, health: str | None
    ) -> None:
        self.port = port
        self.process: subprocess.Popen[bytes]
        self._command, self._environment, self._folder, self._health = command, environment, folder, health

    def start(self) -> None:
        with (self._folder / "output").open("ab") as output:
            self.process = subprocess.Popen(
                self._command,
                env=self._environment,
                cwd=self._folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )

    def wait_until_healthy(self) -> None:
        if self._health is not None:
            wait_until(self._healthy, f"{self._folder.name} is healthy", READY_S)

    def end(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def _healthy(self) -> bool:
        assert self.process.poll() is None, (
            f"{self._folder.name} ended: {(self._folder / 'output').read_text()[-2000:]}"
        )
        request = f"GET {self._health} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=5) as connection:
                connection.sendall(request.encode())
                return connection.recv(100).split()[1:2] == [b"200"]
        except OSError:
            return False


def _default(value: str) -> str:
    """A setting of docker-compose.yml as it is where nobody set its variables."""
    return re.sub(r"\$\{[A-Z_]+(?::-([^}]*)|:\?[^}]*)\}", lambda found: found[1] or "", value)


_NEXT_PORT = itertools.count(20_000 + os.getpid() % 5_000)


def free_ports(count: int = 1) -> int:
    """The first of some ports in a row that nobody listens on; none is given twice."""
    found: list[int] = []
    while len(found) < count:
        port = next(_NEXT_PORT)
        assert port < 32_000, "no free ports"
        found = [*found, port] if _is_free(port) else []
    return found[0]


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


def wait_until(holds: Any, what: str, timeout_s: float = READY_S) -> None:
    """Returns once `holds()` is true."""
    deadline = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < deadline, f"not within {timeout_s:g} s: {what}"
        time.sleep(0.2)
