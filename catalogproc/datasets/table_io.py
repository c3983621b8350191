"""Tables of any columns, in and out, in the formats that astronomers use.

What a file says is kept: an integer stays an integer, digit by digit, and never becomes a
float; text stays text.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from catalogproc.contract import Column, Contract
from catalogproc.errors import InputError, JobError
from catalogproc.export.binary_rows import string_widths
from catalogproc.export.csv_ecsv import write_csv, write_ecsv
from catalogproc.export.fits import write_fits
from catalogproc.export.votable import write_votable
from catalogproc.io.atomic import AtomicFile
from catalogproc.io.parquet_writer import TableWriter
from catalogproc.readers import coerce
from catalogproc.readers.formats import open_table
from catalogproc.readers.formats.stream import open_bytes

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
"""Endings of the files that are written."""

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
    """The format that a name to be written asks for. Raises JobError where it is none."""
    try:
        return WRITTEN[path.suffix.lower()]
    except KeyError:
        raise JobError(
            "a table is written in the format that its name ends in",
            wanted=" | ".join(WRITTEN),
            found=path.name,
            where="--output",
        ) from None


def read_table(path: Path) -> pa.Table:
    """A whole table, every column of a plain type: integer, float, bool, string, or a list.

    Of text formats a column is of integers where every field is one, of floats where every
    field is a number, else of strings; an empty field is null.

    Raises
    ------
    InputError
        The file cannot be read, or a row of it is broken.
    """
    source = open_table(path)
    names = list(source.types)
    batches = []
    for rows in source.batches(names, batch_rows=BATCH):
        if rows.fault is not None and rows.fault.null_count < len(rows.fault):
            at = next(i for i, fault in enumerate(rows.fault) if fault.is_valid)
            raise InputError(
                "a row of the table is broken",
                found=rows.fault[at].as_py(),
                where=f"{path}, row {rows.first + at}",
            )
        batches.append(rows.columns)
    if not batches:
        raise InputError("a table without rows", where=path)
    table = pa.Table.from_batches(batches)
    return pa.table({name: _plain(table.column(name)) for name in names})


def _plain(column: pa.ChunkedArray) -> pa.Array:
    array = column.combine_chunks()
    kind = coerce.stored_type(array.type)
    if coerce.is_text(kind):
        return _typed(array)
    if coerce.is_integer(kind):
        whole, unfit = coerce.identifiers(array)
        return array.cast(pa.string()) if unfit.any() else whole
    if pa.types.is_float16(kind) or pa.types.is_null(kind) or pa.types.is_decimal(kind):
        return array.cast(pa.float64())
    if any(test(kind) for test, _ in _TYPES):
        return array.cast(kind)
    if coerce.is_list(kind):
        single = pa.types.is_float32(kind.value_type)
        return array.cast(pa.list_(pa.float32() if single else pa.float64()))
    return array.cast(pa.string())


def _typed(text: pa.Array) -> pa.Array:
    """Text as what all of it is."""
    written = coerce.words(text)
    # "007" is a name, and an integer of 16 digits or more does not survive as a float.
    name = pc.any(pc.match_substring_regex(written, r"^[+-]?0\d|^\+")).as_py()
    whole, bad = coerce.identifiers(text)
    if whole.null_count < len(whole) and not bad.any() and not name:
        return whole
    number, bad = coerce.numbers(text, pa.float64())
    long = pc.any(pc.match_substring_regex(written, r"^[+-]?\d{16,}$")).as_py()
    if number.null_count < len(number) and not bad.any() and not name and not long:
        return number
    return written


def read_units(path: Path) -> dict[str, str]:
    """Units that a file states of its columns, by name; no text format but VOTable does."""
    kind = open_table(path).kind
    if kind == "Parquet":
        fields = pq.read_schema(path)
        stated = {f.name: (f.metadata or {}).get(b"unit", b"").decode() for f in fields}
    elif kind == "FITS":
        stated = _fits_units(path)
    elif kind == "VOTable":
        with open_bytes(path) as file:
            elements = ElementTree.iterparse(file, events=("start",))
            stated = dict(_votable_units(element for _, element in elements))
    else:
        stated = {}
    return {name: unit for name, unit in stated.items() if unit}


def _fits_units(path: Path) -> dict[str, str]:
    from astropy.io import fits

    with fits.open(path, memmap=False, lazy_load_hdus=True) as file:
        header = next(hdu.header for hdu in file if hdu.header.get("XTENSION") == "BINTABLE")
    numbers = range(1, header["TFIELDS"] + 1)
    return {header[f"TTYPE{n}"].strip(): header.get(f"TUNIT{n}", "").strip() for n in numbers}


def _votable_units(elements: Iterator[ElementTree.Element]) -> Iterator[tuple[str, str]]:
    for element in elements:
        tag = element.tag.rpartition("}")[2]
        if tag == "DATA":
            return
        if tag == "FIELD":
            yield element.get("name") or element.get("ID") or "", element.get("unit") or ""


def contract_of(
    table: pa.Table,
    name: str,
    description: str,
    described: Mapping[str, Column],
    units: Mapping[str, str],
) -> Contract:
    """A contract for a table's columns.

    Of those ``described``, unit and meaning are known, of others at most the unit.
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
    """Write a table of a contract in the format that the name ends in, whole or not at all.

    ``facts`` say where it comes from, in the formats that have a place for them.

    Raises
    ------
    JobError
        The name ends in no known format.
    ContractError
        A column that the format cannot hold.
    """
    kind = output_format(path)
    if kind == "parquet":
        with TableWriter(path, contract, facts) as writer:
            writer.write(table)
        return
    batches = table.combine_chunks().to_batches(max_chunksize=BATCH)
    widths = string_widths(contract, batches)
    with AtomicFile(path) as file:
        if kind == "csv":
            write_csv(file, contract, batches)
        elif kind == "ecsv":
            write_ecsv(file, contract, batches, facts=facts)
        elif kind == "fits":
            cards = {f"HIERARCH {name.upper()}": (text, "") for name, text in facts.items()}
            write_fits(file, contract, batches, widths=widths, rows=table.num_rows, cards=cards)
        else:
            write_votable(file, contract, batches, widths=widths, rows=table.num_rows, infos=facts)
