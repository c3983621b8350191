"""Disturbed columns written as tables: of Arrow, pandas, astropy, and files of every format."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from support.disturbed import Dice, Disturbed
from support.fits_files import ascii_table, colfits

WORDS = ("", "NA", "null", "nan", "--", "N/A", "None")
"""How text says that a value is missing."""


def arrow(columns: list[Disturbed], dice: Dice, *, units: bool = True) -> pa.Table:
    """A table of Arrow: nulls, NaN or columns NAME.mask; lists of every kind, and structs."""
    fields: list[tuple[pa.Field, pa.Array]] = []
    for column in columns:
        array, mask = _arrow_column(column, dice)
        metadata = {"unit": column.unit} if units and column.unit else None
        fields.append((pa.field(column.label, array.type, metadata=metadata), array))
        if mask is not None:
            fields.append((pa.field(f"{column.label}.mask", mask.type), mask))
    if dice.random() < 0.2:
        fields = _nested(fields)
    schema = pa.schema([field for field, _ in fields])
    return pa.Table.from_arrays([array for _, array in fields], schema=schema)


def _arrow_column(column: Disturbed, dice: Dice) -> tuple[pa.Array, pa.Array | None]:
    if column.values.ndim == 2:
        return _arrow_lists(column, dice)
    form = dice.choice(["null", "mask", "nan"])
    if not column.hidden.any() or form == "null":
        return _dressed(pa.array(column.values, mask=column.hidden), dice), None
    if form == "mask":
        return _dressed(pa.array(column.values), dice), pa.array(column.hidden)
    if column.values.dtype.kind == "f":
        return pa.array(column.shown), None
    if column.values.dtype.kind in "iu":
        none = 0 if column.name == "source_id" else None
        return pa.array([none if h else int(v) for v, h in _pairs(column)], pa.int64()), None
    word = str(dice.choice(WORDS))
    return pa.array([word if h else str(v) for v, h in _pairs(column)]), None


def _pairs(column: Disturbed) -> Any:
    return zip(column.values, column.hidden, strict=True)


def _dressed(array: pa.Array, dice: Dice) -> pa.Array:
    """The same text in another type of Arrow."""
    if not pa.types.is_string(array.type):
        return array
    form = int(dice.integers(4))
    return {0: lambda: array.dictionary_encode(), 1: lambda: array.cast(pa.large_string()),
            2: lambda: array.cast(pa.binary())}.get(form, lambda: array)()  # fmt: skip


def _arrow_lists(column: Disturbed, dice: Dice) -> tuple[pa.Array, pa.Array | None]:
    whole, single = column.hidden.all(axis=1), column.hidden & ~column.hidden.all(1, keepdims=True)
    flat, form = column.values.ravel(), dice.choice(["null", "mask", "masks", "nan", "empty"])
    mask = None
    if form == "masks":
        mask = pa.FixedSizeListArray.from_arrays(pa.array(column.hidden.ravel()), 55)
        rows = np.zeros(len(whole), bool)
    else:
        flat = np.where(single.ravel(), np.nan, flat)
        rows = whole if form == "null" else np.zeros(len(whole), bool)
        if form == "mask":
            mask = pa.array(whole)
        elif form == "nan":
            flat = np.where(column.hidden.ravel(), np.nan, flat)
        elif form == "empty":
            return pa.array([[] if h else list(v) for v, h in zip(
                np.where(single, np.nan, column.values), whole, strict=True)]), None  # fmt: skip
    fixed = pa.FixedSizeListArray.from_arrays(pa.array(flat), 55, mask=pa.array(rows))
    kind = int(dice.integers(4))
    if kind == 0:
        return fixed, mask
    if kind == 1:
        return fixed.cast(pa.large_list(pa.float64())), mask
    lists = fixed.cast(pa.list_(pa.float64()))
    if kind == 2 and mask is None:
        offsets = pa.array(np.arange(len(lists) + 1, dtype=np.int32))
        return pa.ListArray.from_arrays(offsets, lists), None
    return lists, mask


def _nested(fields: list[tuple[pa.Field, pa.Array]]) -> list[tuple[pa.Field, pa.Array]]:
    """The fields of spectra as a struct."""
    inside = [pair for pair in fields if pair[0].name.lower().startswith(("bp_c", "rp_c"))]
    if not inside:
        return fields
    struct = pa.StructArray.from_arrays([a for _, a in inside], fields=[f for f, _ in inside])
    others = [pair for pair in fields if not any(pair[0] is field for field, _ in inside)]
    return [*others, (pa.field("xp", struct.type), struct)]


def frame(columns: list[Disturbed], dice: Dice) -> pd.DataFrame:
    """A DataFrame of pandas: NaN, None, NA, or columns NAME.mask; arrays of numpy."""
    made: dict[str, Any] = {}
    for column in columns:
        masked = column.hidden.any() and dice.random() < 0.4
        if column.values.ndim == 2:
            values = column.values if masked else column.shown
            rows = [None if h.all() and not masked else v for v, h in zip(
                values, column.hidden, strict=True)]  # fmt: skip
            made[column.label] = pd.Series(rows, dtype=object)
            if masked:
                made[f"{column.label}.mask"] = pd.Series(list(column.hidden), dtype=object)
            continue
        if masked or not column.hidden.any():
            made[column.label] = column.values
        elif column.values.dtype.kind in "iu":
            made[column.label] = pd.array(
                [pd.NA if h else int(v) for v, h in _pairs(column)], dtype="Int64"
            )
        else:
            made[column.label] = column.shown
        if masked:
            made[f"{column.label}.mask"] = column.hidden
    return pd.DataFrame(made)


def astropy(columns: list[Disturbed], dice: Dice, *, quantities: bool = False) -> Any:
    """A Table of astropy with masked columns; a QTable where ``quantities``."""
    from astropy.table import Column, MaskedColumn, QTable, Table

    table = Table()
    for column in columns:
        values = column.values
        unit = column.unit or None
        if column.hidden.any():
            table[column.label] = MaskedColumn(values, mask=column.hidden, unit=unit)
        else:
            table[column.label] = Column(values, unit=unit)
    with warnings.catch_warnings(action="ignore"):  # of text with a unit
        return QTable(table) if quantities else table


def _csv(columns: list[Disturbed], dice: Dice, path: Path, separator: str) -> None:
    word = str(dice.choice(WORDS))
    made: dict[str, Any] = {}
    for column in columns:
        if column.hidden.any() and dice.random() < 0.3:
            made[column.label] = [_written(v) for v in column.values]
            made[f"{column.label}.mask"] = column.hidden
        else:
            made[column.label] = [word if h else _written(v) for v, h in _pairs(column)]
    pd.DataFrame(made).to_csv(path, index=False, sep=separator)


def _written(value: Any) -> str:
    return str(value) if isinstance(value, str | np.integer) else repr(float(value))


def _ascii(columns: list[Disturbed], path: Path) -> None:
    """An ASCII table of FITS; what is hidden is blank."""
    cards: dict[str, Any] = {"TFIELDS": len(columns)}
    cells, place = [], 1
    for number, column in enumerate(columns, start=1):
        words = ["" if h else _written(v) for v, h in _pairs(column)]
        kind = {"i": "I", "f": "D"}.get(column.values.dtype.kind, "A")
        if kind == "D":
            words = [word.upper().replace("E", "D") for word in words]
        width = max(1, *map(len, words))
        form = f"D{width}.0" if kind == "D" else f"{kind}{width}"
        cards |= {f"TTYPE{number}": column.label, f"TFORM{number}": form, f"TBCOL{number}": place}
        if column.unit:
            cards[f"TUNIT{number}"] = column.unit
        cells.append([word.ljust(width) for word in words])
        place += width + 1
    path.write_bytes(ascii_table([" ".join(row) for row in zip(*cells, strict=True)], cards))


def _astropy_file(columns: list[Disturbed], dice: Dice, path: Path, **options: Any) -> None:
    with warnings.catch_warnings(action="ignore"):
        astropy(columns, dice).write(path, **options)


def _fits(columns: list[Disturbed], dice: Dice, path: Path) -> None:
    """By astropy, but for the units: it leaves out those of them that it takes for deprecated."""
    from astropy.io import fits

    with warnings.catch_warnings(action="ignore"):
        unit = fits.table_to_hdu(astropy(columns, dice))
    for number, column in enumerate(columns, start=1):
        assert unit.header[f"TTYPE{number}"] == column.label
        if column.unit:
            unit.header[f"TUNIT{number}"] = column.unit
    fits.HDUList([fits.PrimaryHDU(), unit]).writeto(path)


def _votable(columns: list[Disturbed], dice: Dice, path: Path, data: str) -> None:
    from astropy.io.votable import from_table

    with warnings.catch_warnings(action="ignore"):
        document = from_table(astropy(columns, dice))
        for column in document.get_first_table().fields:
            if column.datatype in ("long", "int", "short"):
                column.values.null = -99
        document.to_xml(str(path), tabledata_format=data)


def _colfits(columns: list[Disturbed], path: Path) -> None:
    made = []
    for column in columns:
        values = column.values if column.values.dtype.kind != "f" else column.shown
        made.append((column.label, column.unit, values, column.hidden))
    path.write_bytes(colfits(made))


FILES: dict[str, tuple[str, Callable[[list[Disturbed], Dice, Path], None]]] = {
    "Parquet": (".parquet", lambda c, d, p: pq.write_table(arrow(c, d), p)),
    "Parquet by astropy": (".parquet", lambda c, d, p: _astropy_file(c, d, p, format="parquet")),
    "CSV": (".csv", lambda c, d, p: _csv(c, d, p, ",")),
    "TSV": (".tsv", lambda c, d, p: _csv(c, d, p, "\t")),
    "ECSV": (".ecsv", lambda c, d, p: _astropy_file(
        c, d, p, format="ascii.ecsv",
        **({"serialize_method": "data_mask"} if d.random() < 0.5 else {}))),
    "FITS": (".fits", _fits),
    "FITS, ASCII": (".fits", lambda c, d, p: _ascii(c, p)),
    "FITS, by columns": (".fits", lambda c, d, p: _colfits(c, p)),
    "VOTable, TABLEDATA": (".xml", lambda c, d, p: _votable(c, d, p, "tabledata")),
    "VOTable, BINARY": (".vot", lambda c, d, p: _votable(c, d, p, "binary")),
    "VOTable, BINARY2": (".vot", lambda c, d, p: _votable(c, d, p, "binary2")),
}  # fmt: skip
"""By name: the ending of the file, and what writes it."""

WITHOUT_ARRAYS = ("CSV", "TSV", "FITS, ASCII")
WITHOUT_UNITS = ("CSV", "TSV")


def _polars(columns: list[Disturbed], dice: Dice) -> Any:
    import polars

    return polars.from_arrow(arrow(columns, dice, units=False))


MEMORY: dict[str, Callable[[list[Disturbed], Dice], Any]] = {
    "pyarrow": arrow,
    "pandas": frame,
    "astropy": astropy,
    "astropy, quantities": lambda c, d: astropy(c, d, quantities=True),
    "polars": _polars,
    "csv through pandas": lambda c, d: _reread(c, d),
}
MEMORY_WITHOUT_UNITS = ("pandas", "polars", "csv through pandas")
MEMORY_WITHOUT_ARRAYS = ("csv through pandas",)


def _reread(columns: list[Disturbed], dice: Dice) -> pd.DataFrame:
    """A CSV file as pandas.read_csv reads it: arrays are text."""
    made = {c.label: ["" if h else _written(v) for v, h in _pairs(c)] for c in columns}
    out = io.StringIO(pd.DataFrame(made).to_csv(index=False))
    # As its users learn: without a type, a source_id with gaps becomes a float.
    kinds = {c.label: "Int64" for c in columns if c.values.dtype.kind in "iu"}
    kinds |= {c.label: "str" for c in columns if c.values.dtype.kind == "U"}
    return pd.read_csv(out, dtype=kinds)
