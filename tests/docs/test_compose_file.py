"""docker-compose.yml, its page and its file of settings."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

import compose

TEXT = compose.COMPOSE_FILE.read_text()
SERVICES = yaml.safe_load(TEXT)["services"]


def test_what_can_be_set_is_explained() -> None:
    """Each variable is in the table of deploy/README.md, by its name or by its pattern."""
    page = (compose.DEPLOY / "README.md").read_text()
    inner = {"TAILRACE_VERSION", "ENV_FILE"}
    names = set(re.findall(r"\$\{([A-Z_0-9]+)", TEXT)) - inner
    patterns = {"MEMORY", "CPUS"}
    assert [name for name in sorted(names) if f"`{name}`" not in page and name.rpartition("_")[2] not in patterns] == []


@pytest.mark.parametrize("service", sorted(SERVICES))
def test_each_service_is_confined(service: str) -> None:
    """No root to write to, no capabilities, bounds on all that it could take; ports on loopback unless told."""
    settings = SERVICES[service]
    assert settings["read_only"] and settings["cap_drop"] == ["ALL"]
    assert all(settings[bound] for bound in ("mem_limit", "cpus", "pids_limit", "restart"))
    assert all(port.startswith("${BIND_ADDRESS:-127.0.0.1}:") for port in settings.get("ports", []))


def test_credentials_are_random_and_stay(tmp_path: Path) -> None:
    """Only the owner reads them, no two installations share them, and what a person wrote is kept."""
    files = [tmp_path / "one.env", tmp_path / "two.env"]
    files[0].write_text("# mine\nAPPS_DIR=/apps\n")
    for file in files:
        compose.settle_environment(file)
    first, second = map(compose.read_environment, files)
    secret = {"KAFKA_PASSWORD", "S3_ACCESS_KEY", "S3_SECRET_KEY", "KAFKA_CLUSTER_ID"}
    assert all(len(first[name]) >= 20 and first[name] != second[name] for name in secret)
    assert [file.stat().st_mode & 0o777 for file in files] == [0o600, 0o600]
    compose.settle_environment(files[0])
    assert compose.read_environment(files[0]) == first
    assert files[0].read_text().startswith("# mine\nAPPS_DIR=/apps\n")
