"""Exported files, and a small table with columns of every type, for tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa

from catalogproc.contract import Column, Contract
from catalogproc.export.binary_rows import RecordTable, string_widths
from catalogproc.export.export import export_catalog
from catalogproc.io.atomic import AtomicFile

SUFFIXES = {
    "fits": "fits",
    "votable": "vot",
    "parquet": "parquet",
    "ecsv": "ecsv",
    "csv": "csv",
}


def exported(folder: Path, format: str, place: Path, **options: object) -> Path:
    """Export a run to a file in a folder, and return its path."""
    path = place / f"catalog.{SUFFIXES[format]}"
    export_catalog(folder, format, path, **options)  # type: ignore[arg-type]
    return path


NULLABLE = Contract(
    "things",
    1,
    "columns of every type, each of which may be null",
    (
        *(
            Column(kind, kind, f"a {kind}", nullable=True, ucd="meta.code")
            for kind in ("int64", "int32", "int16", "float64", "float32", "bool", "string")
        ),
        Column("number", "int64", "never null"),
    ),
)


def things(rows: int) -> pa.RecordBatch:
    """Return rows in which every third value is null, with another offset in each column."""
    rng = np.random.default_rng(rows)
    arrays = []
    for place, column in enumerate(NULLABLE.columns[:-1]):
        if column.type == "string":
            values: list[object] = ["x" * int(n) for n in rng.integers(0, 30, rows)]
        elif column.type == "bool":
            values = (rng.random(rows) < 0.5).tolist()
        else:
            values = rng.integers(-1000, 1000, rows).tolist()
        for row in range(place % 3, rows, 3):
            values[row] = None
        arrays.append(pa.array(values, column.arrow_type))
    arrays.append(pa.array(np.arange(rows)))
    return pa.record_batch(arrays, names=list(NULLABLE.names))


Write = Callable[..., None]


def written(write: Write, path: Path, batches: list[pa.RecordBatch], extra: object) -> Path:
    """Write batches of :data:`NULLABLE` by write_fits or write_votable, and return the path."""
    rows = sum(batch.num_rows for batch in batches)
    table = RecordTable(NULLABLE, batches, rows, string_widths(NULLABLE, batches))
    with AtomicFile(path) as file:
        write(file, table, extra)
    return path
