"""Nulls, widths and blocks of FITS and VOTable, read by Astropy."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from astropy.io import fits, votable
from astropy.table import Table
from astropy.utils.exceptions import AstropyUserWarning
from support.exports import NULLABLE, Write, things, written

from catalogproc.contract import Column, Contract
from catalogproc.errors import (
    ContractError,
)
from catalogproc.export.binary_rows import null_integer, record_dtype, string_widths, to_records
from catalogproc.export.fits import write_fits
from catalogproc.export.votable import LINE, write_votable


@pytest.mark.parametrize("rows", [0, 1, 7, 8, 9, 1000, 2001])
def test_astropy_masks_exactly_the_nulls_of_a_votable(tmp_path: Path, rows: int) -> None:
    batch = things(rows)
    path = written(write_votable, tmp_path / "x.vot", [batch], {"a": "<&>\"'é"})
    table = votable.parse_single_table(path, verify="exception")
    for column in NULLABLE.columns:
        found = table.array[column.name]
        wanted = batch.column(column.name).to_pylist()
        if column.type == "string":  # VOTable has no null string but the empty one
            got = [str(value) if value is not np.ma.masked else None for value in found]
            assert [value or "" for value in got] == [value or "" for value in wanted]
            continue
        assert [None if m else v for v, m in zip(found.data.tolist(), found.mask, strict=True)] == [
            None if value is None else value for value in wanted
        ], column.name


@pytest.mark.parametrize("rows", [0, 1, 1000])
def test_exactly_the_nulls_of_a_fits_table_are_tnull(tmp_path: Path, rows: int) -> None:
    batch = things(rows)
    path = written(write_fits, tmp_path / "x.fits", [batch], {"A": ("é" * 80, "long")})
    with fits.open(path, logical_as_bytes=True) as file:
        file.verify("exception")
        header, data = file[1].header, file[1].data
        assert header["A"] == "?" * 80
        assert path.stat().st_size % 2880 == 0
        for number, column in enumerate(NULLABLE.columns, start=1):
            wanted = batch.column(column.name).to_pylist()
            found = data[column.name].tolist()
            if column.type.startswith("int") and column.nullable:
                null = np.iinfo(column.type).min
                assert header[f"TNULL{number}"] == null == null_integer(column)
                assert found == [null if value is None else value for value in wanted]
            elif column.type.startswith("float"):
                np.testing.assert_array_equal(
                    found, [np.nan if value is None else value for value in wanted]
                )
            elif column.type == "string":
                assert found == [value or "" for value in wanted]
            elif column.type == "bool":
                letters = {True: b"T", False: b"F", None: b""}
                assert found == [letters[value] for value in wanted]
            else:
                assert found == wanted
                assert f"TNULL{number}" not in header
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Column 'bool' contains NULL", AstropyUserWarning)
        masked = Table.read(path)["int32"]
    assert [v is np.ma.masked for v in masked] == [v is None for v in batch["int32"].to_pylist()]


@pytest.mark.parametrize("write", [write_fits, write_votable])
def test_the_bytes_do_not_depend_on_the_batches(tmp_path: Path, write: Write) -> None:
    """Batches are shorter and longer than a line of base64 in VOTable."""
    batch = things(5000)
    assert batch.num_rows * record_dtype(NULLABLE, string_widths(NULLABLE, [batch])).itemsize > LINE
    files = []
    for step in (13, 999, 5000):
        pieces = [batch.slice(start, step) for start in range(0, 5000, step)]
        files.append(written(write, tmp_path / f"{step}", pieces, {}).read_bytes())
    assert files[0] == files[1] == files[2]


def test_strings_that_the_formats_cannot_hold_are_refused() -> None:
    contract = Contract("c", 1, "one string", (Column("s", "string", "a string"),))
    batch = pa.record_batch([pa.array(["plain", "é"])], names=["s"])
    widths = string_widths(contract, [batch])
    with pytest.raises(ContractError, match="ASCII strings only"):
        to_records(batch, contract, record_dtype(contract, widths))


def test_lists_are_refused() -> None:
    contract = Contract("c", 1, "a list", (Column("v", "list<float32>", "a list"),))
    with pytest.raises(ContractError, match="only flat columns"):
        record_dtype(contract, {})
