"""Data that ship: every file has a description and a credit, and published files are unchanged."""

from __future__ import annotations

import hashlib
import re
from fnmatch import fnmatch

import numpy as np
import pyarrow.parquet as pq
from support.paths import ROOT

from catalogproc.resources import shipped
from catalogproc.simulation.isochrones import metallicity

README = shipped("grids") / "README.md"


def test_the_readme_names_every_file_and_their_hashes_hold() -> None:
    text = README.read_text(encoding="utf-8")
    assert text.startswith("Published grids")
    for path in README.parent.iterdir():
        assert path == README or path.name in text, path.name
    hashes = re.findall(r"^([0-9a-f]{64})  (\S+)$", text, re.MULTILINE)
    assert len(hashes) == 14
    for wanted, name in hashes:
        found = hashlib.sha256((README.parent / name).read_bytes()).hexdigest()
        assert found == wanted, name


def test_credits_name_every_data_file_that_ships() -> None:
    text = (ROOT / "docs" / "credits.md").read_text(encoding="utf-8")
    rows = [line.split("|")[1] for line in text.splitlines() if line.startswith("| `")]
    patterns = [pattern for row in rows for pattern in re.findall("`([^`]+)`", row)]
    paths = [
        path.relative_to(ROOT).as_posix()
        for folder in ("grids", "examples", "tests/data", "model")
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and path.name != "README.md" and not path.name.startswith(".")
    ]
    assert [p for p in paths if not any(fnmatch(p, pattern) for pattern in patterns)] == []
    assert [pattern for pattern in patterns if not any(fnmatch(p, pattern) for p in paths)] == []


def test_the_grids_are_small_and_hold_no_pickle() -> None:
    files = [path for path in README.parent.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 8e6
    for path in files:
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as arrays:
                assert all(np.isfinite(arrays[name]).all() for name in arrays.files)


def test_isochrones_run_through_their_phases_in_order_of_mass() -> None:
    table = pq.read_table(README.parent / "parsec_evolved.parquet")
    column = {name: table[name].to_numpy() for name in table.column_names}
    assert set(column["phase"]) == {1, 2, 3, 4}
    same = np.all([np.diff(column[name]) == 0 for name in ("z", "log_age", "phase")], axis=0)
    assert (np.diff(column["mass_initial"])[same] >= 0).all()
    assert (column["mass"] <= column["mass_initial"] + 1e-4).all()
    # The Sun of today, Z = 0.01524; its helium is not quite that of the relation.
    assert abs(metallicity(np.array([0.01524]))[0]) < 0.02
