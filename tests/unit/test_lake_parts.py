"""The pure parts of the lake: where tables are, which files are joined, what an error says."""

from __future__ import annotations

import errno
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailrace.errors import SettingError
from tailrace.lake import (
    LakeDamagedError,
    LakeLimits,
    LakeLocation,
    LakeUnavailableError,
    LakeUrlError,
    files_to_join,
)
from tailrace.lake.errors import lake_errors
from tailrace.tables import SnapshotFile

LIMITS = LakeLimits(file_bytes_target=100 << 20)


def test_a_folder_is_a_lake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for url in ("lake", str(tmp_path / "lake"), (tmp_path / "lake").as_uri()):
        lake = LakeLocation.parse(url)
        assert lake.is_local and lake.local_path() == tmp_path / "lake"
        assert lake.storage_options == {}


def test_object_stores_take_their_options_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_REGION", "eu-north-1")
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", "other")
    lake = LakeLocation.parse("s3://bucket/some/prefix/")
    assert lake.url == "s3://bucket/some/prefix" and not lake.is_local
    assert lake.uri("shop/orders_1") == "s3://bucket/some/prefix/shop/orders_1"
    options = lake.storage_options
    assert options["AWS_REGION"] == "eu-north-1" and options["AWS_CONDITIONAL_PUT"] == "etag"
    assert not any(name.startswith("AZURE_") for name in options)


@pytest.mark.parametrize(
    "url", ["", "ftp://x/y", "s3://", "s3:///x", "s3://b/x?y=1", "s3://b/a b", "gs://b/%2e", "50%/lake"]
)
def test_other_urls_are_refused(url: str) -> None:
    with pytest.raises(LakeUrlError, match=r"s3://bucket/prefix"):
        LakeLocation.parse(url)


def test_a_version_has_its_folder_below_its_graph(tmp_path: Path) -> None:
    """Also where one table's name begins as another's."""
    lake = LakeLocation.parse(str(tmp_path))
    assert lake.folder("shop.orders.all", "all_01k3x9v2qd") == "shop/orders.all_01k3x9v2qd"
    for name in ("orders_01k3x9v2qe", "orders_01k3x9v2qd", "orders_old_01k3x9v2qd", "orders"):
        (tmp_path / "shop" / name).mkdir(parents=True)
    assert lake.folders("shop.orders") == ["shop/orders_01k3x9v2qd", "shop/orders_01k3x9v2qe"]
    assert lake.folders("shop.orders_old") == ["shop/orders_old_01k3x9v2qd"]
    assert lake.folders("other.orders") == []


def files(*sizes_bytes: int) -> list[SnapshotFile]:
    return [SnapshotFile(f"part-{at}", 1, size, f"{at:026}", f"{at:026}") for at, size in enumerate(sizes_bytes)]


def test_few_files_stay_as_they_are() -> None:
    assert files_to_join(files(*[1_000] * 7), LIMITS) == []


def test_small_neighbours_are_joined_and_large_ones_not_for_their_sake() -> None:
    """Each row is written again once a tier: a table of megabytes does not move for eight rows."""
    there = files(40 << 20, *[1_000] * 9)
    assert files_to_join(there, LIMITS) == [there[1:]]


def test_full_files_stay_and_part_the_others() -> None:
    there = files(*[1_000] * 8, 100 << 20, *[2_000] * 8)
    assert files_to_join(there, LIMITS) == [there[:8], there[9:]]


def test_smaller_ones_between_large_ones_go_along() -> None:
    there = files(*[1 << 20, 1_000] * 8)
    assert files_to_join(there, LIMITS) == [there]


@given(st.lists(st.integers(1, 200 << 20), max_size=80))
def test_joining_ends_with_few_files_none_too_large(sizes_bytes: list[int]) -> None:
    """Joined again and again, in order, until nothing is left to join."""
    there = files(*sizes_bytes)
    while runs := files_to_join(there, LIMITS):
        for run in runs:
            at = there.index(run[0])
            assert list(run) == there[at : at + len(run)] and len(run) >= LIMITS.files_joined_min
            size = sum(file.size_bytes for file in run)
            assert size <= LIMITS.file_bytes_target * 5 // 4
            there[at : at + len(run)] = [run[0]._replace(size_bytes=size, last_id=run[-1].last_id)]
    tiny = [file for file in there if file.size_bytes <= 64 << 10]
    assert len(tiny) <= 7 * (1 + len(there) - len(tiny))


@pytest.mark.parametrize(
    "setting", [{"file_bytes_target": 0}, {"files_joined_min": 1}, {"commits_kept": 10}, {"conflicts_max": 0}]
)
def test_limits_that_cannot_work_are_refused(setting: dict[str, int]) -> None:
    with pytest.raises(SettingError, match=next(iter(setting))):
        LakeLimits(**setting)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("error", "meant"),
    [
        (PermissionError(errno.EACCES, "Permission denied"), LakeUnavailableError),
        (OSError(errno.ENOSPC, "No space left on device"), LakeUnavailableError),
        (TimeoutError(), LakeUnavailableError),
        (FileNotFoundError(errno.ENOENT, "No such file"), LakeDamagedError),
        (OSError("Couldn't deserialize thrift"), LakeDamagedError),
        (pa.ArrowInvalid("Parquet magic bytes not found"), LakeDamagedError),
    ],
)
def test_what_fails_below_is_told_with_table_and_file(error: Exception, meant: type[Exception]) -> None:
    """Retriable where the cause may go away; else a person's business."""
    with pytest.raises(meant, match=r"shop/orders_1: part-1"), lake_errors("shop/orders_1", "part-1"):
        raise error
