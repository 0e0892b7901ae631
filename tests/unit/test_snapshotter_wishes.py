"""How long what stays: what a table asks for comes before its app's wish, and that before the deployment's."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from tailrace.graph import App, load_app
from tailrace.snapshotter import SnapshotterSettings, following
from tailrace.snapshotter.__main__ import _standing
from tailrace.snapshotter.tasks import _limits

DAY = timedelta(days=1)


def app(folder: Path, slug: str, *lines: str) -> App:
    (folder / slug).mkdir()
    stores = ["stores:", "  - {table: plain, id: plain001}", "  - {table: short, id: short001, retention: 12h}"]
    (folder / slug / "graph.yml").write_text("\n".join([f"title: {slug}", f"slug: {slug}", *lines, *stores]))
    return load_app(folder / slug)


def test_a_table_comes_before_its_app_and_that_before_the_deployment(tmp_path: Path) -> None:
    """For its dead letters, too."""
    settings = SnapshotterSettings(log_url="x", lake_url="y", staging_dir="z", retention=30 * DAY)
    settings = following(settings, [app(tmp_path, "own", "retention: 2d"), app(tmp_path, "none")])
    settings = SnapshotterSettings.from_json(settings.to_json())
    kept = {
        topic: _limits(settings, topic).retention
        for topic in ("own.plain001", "own.short001", "own.short001-dead", "none.plain001", "none.short001")
    }
    assert kept == {
        "own.plain001": 2 * DAY,
        "own.short001": DAY / 2,
        "own.short001-dead": DAY / 2,
        "none.plain001": 30 * DAY,
        "none.short001": DAY / 2,
    }


def test_a_snapshotter_that_stands_alone_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for variable, arguments, wanted in (
        ("", [], 7 * DAY),
        ("3d", [], 3 * DAY),
        ("3d", ["--retention", "12h"], DAY / 2),
    ):
        monkeypatch.setenv("TAILRACE_RETENTION", variable)
        settings = _standing(["--log", "sqlite:///log.db", "--data", "/nowhere", *arguments])
        assert settings is not None and settings.retention == wanted
    with pytest.raises(SystemExit):
        _standing(["--log", "sqlite:///log.db", "--retention", "0d"])
    assert "--retention" in capsys.readouterr().err
