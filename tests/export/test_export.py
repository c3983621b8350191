"""Exported files read by other libraries: every bit, unit, UCD and description is kept."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy.io import fits, votable
from astropy.table import Table
from astropy.units import UnitsWarning
from pyarrow import csv
from support.catalogs import catalog_table, finished_run, identity
from support.exports import SUFFIXES, exported

from catalogproc.contract import load_contract
from catalogproc.errors import (
    CatalogprocError,
    ContractError,
    JobError,
    ResumeError,
    VerifyError,
)
from catalogproc.export import reader as rows_module
from catalogproc.export.export import export_catalog
from catalogproc.export.reader import open_rows
from catalogproc.rundir.receipts import read_receipts

CATALOG = load_contract("catalog")
FORMATS = pytest.mark.parametrize("format", SUFFIXES)
DESCRIBED = pytest.mark.parametrize("format", [name for name in SUFFIXES if name != "csv"])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("run")
    finished_run(path, files=2, chunks=3, rows=70)
    return path


@pytest.fixture(scope="module")
def rows(folder: Path) -> pa.Table:
    """Return all rows, read from the parts in the order of the input."""
    done = sorted(read_receipts(folder).values(), key=lambda r: (r.file, r.first_row))
    return pa.concat_tables([pq.read_table(folder / receipt.catalog_part) for receipt in done])


def read(path: Path) -> dict[str, np.ndarray]:
    """Return columns by name, read by other libraries without masking or scaling."""
    if path.suffix == ".fits":
        with fits.open(path) as file:
            data = file[1].data
            return {name: np.array(data[name]) for name in data.names}
    if path.suffix == ".vot":
        table = votable.parse_single_table(path, verify="exception").array
        return {name: np.ma.getdata(table[name]) for name in table.dtype.names}
    if path.suffix == ".ecsv":
        table = Table.read(path)
        return {name: np.array(table[name]) for name in table.colnames}
    if path.suffix == ".csv":
        types = {column.name: column.arrow_type for column in CATALOG.columns}
        table = csv.read_csv(path, convert_options=csv.ConvertOptions(column_types=types))
        columns = {name: table[name].combine_chunks() for name in table.column_names}
        return {name: _known(column) for name, column in columns.items()}
    table = pq.read_table(path)
    return {name: table[name].to_numpy() for name in table.column_names}


def _known(column: pa.Array) -> np.ndarray:
    """Replace nulls by NaN: an empty field of CSV is an unknown float."""
    if column.null_count:
        column = column.fill_null(np.nan)
    return column.to_numpy(zero_copy_only=False)


def assert_same(found: dict[str, np.ndarray], wanted: pa.Table) -> None:
    assert list(found) == wanted.column_names
    for name in wanted.column_names:
        expected = wanted[name].combine_chunks().to_numpy(zero_copy_only=False)
        if expected.dtype.kind == "O":
            assert list(found[name].astype(str)) == list(expected), name
            continue
        got = found[name].astype(found[name].dtype.newbyteorder("="))
        assert got.dtype == expected.dtype, name
        if expected.dtype.kind == "f" and got.tobytes() != expected.tobytes():
            # Texts know one NaN; which of its many patterns of bits it gets is the reader's.
            np.testing.assert_array_equal(np.isnan(got), np.isnan(expected), name)
            got, expected = got[~np.isnan(got)], expected[~np.isnan(expected)]
        assert got.tobytes() == expected.tobytes(), name  # every bit


# ---------------------------------------------------------------- values


@FORMATS
def test_every_value_survives_bit_for_bit(
    folder: Path, rows: pa.Table, tmp_path: Path, format: str
) -> None:
    path = tmp_path / "sub" / f"catalog.{SUFFIXES[format]}"
    assert export_catalog(folder, format, path) == rows.num_rows == 420
    assert_same(read(path), rows)
    assert list(path.parent.iterdir()) == [path]


@FORMATS
def test_source_ids_are_exact(folder: Path, rows: pa.Table, tmp_path: Path, format: str) -> None:
    ids = rows["source_id"].to_numpy()
    through_floats = ids.astype(np.float64).astype(np.int64)
    found = read(exported(folder, format, tmp_path))["source_id"]
    assert found.dtype.kind == "i"
    assert found.dtype.itemsize == 8
    np.testing.assert_array_equal(found, ids)
    assert (found != through_floats).mean() > 0.9


@FORMATS
def test_selected_columns_are_written_in_the_given_order(
    folder: Path, rows: pa.Table, tmp_path: Path, format: str
) -> None:
    names = ["age", "good_mass_age", "source_id", "run_id"]
    assert_same(read(exported(folder, format, tmp_path, columns=names)), rows.select(names))


@FORMATS
def test_a_condition_selects_stars(
    folder: Path, rows: pa.Table, tmp_path: Path, format: str
) -> None:
    """The columns of the condition need not be written."""
    names = ["source_id", "logg", "good_params"]
    path = tmp_path / f"giants.{SUFFIXES[format]}"
    chosen = {"columns": names, "where": "good_mass_age and m_h > -0.5"}
    by_hand = np.flatnonzero(rows["good_mass_age"].to_numpy() & (rows["m_h"].to_numpy() > -0.5))
    assert 0 < len(by_hand) < rows.num_rows
    assert export_catalog(folder, format, path, **chosen) == len(by_hand)  # type: ignore[arg-type]
    assert_same(read(path), rows.select(names).take(by_hand))
    none = tmp_path / f"none.{SUFFIXES[format]}"
    assert export_catalog(folder, format, none, columns=names, where="mass > 1e6") == 0
    assert_same(read(none), rows.select(names).slice(0, 0))


def test_progress_counts_the_rows_that_are_read(folder: Path, tmp_path: Path) -> None:
    reports: list[tuple[int, int | None]] = []
    export_catalog(
        folder, "csv", tmp_path / "x", where="m_h > 0",
        progress=lambda done, total, note: reports.append((done, total)),
    )  # fmt: skip
    assert reports == [(70 * part, 420) for part in range(1, 7)]


@FORMATS
def test_a_catalog_without_rows_gives_a_table_without_rows(tmp_path: Path, format: str) -> None:
    finished_run(tmp_path / "run", files=1, chunks=1, rows=0)
    path = tmp_path / f"catalog.{SUFFIXES[format]}"
    assert export_catalog(tmp_path / "run", format, path) == 0
    assert_same(read(path), catalog_table(0))
    reader = "parquet.votable" if format == "parquet" else f"{'ascii.' * (format == 'csv')}{format}"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnitsWarning)
        assert Table.read(path, format=reader).colnames == list(CATALOG.names)


def test_rows_are_in_the_order_of_the_input_not_of_the_file_names(
    folder: Path, rows: pa.Table, tmp_path: Path
) -> None:
    parts = [path.name for path in open_rows(folder).parts]
    assert parts != sorted(parts)  # otherwise this test shows nothing
    found = read(exported(folder, "parquet", tmp_path))["source_id"]
    np.testing.assert_array_equal(found, rows["source_id"].to_numpy())


# ---------------------------------------------------------------- what describes the values


def test_fits_has_unit_ucd_description_and_display_for_every_column(
    folder: Path, tmp_path: Path
) -> None:
    with fits.open(exported(folder, "fits", tmp_path)) as file:
        file.verify("exception")
        header = file[1].header
    assert header["EXTNAME"] == "CATALOG"
    forms = {"int64": "K", "int32": "J", "int16": "I", "float64": "D", "float32": "E", "bool": "L"}
    for number, column in enumerate(CATALOG.columns, start=1):
        assert header[f"TTYPE{number}"] == column.name
        assert header.get(f"TUNIT{number}", "") == column.unit
        assert header.get(f"TUCD{number}", "") == column.ucd
        assert header[f"TCOMM{number}"] == column.description
        assert header[f"TFORM{number}"] == forms.get(column.type, "8A")
        assert header[f"TDISP{number}"]
        assert f"TNULL{number}" not in header  # no column of the catalog may be null
        assert f"TZERO{number}" not in header


def test_astropy_tables_of_fits_have_the_units(folder: Path, tmp_path: Path) -> None:
    """dex is not a unit of the FITS standard: Astropy warns and keeps the text."""
    path = exported(folder, "fits", tmp_path)
    with pytest.warns(UnitsWarning, match="'dex' did not parse as fits unit"):
        found = Table.read(path)
    silent = Table.read(path, unit_parse_strict="silent")
    for column in CATALOG.columns:
        assert str(found[column.name].unit or "") == column.unit
        assert str(silent[column.name].unit or "") == column.unit
    assert found["has_tmass"].dtype == bool


def test_votable_has_unit_ucd_description_and_frame_for_every_column(
    folder: Path, tmp_path: Path
) -> None:
    path = exported(folder, "votable", tmp_path)
    document = votable.parse(path, verify="exception")  # every warning is an error here
    (resource,) = document.resources
    (frame,) = resource.coordinate_systems
    assert (frame.system, frame.epoch) == ("ICRS", "J2016.0")
    assert [link.href for link in resource.links] == ["https://arxiv.org/abs/2603.03732"]
    (table,) = resource.tables
    assert (table.nrows, table.description) == (420, CATALOG.description)
    kinds = {"int64": "long", "int32": "int", "int16": "short", "float64": "double"}
    kinds |= {"float32": "float", "bool": "boolean", "string": "char"}
    for field, column in zip(table.fields, CATALOG.columns, strict=True):
        assert (field.name, field.ID) == (column.name, column.name)
        assert field.datatype == kinds[column.type]  # "bit" would crash STILTS
        assert str(field.unit or "") == column.unit
        assert (field.ucd or "") == column.ucd
        assert field.description == column.description
        assert field.ref == ("ICRS" if column.name in ("ra", "dec") else None)
    found = Table.read(path)
    assert str(found["logg"].unit) == "dex"
    assert found["good_params"].dtype == bool


def test_parquet_is_read_by_astropy_with_its_units(folder: Path, tmp_path: Path) -> None:
    found = Table.read(exported(folder, "parquet", tmp_path), format="parquet.votable")
    for column in CATALOG.columns:
        assert str(found[column.name].unit or "") == column.unit
        assert found[column.name].description == column.description


def facts(path: Path) -> dict[str, str]:
    if path.suffix == ".fits":
        header = fits.getheader(path, 1)
        names = {"RUNHASH": "run_hash", "MODLHASH": "model_hash", "NREJECT": "rows_rejected"}
        return {name: str(header[keyword]) for keyword, name in names.items()}
    if path.suffix == ".vot":
        (resource,) = votable.parse(path).resources
        return {info.name: info.value for info in resource.infos}
    if path.suffix == ".ecsv":
        return {name: str(text) for name, text in Table.read(path).meta.items()}
    return {key.decode(): text.decode() for key, text in pq.read_schema(path).metadata.items()}


@DESCRIBED
def test_the_file_names_its_run_and_model(folder: Path, tmp_path: Path, format: str) -> None:
    run = identity(2, 3 * 73)
    metadata = facts(exported(folder, format, tmp_path))
    assert metadata["run_hash"] == run.hash
    assert metadata["model_hash"] == run.model_hash
    assert metadata["rows_rejected"] == "18"
    assert "rows_missing" not in metadata


@FORMATS
def test_the_same_catalog_gives_the_same_bytes(folder: Path, tmp_path: Path, format: str) -> None:
    one = exported(folder, format, tmp_path / "one").read_bytes()
    assert exported(folder, format, tmp_path / "two").read_bytes() == one


@DESCRIBED
def test_the_file_names_the_condition(folder: Path, tmp_path: Path, format: str) -> None:
    chosen = exported(folder, format, tmp_path, where='m_h > 0 and not flag("RUWE")')
    if format == "fits":
        assert fits.getheader(chosen, 1)["WHERE"] == 'm_h > 0 and not flag("RUWE")'
    else:
        assert facts(chosen)["where"] == 'm_h > 0 and not flag("RUWE")'


def test_missing_rows_of_failed_chunks_are_stated(tmp_path: Path) -> None:
    finished_run(tmp_path, files=1, chunks=3, rows=10, rejected=0)
    next((tmp_path / "receipts").iterdir()).unlink()
    path = exported(tmp_path, "votable", tmp_path / "out")
    assert facts(path)["rows_missing"] == "10"
    assert len(read(path)["teff"]) == 20


# ---------------------------------------------------------------- refusals and faults


@FORMATS
def test_an_existing_file_is_replaced_only_with_overwrite(
    folder: Path, tmp_path: Path, format: str
) -> None:
    path = tmp_path / f"catalog.{SUFFIXES[format]}"
    path.write_text("mine")
    with pytest.raises(CatalogprocError, match="exists already"):
        export_catalog(folder, format, path)
    assert path.read_text() == "mine"
    export_catalog(folder, format, path, overwrite=True)
    assert len(read(path)["teff"]) == 420


@FORMATS
def test_an_error_while_writing_leaves_no_file(tmp_path: Path, format: str) -> None:
    """The last part is corrupt in its middle: its footer still has the right number of rows."""
    finished_run(tmp_path, files=1, chunks=2, rows=300)
    part = open_rows(tmp_path).parts[-1]
    content = bytearray(part.read_bytes())
    content[200 : len(content) // 4] = bytes(len(content) // 4 - 200)
    part.write_bytes(content)
    out = tmp_path / "out"
    with pytest.raises(VerifyError, match="cannot be read") as caught:
        export_catalog(tmp_path, format, out / "x")
    assert caught.value.details["where"] == part
    assert list(out.iterdir()) == []


def test_missing_and_short_parts_are_refused_before_anything_is_written(
    tmp_path: Path,
) -> None:
    finished_run(tmp_path, files=1, chunks=2, rows=30)
    first, second = open_rows(tmp_path).parts
    pq.write_table(pq.read_table(first).slice(1), first)
    with pytest.raises(VerifyError, match="other rows than its receipt"):
        export_catalog(tmp_path, "fits", tmp_path / "out" / "x.fits")
    first.unlink()
    with pytest.raises(VerifyError, match="cannot be read"):
        export_catalog(tmp_path, "fits", tmp_path / "out" / "x.fits")
    assert not (tmp_path / "out").exists()
    assert second.exists()


def test_wrong_arguments_are_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(JobError, match="fits, votable, parquet"):
        export_catalog(folder, "xlsx", tmp_path / "x")
    with pytest.raises(ContractError, match="no such column"):
        export_catalog(folder, "fits", tmp_path / "x", columns=["teff", "colour"])
    with pytest.raises(JobError, match="named once"):
        export_catalog(folder, "fits", tmp_path / "x", columns=["teff", "teff"])
    with pytest.raises(JobError, match="named once"):
        export_catalog(folder, "fits", tmp_path / "x", columns=[])
    with pytest.raises(ResumeError, match="holds no run"):
        export_catalog(tmp_path, "fits", tmp_path / "x")
    assert list(tmp_path.iterdir()) == []


def test_a_catalog_of_another_contract_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    finished_run(tmp_path, files=1, chunks=1, rows=3)
    newer = replace(CATALOG, version=CATALOG.version + 1)
    monkeypatch.setattr(rows_module, "load_contract", lambda name: newer)
    with pytest.raises(ContractError, match="another version"):
        export_catalog(tmp_path, "fits", tmp_path / "x")


def test_parts_with_other_columns_are_refused_by_name(tmp_path: Path) -> None:
    finished_run(tmp_path, files=1, chunks=1, rows=3)
    (part,) = open_rows(tmp_path).parts
    pq.write_table(pq.read_table(part).drop_columns(["e_mass"]), part)
    with pytest.raises(ContractError, match="another version") as caught:
        export_catalog(tmp_path, "fits", tmp_path / "x")
    assert "e_mass" in str(caught.value)


@FORMATS
def test_memory_does_not_grow_with_the_catalog(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, format: str
) -> None:
    """Twenty times the parts, the same peak of Arrow's and NumPy's memory."""
    import tracemalloc

    from catalogproc.io import parquet_writer

    monkeypatch.setattr(rows_module, "BATCH", 500)
    monkeypatch.setattr(parquet_writer, "ROW_GROUP", 500)
    peaks = []
    for chunks in (2, 40):
        folder = tmp_path / f"{chunks}"
        finished_run(folder, files=1, chunks=chunks, rows=500, rejected=0)
        tracemalloc.start()
        before = pa.total_allocated_bytes()
        export_catalog(folder, format, folder / "out")
        peaks.append(tracemalloc.get_traced_memory()[1] + pa.total_allocated_bytes() - before)
        tracemalloc.stop()
    assert peaks[1] < 1.5 * peaks[0]
