"""A made-up next release: other lengths and basis functions, made from real spectra."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
from support.xp_files import ARRAYS, real

from catalogproc.release import Release, load_release

IDS = {"bp": 901, "rp": 902}
LENGTHS = {"bp": 51, "rp": 55}
OWN = f"""\
version = 1
name = "own"
like = "dr4"
title = "Gaia of tests"
[bands.bp]
basis_function_id = {IDS["bp"]}
[bands.rp]
basis_function_id = {IDS["rp"]}
"""
PHOTOMETRY = """
[photometry.magnitudes]
G = { zero_point = 25.7, zero_point_error = 0.003 }
BP = { zero_point = 25.3, zero_point_error = 0.003 }
RP = { zero_point = 24.7, zero_point_error = 0.004 }
[extinction]
terms = [[0.9, 0, 0]]
teff = [3500.0, 10000.0]
a_0 = [0.01, 20.0]
"""


def own_file(folder: Path, more: str = "") -> Path:
    """Write a user's release file: what ships for DR4, with basis functions."""
    path = folder / "own.toml"
    path.write_text(OWN + more)
    return path


def own_release(folder: Path, more: str = "") -> Release:
    """Return the release of :func:`own_file`."""
    return load_release(own_file(folder, more))


def cut(table: pa.Table, lengths: dict[str, int]) -> pa.Table:
    """Return spectra with only the first coefficients of each band."""
    columns = {
        name: pa.array([row and row[: lengths[name[:2]]] for row in table.column(name).to_pylist()])
        if name in ARRAYS
        else table.column(name)
        for name in table.column_names
    }
    return pa.table(columns)


def with_ids(table: pa.Table, ids: dict[str, int | None]) -> pa.Table:
    """Return spectra with columns of basis functions."""
    for band, number in ids.items():
        column = pa.array([number] * len(table), pa.int16())
        table = table.append_column(f"{band}_basis_function_id", column)
    return table


def next_spectra(rows: int = 20) -> pa.Table:
    """Return spectra of the made-up release."""
    return with_ids(cut(real(rows), LENGTHS), dict(IDS))
