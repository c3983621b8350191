"""Files of XP spectra for the tests of sources/: real ones, and every dialect made from them."""

from __future__ import annotations

import base64
import csv
import gzip
import io
import json
import struct
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from support.paths import DATA, EXAMPLES

from catalogproc.readers.xp import read_spectra

ARCHIVE = DATA / "archive_formats"
CORRELATED = DATA / "gaia_xp_correlated" / "xp_continuous_30.parquet"
AUXILIARY = DATA / "gaia_xp_correlated" / "gaia_source_30.parquet"

ARRAYS = tuple(
    f"{band}_{word}" for band in ("bp", "rp") for word in ("coefficients", "coefficient_errors")
)
COUNTS = ("bp_n_relevant_bases", "rp_n_relevant_bases")
CORRELATIONS = ("bp_coefficient_correlations", "rp_coefficient_correlations")
LISTS = (*ARRAYS, *CORRELATIONS)
COLUMNS = (
    "source_id", *COUNTS, "bp_coefficients", "bp_coefficient_errors", "rp_coefficients",
    "rp_coefficient_errors",
)  # fmt: skip


@cache
def real(rows: int = 1500) -> pa.Table:
    """The 1,500 real spectra, or the first of them, as pyarrow alone reads them."""
    files = sorted(EXAMPLES.glob("*.parquet"))
    whole = pa.concat_tables([pq.read_table(file) for file in files]).combine_chunks()
    return whole.select(COLUMNS).slice(0, rows)


def needed_bytes(file: Path | pa.BufferReader, columns: Sequence[str]) -> int:
    """Bytes of some columns, by the footer as pyarrow reads it."""
    footer = pq.ParquetFile(file).metadata
    return sum(
        footer.row_group(group).column(index).total_compressed_size
        for group in range(footer.num_row_groups)
        for index in range(footer.num_columns)
        if footer.row_group(group).column(index).path_in_schema.split(".")[0] in columns
    )


def plain_csv(path: Path) -> list[dict[str, Any]]:
    """A CSV or ECSV of spectra, read by Python's own csv and json."""
    csv.field_size_limit(sys.maxsize)
    lines = path.read_text().splitlines()
    rows = csv.DictReader(line for line in lines if not line.startswith("#"))
    return [{name: _plain(name, text) for name, text in row.items()} for row in rows]


def _plain(name: str, text: str) -> Any:
    if text in ("", "null"):
        return None
    if name in LISTS:
        return json.loads("[" + text.strip("()[]") + "]")
    return int(text) if name == "source_id" or name in COUNTS else text


def listed(
    table: pa.Table | pa.RecordBatch, kind: Callable[[pa.DataType], pa.DataType]
) -> pa.Table:
    """The table with each list column cast to another kind of list."""
    columns = {
        name: table.column(name).cast(kind(table.schema.field(name).type.value_type))
        if name in ARRAYS
        else table.column(name)
        for name in table.column_names
    }
    return pa.table(columns)


def written(table: pa.Table, begin: str, between: str, end: str) -> pa.Table:
    """The table with each list column written out as text."""

    def text(values: list[float] | None) -> str | None:
        return None if values is None else begin + between.join(map(repr, values)) + end

    columns = {
        name: pa.array([text(row) for row in table.column(name).to_pylist()])
        if name in LISTS
        else table.column(name)
        for name in table.column_names
    }
    return pa.table(columns)


def scattered(table: pa.Table, spelling: Callable[[str, int], str]) -> pa.Table:
    """The table with a column for each element of each list."""
    columns: dict[str, Any] = {}
    for name in table.column_names:
        if name not in ARRAYS:
            columns[name] = table.column(name)
            continue
        rows = table.column(name).to_pylist()
        count = max(len(row) for row in rows if row is not None)
        for place in range(count):
            element = [None if row is None else row[place] for row in rows]
            columns[spelling(name, place)] = pa.array(element, pa.float64())
    return pa.table(columns)


def csv_bytes(rows: Iterable[Mapping[str, Any]], names: Iterable[str], ecsv: bool = False) -> bytes:
    """Spectra as the archive writes them: arrays in brackets of its kind, within quotes."""
    out = io.StringIO()
    begin, between, end = ("[", ",", "]") if ecsv else ("(", ", ", ")")
    if ecsv:
        out.write("# %ECSV 1.0\n# ---\n# delimiter: ','\n# datatype:\n")
    out.write(",".join(names) + "\n")
    for row in rows:
        cells = []
        for name in names:
            value = row[name]
            if isinstance(value, list):
                value = '"' + begin + between.join(map(repr, value)) + end + '"'
            cells.append(("null" if ecsv else "") if value is None else str(value))
        out.write(",".join(cells) + "\n")
    return out.getvalue().encode()


def zipped(content: bytes) -> bytes:
    return gzip.compress(content, 1, mtime=0)


_VOTABLE_TYPES = {"long": "q", "short": "h", "double": "d", "float": "f"}


def votable(rows: Iterable[Mapping[str, Any]], data: str, names: Iterable[str] = COLUMNS) -> bytes:
    """Spectra as a VOTable, written from the standard with struct.

    astropy 8.0.2 writes variable-length float arrays as doubles in BINARY and BINARY2, and
    cannot read its own files.
    """
    names = tuple(names)
    kinds = {n: "long" if n == "source_id" else "short" if n in COUNTS else
             "double" if n.endswith("coefficients") else "float" for n in names}  # fmt: skip
    rest = dict.fromkeys(COUNTS, '><VALUES null="-1"/></FIELD>') | dict.fromkeys(
        LISTS, ' arraysize="*"/>'
    )
    fields = "".join(f'<FIELD name="{n}" datatype="{kinds[n]}"' + rest.get(n, "/>") for n in names)
    if data == "TABLEDATA":
        cells = "".join("<TR>" + "".join(_cell(row[n]) for n in names) + "</TR>\n" for row in rows)
        body = f"<TABLEDATA>{cells}</TABLEDATA>"
    else:
        packed = base64.encodebytes(b"".join(_packed(r, names, kinds, data) for r in rows)).decode()
        body = f'<{data}><STREAM encoding="base64">{packed}</STREAM></{data}>'
    return (
        '<?xml version="1.0"?><VOTABLE version="1.4" xmlns="http://www.ivoa.net/xml/VOTable/v1.3">'
        f"<RESOURCE><TABLE>{fields}<DATA>{body}</DATA></TABLE></RESOURCE></VOTABLE>"
    ).encode()


def _cell(value: Any) -> str:
    if value is None:
        return "<TD/>"
    return f"<TD>{' '.join(map(repr, value)) if isinstance(value, list) else value}</TD>"


def _packed(
    row: Mapping[str, Any], names: tuple[str, ...], kinds: Mapping[str, str], data: str
) -> bytes:
    out = b""
    if data == "BINARY2":
        bits = "".join("01"[row[n] is None] for n in names).ljust(-(-len(names) // 8) * 8, "0")
        out += int(bits, 2).to_bytes(len(bits) // 8, "big")
    for name in names:
        value, code = row[name], _VOTABLE_TYPES[kinds[name]]
        if name in LISTS:
            out += struct.pack(f">i{len(value or ())}{code}", len(value or ()), *(value or ()))
        else:
            out += struct.pack(f">{code}", -1 if value is None else value)
    return out


def fits_bytes(columns: Mapping[str, tuple[str, Any]], **cards: Any) -> bytes:
    """A FITS table from columns of (format, values), by astropy."""
    from astropy.io import fits

    made = [fits.Column(name, form, array=values) for name, (form, values) in columns.items()]
    unit = fits.BinTableHDU.from_columns(made)
    unit.header.update(cards)
    out = io.BytesIO()
    fits.HDUList([fits.PrimaryHDU(), unit]).writeto(out)
    return out.getvalue()


def parquet_bytes(table: pa.Table, **options: Any) -> bytes:
    out = io.BytesIO()
    pq.write_table(table, out, **options)
    return out.getvalue()


def matrix(table: pa.Table | pa.RecordBatch, name: str) -> np.ndarray:
    """A list column without nulls as a matrix."""
    return np.array(table.column(name).to_pylist())


def spectra(path: Path, **options) -> pa.Table:
    return pa.Table.from_batches(list(read_spectra(path, **options)))


def put(folder: Path, name: str, content: bytes) -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


def same(found: pa.Table, wanted: pa.Table) -> bool:
    """Equal bit for bit in every column of spectra, whatever the width of the wanted ones."""
    return all(
        found.column(name).combine_chunks().equals(
            wanted.column(name).cast(found.schema.field(name).type).combine_chunks()
        )
        for name in COLUMNS
    )  # fmt: skip


def agrees(found: pa.Table, rows: list[dict], names=(*COLUMNS, *CORRELATIONS)) -> bool:
    """Equal to plain Python's reading; errors and correlations are 32-bit numbers."""
    for name in names:
        for value, wanted in zip(
            found.column(name).to_pylist(), (r[name] for r in rows), strict=True
        ):
            if name == "source_id" or name in COUNTS or wanted is None:
                assert value == wanted, name
            else:
                kind = np.float64 if name.endswith("coefficients") else np.float32
                assert (np.array(value, kind) == np.array(wanted).astype(kind)).all(), name
    return True
