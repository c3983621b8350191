"""Tables of any columns, read and written in the formats that astronomers use.

Integers stay integers, digit by digit, and never pass through a float; text stays text.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from catalogproc.contract import Column, Contract
from catalogproc.errors import InputError, JobError
from catalogproc.export.binary_rows import RecordTable, string_widths
from catalogproc.export.csv_ecsv import write_csv, write_ecsv
from catalogproc.export.fits import write_fits
from catalogproc.export.votable import write_votable
from catalogproc.io.atomic import AtomicFile
from catalogproc.io.parquet_writer import TableWriter
from catalogproc.readers import coerce
from catalogproc.readers.formats import open_table

BATCH = 65_536

WRITTEN = {
    ".parquet": "parquet",
    ".pq": "parquet",
    ".csv": "csv",
    ".ecsv": "ecsv",
    ".fits": "fits",
    ".fit": "fits",
    ".vot": "votable",
    ".votable": "votable",
    ".xml": "votable",
}
"""Formats that are written, by file extension."""

_TYPES = (
    (pa.types.is_int64, "int64"),
    (pa.types.is_int32, "int32"),
    (pa.types.is_int16, "int16"),
    (pa.types.is_float64, "float64"),
    (pa.types.is_float32, "float32"),
    (pa.types.is_boolean, "bool"),
    (pa.types.is_string, "string"),
)


def output_format(path: Path) -> str:
    """Return the format of a file to be written.

    Parameters
    ----------
    path
        Its extension is one of WRITTEN.

    Raises
    ------
    JobError
        Another extension.
    """
    try:
        return WRITTEN[path.suffix.lower()]
    except KeyError:
        raise JobError(
            "the file extension names no format that tables are written in",
            wanted=" | ".join(WRITTEN),
            found=path.name,
            where="--output",
        ) from None


def read_table(path: Path) -> pa.Table:
    """Read a table, every column of a plain type: integer, float, bool, string, or a list.

    A column of a text format holds integers if every field is one, floats if every field is a
    number, else strings; an empty field is null.

    Parameters
    ----------
    path
        A file in any format that is read.

    Raises
    ------
    InputError
        The file cannot be read, or a row of it is broken.
    """
    source = open_table(path)
    names = column_names(path)
    batches = list(_batches(path, names))
    if not batches:
        raise InputError("a table without rows", where=path)
    table = pa.Table.from_batches(batches)
    kinds = {name: source.types[name] for name in names}
    return pa.table(
        {n: _read(table.column(n), kind, f"{path}, column {n}") for n, kind in kinds.items()}
    )


def column_names(path: Path) -> tuple[str, ...]:
    """Return the names of the columns that are read of a table.

    Parameters
    ----------
    path
        A file in any format that is read, or a folder of Parquet files.

    Raises
    ------
    InputError
        It cannot be read.
    """
    if path.is_dir():
        return tuple(_folder(path).schema.names)
    # The fields of a struct are columns of their own.
    return tuple(name for name, kind in open_table(path).types.items() if not _has_fields(kind))


def read_batches(path: Path, names: Sequence[str]) -> Iterator[pa.Table]:
    """Yield some columns of a table, a batch of rows at a time.

    A column of a text format has the type of :func:`read_table`, of the rows of one batch.

    Parameters
    ----------
    path
        A file in any format that is read, or a folder of Parquet files.
    names
        The columns.

    Raises
    ------
    InputError
        It cannot be read, or a row of it is broken.
    """
    if path.is_dir():
        batches = _folder(path).to_batches(columns=list(names), batch_size=BATCH)
        kinds = {name: _folder(path).schema.field(name).type for name in names}
    else:
        batches, types = _batches(path, names), open_table(path).types
        kinds = {name: types[name] for name in names}
    for batch in batches:
        table = pa.Table.from_batches([batch])
        yield pa.table(
            {n: _read(table.column(n), kind, f"{path}, column {n}") for n, kind in kinds.items()}
        )


def _folder(path: Path) -> ds.Dataset:
    try:
        return ds.dataset(path, format="parquet")
    except (OSError, pa.ArrowException) as error:
        raise InputError(
            "the table cannot be read", wanted="a folder of Parquet files", found=error, where=path
        ) from error


def _batches(path: Path, names: Sequence[str]) -> Iterator[pa.RecordBatch]:
    for rows in open_table(path).batches(list(names), batch_rows=BATCH):
        if rows.fault is not None and rows.fault.null_count < len(rows.fault):
            at = next(i for i, fault in enumerate(rows.fault) if fault.is_valid)
            raise InputError(
                "a row of the table is broken",
                found=rows.fault[at].as_py(),
                where=f"{path}, row {rows.first + at}",
            )
        yield rows.columns


def _has_fields(kind: pa.DataType) -> bool:
    return bool(pa.types.is_struct(kind) and kind.num_fields > 0)


def _read(column: pa.ChunkedArray, stated: pa.DataType, where: str) -> pa.Array:
    try:
        found = _plain(column)
        # Floats that XML writes as whole numbers are floats, as the file states.
        single = pa.types.is_floating(coerce.stored_type(stated)) and coerce.is_integer(found.type)
        return found.cast(pa.float64(), safe=False) if single else found
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise InputError(
            "a column has a type that cannot be read",
            wanted="numbers, text, or lists of numbers", found=f"{column.type}: {error}",
            where=where, advice="leave the column out of the table",
        ) from error  # fmt: skip


def _plain(column: pa.ChunkedArray) -> pa.Array:
    array = coerce.plain(column)
    kind = coerce.stored_type(array.type)
    if coerce.is_text(kind):
        return _typed(array)
    if coerce.is_integer(kind):
        integers, unfit = coerce.numbers(array, pa.int64())
        return array.cast(pa.string()) if unfit.any() else integers
    if pa.types.is_float16(kind) or pa.types.is_null(kind) or pa.types.is_decimal(kind):
        return array.cast(pa.float64())
    if any(test(kind) for test, _ in _TYPES):
        return array.cast(kind)
    if coerce.is_list(kind) and coerce.is_list(kind.value_type):
        made, bad = coerce.triangles(array, pa.float64())
        if bad.any():
            raise pa.ArrowInvalid("lists of several lists that are no symmetric matrix")
        return made
    if coerce.is_list(kind):
        single = pa.types.is_float32(kind.value_type)
        return array.cast(pa.list_(pa.float32() if single else pa.float64()))
    return array.cast(pa.string())


def _typed(text: pa.Array) -> pa.Array:
    """Text as integers or floats if every field is one, else as it is."""
    written = coerce.words(text)
    if written.null_count == len(written):
        return written
    # "007" is a name.
    if pc.any(pc.match_substring_regex(written, r"^[+-]?0\d|^\+")).as_py():
        return written
    if pc.all(pc.match_substring_regex(written, r"^-?\d{1,19}$")).as_py():
        integers, bad = coerce.numbers(text, pa.int64())
        if not bad.any():
            return integers
    numbers, bad = coerce.numbers(text, pa.float64())
    # An integer of 16 digits or more does not survive as a float.
    long = pc.any(pc.match_substring_regex(written, r"^[+-]?\d{16,}$")).as_py()
    if numbers.null_count == len(numbers) or bad.any() or long:
        return written
    return numbers


def read_units(path: Path) -> dict[str, str]:
    """Return the units that a file states of its columns, by name; CSV states none.

    Parameters
    ----------
    path
        A table in any format that is read, or a folder of Parquet files.

    Raises
    ------
    InputError
        The file cannot be read.
    """
    if path.is_dir():
        stated = {field.name: (field.metadata or {}).get(b"unit") for field in _folder(path).schema}
        return {name: unit.decode() for name, unit in stated.items() if unit}
    return dict(open_table(path).units)


def contract_of(
    table: pa.Table,
    name: str,
    description: str,
    described: Mapping[str, Column],
    units: Mapping[str, str],
) -> Contract:
    """Return a contract for the columns of a table.

    Parameters
    ----------
    table
        The table.
    name, description
        Of the contract.
    described
        Columns whose unit and meaning are known, by name.
    units
        Units of the others, by name.
    """
    made = []
    for field in table.schema:
        kind = _kind(field.type)
        unit = units.get(field.name, "")
        plain = Column(field.name, kind, field.name, unit=unit, nullable=True)
        made.append(replace(described.get(field.name, plain), type=kind))
    return Contract(name, 1, description, tuple(made))


def _kind(of: pa.DataType) -> str:
    for test, name in _TYPES:
        if test(of):
            return name
    return f"list<{'float32' if pa.types.is_float32(of.value_type) else 'float64'}>"


def write_table(path: Path, table: pa.Table, contract: Contract, facts: Mapping[str, str]) -> None:
    """Write a table completely or not at all, in the format of the file extension.

    Parameters
    ----------
    path
        The file; see :func:`output_format`.
    table
        The rows.
    contract
        Describes the columns.
    facts
        Provenance, for the formats that have a place for it.

    Raises
    ------
    JobError
        Another file extension.
    ContractError
        A column that the format cannot hold.
    """
    kind = output_format(path)
    if kind == "parquet":
        with TableWriter(path, contract, facts) as writer:
            writer.write(table)
        return
    batches = table.combine_chunks().to_batches(max_chunksize=BATCH)
    records = RecordTable(contract, batches, table.num_rows, string_widths(contract, batches))
    with AtomicFile(path) as file:
        if kind == "csv":
            write_csv(file, contract, batches)
        elif kind == "ecsv":
            write_ecsv(file, contract, batches, facts=facts)
        elif kind == "fits":
            cards = {f"HIERARCH {name.upper()}": (text, "") for name, text in facts.items()}
            write_fits(file, records, cards)
        else:
            write_votable(file, records, facts)
