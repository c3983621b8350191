"""Spectra in files of one star each, as the archive's DataLink service hands them out."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
from support.xp_files import ARRAYS, COLUMNS, COUNTS, csv_bytes, fits_bytes, matrix, votable

KINDS = ("csv", "fits", "xml", "ecsv")


def content(table: pa.Table, kind: str) -> bytes:
    """Return spectra as a file of one of the kinds."""
    if kind == "fits":
        columns = {"source_id": ("K", table["source_id"].to_numpy())}
        columns |= {name: ("I", table[name].to_numpy()) for name in COUNTS}
        columns |= {name: ("55D", matrix(table, name)) for name in ARRAYS}
        return fits_bytes(columns)
    if kind == "xml":
        return votable(table.to_pylist(), "BINARY2")
    return csv_bytes(table.to_pylist(), COLUMNS, ecsv=kind == "ecsv")


def write_stars(folder: Path, table: pa.Table) -> list[Path]:
    """Write each star to a file of its own, of each kind in turn; return the files in order."""
    folder.mkdir(parents=True)
    files = []
    for number in range(len(table)):
        kind = KINDS[number % len(KINDS)]
        files.append(folder / f"star{number:03}.{kind}")
        files[-1].write_bytes(content(table.slice(number, 1), kind))
    return files
