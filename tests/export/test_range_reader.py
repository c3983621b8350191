"""Ranges of a key from Parquet files: equal to a brute-force selection, edges included."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from catalogproc.contract import load_contract
from catalogproc.export.range_reader import RowGroups, Sorter, list_row_groups
from catalogproc.export.where import parse


def table(keys: np.ndarray) -> pa.Table:
    return pa.table({"source_id": pa.array(keys), "mass": pa.array(keys % 7, pa.float32())})


def write_groups(path: Path, keys: np.ndarray, rows_per_group: int) -> Path:
    pq.write_table(table(keys), path, row_group_size=rows_per_group)
    return path


@pytest.mark.parametrize("seed", range(5))
def test_every_range_is_read_like_by_brute_force(tmp_path: Path, seed: int) -> None:
    """Small integers, so that most ranges begin and end on a key and on the edge of a group."""
    rng = np.random.default_rng(seed)
    parts = [rng.integers(-5, 15, 23) for _ in range(3)]
    files = [write_groups(tmp_path / f"{n}", keys, 4) for n, keys in enumerate(parts)]
    keys = np.concatenate(parts)
    condition = parse("mass > 2", load_contract("catalog"))
    for columns in (["mass", "source_id"], ["mass"]):
        all_groups = list_row_groups(files, "source_id", columns)
        selected = list_row_groups(files, "source_id", columns, condition)
        for low in range(-7, 17):
            for high in range(low, 17):
                inside = keys[(keys >= low) & (keys <= high)]
                found = all_groups.read_range(low, high)
                assert found.column_names == columns
                assert sorted(found["mass"].to_pylist()) == sorted(inside % 7)
                found = selected.read_range(low, high)
                assert sorted(found["mass"].to_pylist()) == sorted(m for m in inside % 7 if m > 2)


def test_a_file_without_statistics_is_read_for_every_range(tmp_path: Path) -> None:
    pq.write_table(table(np.array([3, 1, 2])), tmp_path / "x", write_statistics=False)
    row_groups = list_row_groups([tmp_path / "x"], "source_id", ["source_id"])
    assert row_groups.read_range(2, 2)["source_id"].to_pylist() == [2]
    assert row_groups.rows_to_read(np.array([0, 5]), np.array([4, 9])) == 6


@pytest.mark.parametrize("seed", range(20))
def test_rows_to_read_are_those_of_the_groups_that_overlap_each_range(seed: int) -> None:
    rng = np.random.default_rng(seed)
    low = np.sort(rng.integers(0, 20, 12))
    high = low + rng.integers(0, 5, 12)
    rows = rng.integers(1, 100, 12)
    groups = RowGroups("k", (), None, pa.schema([]), (), (), low, high, rows)
    edges = np.sort(rng.choice(24, 8, replace=False))
    first, last = edges[::2], edges[1::2]  # ranges [first, last], sorted, apart from each other
    wanted = sum(
        int(count)
        for a, b, count in zip(low, high, rows, strict=True)
        for c, d in zip(first, last, strict=True)
        if a <= d and b >= c
    )
    assert groups.rows_to_read(first, last) == wanted


def test_sorted_files_hold_every_row_once_and_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from catalogproc.export import range_reader

    monkeypatch.setattr(range_reader, "ROWS_PER_SORT", 50)
    monkeypatch.setattr(range_reader, "ROWS_PER_GROUP", 8)
    rng = np.random.default_rng(1)
    keys = rng.integers(-(1 << 62), 1 << 62, 500)
    sorter = Sorter(tmp_path, "source_id")
    for part in np.array_split(keys, 40):
        sorter.add(table(part))
    row_groups = sorter.row_groups(["source_id"])
    assert sorter.rows == row_groups.rows.sum() == 500
    for path in tmp_path.iterdir():
        assert (np.diff(pq.read_table(path)["source_id"].to_numpy()) >= 0).all()
    low, high = int(keys.min()), int(keys.max())
    found = row_groups.read_range(low, high)["source_id"].to_numpy()
    np.testing.assert_array_equal(np.sort(found), np.sort(keys))
