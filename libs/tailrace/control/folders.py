"""The files of deployed apps on this machine: a folder for each content, whole or not there.

It is a cache of the control log: what is missing is unpacked again.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from tailrace.control.archive import content_hash
from tailrace.graph import App
from tailrace.runtime import SYSTEM, Runtime

__all__ = ["place_files"]


def place_files(app: App, apps_dir: Path, runtime: Runtime = SYSTEM) -> Path:
    """The app's files in `<apps_dir>/<slug>/<content hash>/<slug>`; returns that folder.

     1. `files-written`   beside their place, on disk; a death leaves a folder that the next one throws away.
     2. `files-placed`    the folder was renamed: from now on it is whole, and never changes.

    Folders of other contents are left alone: a run may be in them.
    """
    target = apps_dir / app.slug / content_hash(app.slug, app.root_file, app.files) / app.slug
    if target.exists():
        return target
    building = target.parent.with_name(f".{target.parent.name}.{os.getpid()}")
    shutil.rmtree(building, ignore_errors=True)
    (building / app.slug).mkdir(parents=True)
    for path, data in app.files.items():
        file = building / app.slug / path
        assert file.resolve().is_relative_to(building.resolve()), f"{path} leaves the app's folder"
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("wb") as opened:
            opened.write(data)
            opened.flush()
            os.fsync(opened.fileno())
    runtime.probe.reached("files-written")
    try:
        building.rename(target.parent)
    except OSError:  # another process was first
        shutil.rmtree(building, ignore_errors=True)
    runtime.probe.reached("files-placed")
    return target
