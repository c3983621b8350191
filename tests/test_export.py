"""One file for TOPCAT and Astropy: every bit, unit, UCD and description survives."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy.io import fits, votable
from astropy.table import Table
from astropy.units import UnitsWarning
from astropy.utils.exceptions import AstropyUserWarning
from catalogs import catalog_table, finished_run, identity

from catalogproc.catalog.export import export, open_rows
from catalogproc.catalog.files import WholeFile
from catalogproc.catalog.fits import write_fits
from catalogproc.catalog.identity import RunIdentity
from catalogproc.catalog.receipts import read_receipts
from catalogproc.catalog.records import null_integer, record_dtype, records, string_widths
from catalogproc.catalog.votable import LINE, write_votable
from catalogproc.contract import Column, Contract, load_contract
from catalogproc.errors import (
    CatalogprocError,
    ContractError,
    JobError,
    ResumeError,
    VerifyError,
)

CATALOG = load_contract("catalog")
SUFFIXES = {"fits": "fits", "votable": "vot", "parquet": "parquet"}
FORMATS = pytest.mark.parametrize("format", SUFFIXES)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("run")
    finished_run(path, files=2, chunks=3, rows=70)
    return path


@pytest.fixture(scope="module")
def rows(folder: Path) -> pa.Table:
    """All rows by a plain route: the parts, read whole, in the order of the input."""
    done = sorted(read_receipts(folder).values(), key=lambda r: (r.file, r.first_row))
    return pa.concat_tables([pq.read_table(folder / receipt.catalog_part) for receipt in done])


def exported(folder: Path, format: str, place: Path, **options: object) -> Path:
    path = place / f"catalog.{SUFFIXES[format]}"
    export(folder, format, path, **options)  # type: ignore[arg-type]
    return path


def read(path: Path) -> dict[str, np.ndarray]:
    """Columns by name as Astropy's lower layers read them, nothing masked, nothing scaled."""
    if path.suffix == ".fits":
        with fits.open(path) as file:
            data = file[1].data
            return {name: np.array(data[name]) for name in data.names}
    if path.suffix == ".vot":
        table = votable.parse_single_table(path, verify="exception").array
        return {name: np.ma.getdata(table[name]) for name in table.dtype.names}
    table = pq.read_table(path)
    return {name: table[name].to_numpy() for name in table.column_names}


def assert_same(found: dict[str, np.ndarray], wanted: pa.Table) -> None:
    assert list(found) == wanted.column_names
    for name in wanted.column_names:
        expected = wanted[name].combine_chunks().to_numpy(zero_copy_only=False)
        if expected.dtype.kind == "O":
            assert list(found[name].astype(str)) == list(expected), name
            continue
        got = found[name].astype(found[name].dtype.newbyteorder("="))
        assert got.dtype == expected.dtype, name
        assert got.tobytes() == expected.tobytes(), name  # every bit, NaN's too


# ---------------------------------------------------------------- values


@FORMATS
def test_every_value_survives_bit_for_bit(
    folder: Path, rows: pa.Table, tmp_path: Path, format: str
) -> None:
    path = tmp_path / "sub" / f"catalog.{SUFFIXES[format]}"
    assert export(folder, format, path) == rows.num_rows == 420
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
def test_chosen_columns_come_in_the_order_asked_for(
    folder: Path, rows: pa.Table, tmp_path: Path, format: str
) -> None:
    names = ["age", "good_mass_age", "source_id", "run_id"]
    assert_same(read(exported(folder, format, tmp_path, columns=names)), rows.select(names))


@FORMATS
def test_a_catalog_without_rows_is_a_table_without_rows(tmp_path: Path, format: str) -> None:
    finished_run(tmp_path / "run", files=1, chunks=1, rows=0)
    path = tmp_path / f"catalog.{SUFFIXES[format]}"
    assert export(tmp_path / "run", format, path) == 0
    assert_same(read(path), catalog_table(0))
    reader = {"fits": "fits", "votable": "votable", "parquet": "parquet.votable"}[format]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnitsWarning)
        assert Table.read(path, format=reader).colnames == list(CATALOG.names)


def test_rows_come_in_the_order_of_the_input_not_of_the_chunks_names(
    folder: Path, rows: pa.Table, tmp_path: Path
) -> None:
    parts = [path.name for path in open_rows(folder).parts]
    assert parts != sorted(parts)  # else this test would prove nothing
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
    """dex is no unit of the FITS standard: Astropy says so, and keeps the word."""
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
    return {key.decode(): text.decode() for key, text in pq.read_schema(path).metadata.items()}


@FORMATS
def test_the_file_says_which_run_and_model_made_it(
    folder: Path, tmp_path: Path, format: str
) -> None:
    run = identity(2, 3 * 73)
    said = facts(exported(folder, format, tmp_path))
    assert said["run_hash"] == run.hash
    assert said["model_hash"] == run.model_hash
    assert said["rows_rejected"] == "18"
    assert "rows_missing" not in said


@FORMATS
def test_the_same_catalog_gives_the_same_bytes(folder: Path, tmp_path: Path, format: str) -> None:
    one = exported(folder, format, tmp_path / "one").read_bytes()
    assert exported(folder, format, tmp_path / "two").read_bytes() == one


def test_rows_of_failed_chunks_are_told(tmp_path: Path) -> None:
    finished_run(tmp_path, files=1, chunks=3, rows=10, rejected=0)
    next((tmp_path / "receipts").iterdir()).unlink()
    path = exported(tmp_path, "votable", tmp_path / "out")
    assert facts(path)["rows_missing"] == "10"
    assert len(read(path)["teff"]) == 20


# ---------------------------------------------------------------- refusals and faults


@FORMATS
def test_a_file_that_exists_is_kept_unless_it_may_be_replaced(
    folder: Path, tmp_path: Path, format: str
) -> None:
    path = tmp_path / f"catalog.{SUFFIXES[format]}"
    path.write_text("mine")
    with pytest.raises(CatalogprocError, match="exists already"):
        export(folder, format, path)
    assert path.read_text() == "mine"
    export(folder, format, path, overwrite=True)
    assert len(read(path)["teff"]) == 420


@FORMATS
def test_a_fault_on_the_way_leaves_no_file(tmp_path: Path, format: str) -> None:
    """The last part is corrupt in its middle: its footer still tells the right rows."""
    finished_run(tmp_path, files=1, chunks=2, rows=300)
    part = open_rows(tmp_path).parts[-1]
    content = bytearray(part.read_bytes())
    content[200 : len(content) // 4] = bytes(len(content) // 4 - 200)
    part.write_bytes(content)
    out = tmp_path / "out"
    with pytest.raises(VerifyError, match="cannot be read") as caught:
        export(tmp_path, format, out / "x")
    assert caught.value.details["where"] == part
    assert list(out.iterdir()) == []


def test_a_part_that_is_gone_or_short_is_refused_before_anything_is_written(
    tmp_path: Path,
) -> None:
    finished_run(tmp_path, files=1, chunks=2, rows=30)
    first, second = open_rows(tmp_path).parts
    pq.write_table(pq.read_table(first).slice(1), first)
    with pytest.raises(VerifyError, match="other rows than its receipt"):
        export(tmp_path, "fits", tmp_path / "out" / "x.fits")
    first.unlink()
    with pytest.raises(VerifyError, match="cannot be read"):
        export(tmp_path, "fits", tmp_path / "out" / "x.fits")
    assert not (tmp_path / "out").exists()
    assert second.exists()


def test_what_is_asked_for_wrongly_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(JobError, match="fits, votable, parquet"):
        export(folder, "csv", tmp_path / "x")
    with pytest.raises(ContractError, match="no such column"):
        export(folder, "fits", tmp_path / "x", columns=["teff", "colour"])
    with pytest.raises(JobError, match="named once"):
        export(folder, "fits", tmp_path / "x", columns=["teff", "teff"])
    with pytest.raises(JobError, match="named once"):
        export(folder, "fits", tmp_path / "x", columns=[])
    with pytest.raises(ResumeError, match="holds no run"):
        export(tmp_path, "fits", tmp_path / "x")
    assert list(tmp_path.iterdir()) == []


def test_a_catalog_of_another_contract_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from catalogproc.catalog import export as module

    finished_run(tmp_path, files=1, chunks=1, rows=3)
    newer = replace(CATALOG, version=CATALOG.version + 1)
    monkeypatch.setattr(module, "load_contract", lambda name: newer)
    with pytest.raises(ContractError, match="another version"):
        export(tmp_path, "fits", tmp_path / "x")


# ---------------------------------------------------------------- nulls, widths and blocks

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
    """Every third value is null, from another place on in each column."""
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


def written(write: Write, path: Path, batches: list[pa.RecordBatch], **more: object) -> Path:
    with WholeFile(path) as file:
        write(
            file,
            NULLABLE,
            batches,
            widths=string_widths(NULLABLE, batches),
            rows=sum(batch.num_rows for batch in batches),
            **more,
        )
    return path


@pytest.mark.parametrize("rows", [0, 1, 7, 8, 9, 1000, 2001])
def test_votable_nulls_are_masked_and_nothing_else_is(tmp_path: Path, rows: int) -> None:
    batch = things(rows)
    path = written(write_votable, tmp_path / "x.vot", [batch], infos={"a": "<&>\"'é"})
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
def test_fits_nulls_are_tnull_and_nothing_else_is(tmp_path: Path, rows: int) -> None:
    batch = things(rows)
    path = written(write_fits, tmp_path / "x.fits", [batch], cards={"A": ("é" * 80, "long")})
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
    """Also across VOTable's lines of base64: here they are longer than a batch, and shorter."""
    batch = things(5000)
    assert batch.num_rows * record_dtype(NULLABLE, string_widths(NULLABLE, [batch])).itemsize > LINE
    more = {"cards": {}} if write is write_fits else {"infos": {}}
    files = []
    for step in (13, 999, 5000):
        pieces = [batch.slice(start, step) for start in range(0, 5000, step)]
        files.append(written(write, tmp_path / f"{step}", pieces, **more).read_bytes())
    assert files[0] == files[1] == files[2]


def test_strings_that_the_formats_cannot_hold_are_refused() -> None:
    contract = Contract("c", 1, "one string", (Column("s", "string", "a string"),))
    batch = pa.record_batch([pa.array(["plain", "é"])], names=["s"])
    widths = string_widths(contract, [batch])
    with pytest.raises(ContractError, match="ASCII strings only"):
        records(batch, contract, record_dtype(contract, widths))


def test_lists_are_refused() -> None:
    contract = Contract("c", 1, "a list", (Column("v", "list<float32>", "a list"),))
    with pytest.raises(ContractError, match="only flat columns"):
        record_dtype(contract, {})


@FORMATS
def test_memory_does_not_grow_with_the_catalog(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, format: str
) -> None:
    """Twenty times the parts, the same peak of Arrow's and NumPy's memory."""
    import tracemalloc

    from catalogproc.catalog import export as module
    from catalogproc.catalog import writer

    monkeypatch.setattr(module, "BATCH", 500)
    monkeypatch.setattr(writer, "ROW_GROUP", 500)
    peaks = []
    for chunks in (2, 40):
        folder = tmp_path / f"{chunks}"
        finished_run(folder, files=1, chunks=chunks, rows=500, rejected=0)
        tracemalloc.start()
        before = pa.total_allocated_bytes()
        export(folder, format, folder / "out")
        peaks.append(tracemalloc.get_traced_memory()[1] + pa.total_allocated_bytes() - before)
        tracemalloc.stop()
    assert peaks[1] < 1.5 * peaks[0]


# ---------------------------------------------------------------- the programs themselves


@pytest.fixture(scope="module")
def stilts() -> Callable[..., str]:
    """Run STILTS, the program under TOPCAT; a warning or an error of its fails the test."""
    program = shutil.which("stilts")
    if program is None:
        pytest.skip("STILTS is not installed (Debian: apt-get install stilts)")

    def run(*words: str) -> str:
        done = subprocess.run(
            [program, "-J-Xmx128m", "-J-XX:TieredStopAtLevel=1", *words],
            capture_output=True, text=True, timeout=120, env=os.environ | {"DISPLAY": ""},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert "WARNING" not in done.stderr, done.stderr
        assert "rror" not in done.stderr, done.stderr
        return done.stdout

    return run


def cells(text: str) -> list[dict[str, str]]:
    """The rows of STILTS' comma-separated output."""
    import csv

    return list(csv.DictReader(io.StringIO(text)))


@pytest.mark.parametrize("format", ["fits", "votable"])
def test_stilts_shows_every_columns_type_unit_ucd_and_description(
    folder: Path, tmp_path: Path, stilts: Callable[..., str], format: str
) -> None:
    path = exported(folder, format, tmp_path)
    said = stilts("tpipe", f"in={path}", "cmd=meta name class units ucd description", "ofmt=csv")
    classes = {"int64": "Long", "int32": "Integer", "int16": "Short", "float64": "Double"}
    classes |= {"float32": "Float", "bool": "Boolean", "string": "String"}
    shown = cells(said)
    assert len(shown) == len(CATALOG.columns)
    for row, column in zip(shown, CATALOG.columns, strict=True):
        assert row == {
            "Name": column.name,
            "Class": classes[column.type],
            "Units": column.unit,
            "UCD": column.ucd,
            "Description": column.description,
        }


@pytest.mark.parametrize("format", ["fits", "votable"])
def test_stilts_reads_every_value(
    folder: Path, rows: pa.Table, tmp_path: Path, stilts: Callable[..., str], format: str
) -> None:
    shown = cells(stilts("tpipe", f"in={exported(folder, format, tmp_path)}", "ofmt=csv"))
    assert len(shown) == rows.num_rows
    for column in CATALOG.columns:
        texts = [row[column.name] for row in shown]
        wanted = rows[column.name].to_pylist()
        if column.type.startswith("int"):
            assert [int(text) for text in texts] == wanted
        elif column.type == "bool":
            assert [text == "true" for text in texts] == wanted
            assert set(texts) <= {"true", "false"}
        elif column.type == "string":
            assert texts == wanted
        else:
            numbers = np.array([float(text or "nan") for text in texts], dtype=column.type)
            np.testing.assert_array_equal(numbers, rows[column.name].to_numpy())


def test_votlint_has_nothing_to_say(
    folder: Path, tmp_path: Path, stilts: Callable[..., str]
) -> None:
    path = exported(folder, "votable", tmp_path)
    assert stilts("votlint", "ucd=true", "unit=true", f"votable={path}") == ""


def test_a_crossmatch_of_two_exports_by_stilts_is_exact(
    folder: Path, rows: pa.Table, tmp_path: Path, stilts: Callable[..., str]
) -> None:
    """Every row finds itself by source_id, and only itself; the flags of both are equal."""
    one, other = (exported(folder, format, tmp_path) for format in ("fits", "votable"))
    said = stilts(
        "tmatch2", f"in1={one}", f"in2={other}", "matcher=exact", "values1=source_id",
        "values2=source_id", "find=all", "progress=none", "ofmt=csv",
        "ocmd=select 'quality_flags_1==quality_flags_2 && good_params_1==good_params_2'",
        "ocmd=keepcols 'source_id_1 source_id_2'",
    )  # fmt: skip
    pairs = [(int(row["source_id_1"]), int(row["source_id_2"])) for row in cells(said)]
    ids = rows["source_id"].to_pylist()
    assert sorted(pairs) == sorted(zip(ids, ids, strict=True))


@pytest.mark.parametrize("write", [write_fits, write_votable])
def test_stilts_reads_nulls_as_nulls(
    tmp_path: Path, stilts: Callable[..., str], write: Write
) -> None:
    batch = things(100)
    more = {"cards": {}} if write is write_fits else {"infos": {}}
    suffix = "fits" if write is write_fits else "vot"
    path = written(write, tmp_path / f"x.{suffix}", [batch], **more)
    shown = cells(stilts("tpipe", f"in={path}", "ofmt=csv"))
    for column in NULLABLE.columns:
        wanted = [not (v or v in (0, False)) for v in batch.column(column.name).to_pylist()]
        assert [row[column.name] == "" for row in shown] == wanted, column.name


def test_a_run_without_rows_is_read_by_stilts(tmp_path: Path, stilts: Callable[..., str]) -> None:
    run: RunIdentity = finished_run(tmp_path / "run", files=1, chunks=1, rows=0)
    assert run
    for format in ("fits", "votable"):
        path = exported(tmp_path / "run", format, tmp_path)
        assert stilts("tpipe", f"in={path}", "omode=count").split()[-1] == "0"
