"""Spectra come out the same, bit for bit, of every format and dialect; broken ones by name."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from xpfiles import (
    ARCHIVE,
    ARRAYS,
    COLUMNS,
    CORRELATED,
    CORRELATIONS,
    COUNTS,
    EXAMPLES,
    csv_bytes,
    fits_bytes,
    listed,
    parquet_bytes,
    plain_csv,
    real,
    scattered,
    votable,
    written,
    zipped,
)

from catalogproc.contract import load_contract
from catalogproc.errors import InputError, ReleaseError
from catalogproc.sources.xp import check_release, read_spectra, release
from catalogproc.vocabulary import load_vocabulary

TWO_STARS = ("csv", "ecsv", "fits", "xml", "_plain.xml")
MISSING_BP = "XP_CONTINUOUS_RAW_with_missing_BP"


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


@pytest.fixture(scope="module")
def two() -> list[dict]:
    """The two stars of the archive's files, by Python's own csv and json."""
    return plain_csv(ARCHIVE / "XP_CONTINUOUS_RAW.csv")


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


# --- formats ---------------------------------------------------------------------------


@pytest.mark.parametrize("ending", TWO_STARS)
def test_the_same_stars_from_every_archive_format(ending, two):
    dot = "" if ending.startswith("_") else "."
    found = spectra(ARCHIVE / f"XP_CONTINUOUS_RAW{dot}{ending}", correlations=True)
    assert found.num_rows == 2
    assert agrees(found, two)
    assert found.column("fault").null_count == 2
    assert found.column("row").to_pylist() == [0, 1]


@pytest.mark.parametrize("name", ["XP_CONTINUOUS_RAW.csv", "XP_CONTINUOUS_RAW.ecsv",
                                  "XP_CONTINUOUS_RAW.xml", "XP_CONTINUOUS_RAW.fits"])  # fmt: skip
def test_compressed_or_not_is_the_same(name, tmp_path, two):
    content = (ARCHIVE / name).read_bytes()
    assert agrees(spectra(put(tmp_path, name + ".gz", zipped(content)), correlations=True), two)
    # A browser decompresses on the way and keeps the name.
    assert agrees(spectra(put(tmp_path, "kept_" + name + ".gz", content)), two, COLUMNS)


def test_gzip_of_several_members(tmp_path, two):
    content = (ARCHIVE / "XP_CONTINUOUS_RAW.csv").read_bytes()
    parts = b"".join(
        zipped(content[place : place + 9999]) for place in range(0, len(content), 9999)
    )
    assert agrees(spectra(put(tmp_path, "members.csv.gz", parts), correlations=True), two)


VOTABLES = ("TABLEDATA", "BINARY", "BINARY2")


@pytest.mark.parametrize("data", VOTABLES)
@pytest.mark.parametrize("ending", [".xml", ".vot", ".votable", ".xml.gz"])
def test_every_kind_of_votable(data, ending, tmp_path, two):
    content = votable(two, data, (*COLUMNS, *CORRELATIONS))
    path = put(tmp_path, "a" + ending, zipped(content) if ending.endswith("gz") else content)
    assert agrees(spectra(path, correlations=True), two)


def test_a_votable_by_astropy(tmp_path, two):
    from astropy.io.votable import parse

    table = parse(ARCHIVE / "XP_CONTINUOUS_RAW.xml")
    table.to_xml(str(tmp_path / "a.vot"), tabledata_format="tabledata")
    assert agrees(spectra(tmp_path / "a.vot"), two, COLUMNS)


@pytest.mark.parametrize("ending", ["csv", "fits"])
def test_a_missing_band_is_null(ending):
    found = spectra(ARCHIVE / f"{MISSING_BP}.{ending}", correlations=True)
    assert agrees(found, plain_csv(ARCHIVE / f"{MISSING_BP}.csv"))
    row = found.slice(1, 1).to_pylist()[0]
    assert row["source_id"] == 5405570973190252288
    for name in ("bp_coefficients", "bp_coefficient_errors", "bp_n_relevant_bases"):
        assert row[name] is None
    assert len(row["rp_coefficients"]) == 55
    # Nothing lies in the memory of a null list, so that the others' values stay in step.
    assert len(found.column("bp_coefficients").combine_chunks().values) == 110
    assert found.column("fault").null_count == 3


@pytest.mark.parametrize("data", VOTABLES)
def test_a_missing_band_in_a_votable(data, tmp_path):
    rows = plain_csv(ARCHIVE / f"{MISSING_BP}.csv")
    found = spectra(put(tmp_path, "a.vot", votable(rows, data)))
    assert agrees(found, rows, COLUMNS)
    assert found.column("bp_coefficients").is_null().to_pylist() == [False, True, False]


@pytest.mark.parametrize("repeat", ["55D", "PD(55)", "QD(55)"])
def test_fits_arrays_of_fixed_and_of_own_length(repeat, tmp_path):
    table = real(20)
    blank = np.full(55, np.nan) if repeat == "55D" else np.empty(0)
    columns = {"SOURCE_ID": ("K", table.column("source_id").to_numpy())}
    for name in ARRAYS:
        rows = [np.array(row) for row in table.column(name).to_pylist()]
        rows[7] = blank if name.startswith("bp") else rows[7]
        values = np.array(rows) if repeat == "55D" else np.array([*rows, None], object)[:-1]
        columns[name.upper()] = (repeat, values)
    found = spectra(put(tmp_path, "a.fits", fits_bytes(columns)))
    assert found.column("bp_coefficients").is_null().to_pylist() == [row == 7 for row in range(20)]
    assert found.column("bp_n_relevant_bases").null_count == 20
    kept = [row for row in range(20) if row != 7]
    for name in ARRAYS:
        wanted = table.column(name).cast(found.schema.field(name).type)
        assert found.column(name).take(kept).to_pylist() == wanted.take(kept).to_pylist()


def test_fits_numbers_that_are_unsigned_or_null(tmp_path):
    from astropy.io import fits

    table = real(4)
    columns = [
        fits.Column(
            "source_id", "K", bzero=1 << 63, array=np.array([5, 6, (1 << 63) + 1, 8], "u8")
        ),
        fits.Column("bp_n_relevant_bases", "I", null=-1, array=np.array([1, -1, 3, 4], "i2")),
        fits.Column("rp_n_relevant_bases", "J", bzero=1 << 31, array=np.array([1, 2, 3, 4], "u4")),
        *(fits.Column(n, "55D", array=np.array(table.column(n).to_pylist())) for n in ARRAYS),
    ]
    fits.BinTableHDU.from_columns(columns).writeto(tmp_path / "a.fits")
    found = spectra(tmp_path / "a.fits")
    assert found.column("source_id").to_pylist() == [5, 6, None, 8]
    assert "9223372036854775809" in found.column("fault")[2].as_py()
    assert found.column("bp_n_relevant_bases").to_pylist() == [1, None, 3, 4]
    assert found.column("rp_n_relevant_bases").to_pylist() == [1, 2, 3, 4]


# --- dialects of Parquet ---------------------------------------------------------------

DIALECTS = {
    "list<double>": lambda t: t,
    "list<float> errors": lambda t: t.cast(
        pa.schema([
            pa.field(f.name, pa.list_(pa.float32()) if f.name.endswith("errors") else f.type)
            for f in t.schema
        ])
    ),
    "large_list": lambda t: listed(t, pa.large_list),
    "fixed_size_list": lambda t: listed(t, lambda kind: pa.list_(kind, 55)),
    "(a, b)": lambda t: written(t, "(", ", ", ")"),
    "[a,b]": lambda t: written(t, "[", ",", "]"),
    "a,b": lambda t: written(t, "", ",", ""),
    "large strings": lambda t: pa.table(
        {n: c.cast(pa.large_string()) if n in ARRAYS else c
         for n, c in zip(t.column_names, written(t, "[", ", ", "]").columns, strict=True)}
    ),
    "dictionaries": lambda t: pa.table(
        {n: c.dictionary_encode() if n in (*ARRAYS, "source_id") else c
         for n, c in zip(t.column_names, written(t, "[", ", ", "]").columns, strict=True)}
    ),
    "bp_coefficients_0": lambda t: scattered(t, lambda n, k: f"{n}_{k}"),
    "bp_coefficients[0]": lambda t: scattered(t, lambda n, k: f"{n}[{k}]"),
    "bp_coefficients_1": lambda t: scattered(t, lambda n, k: f"{n}_{k + 1}"),
    "BP_00": lambda t: scattered(
        t, lambda n, k: f"{'E_' if n.endswith('errors') else ''}{n[:2].upper()}_{k:02d}"
    ),
    "bp0, bp_err_0": lambda t: scattered(
        t, lambda n, k: f"{n[:2]}_err_{k}" if n.endswith("errors") else f"{n[:2]}{k}"
    ),
    "shuffled, with strangers": lambda t: t.append_column(
        "solution_id", pa.array(np.arange(t.num_rows))
    ).append_column("nested", pa.array([{"a": 1}] * t.num_rows)).select(
        ["rp_coefficients", "solution_id", "bp_coefficient_errors", "bp_coefficients", "nested",
         "rp_n_relevant_bases", "source_id", "rp_coefficient_errors", "bp_n_relevant_bases"]
    ),
    "wide counts": lambda t: t.set_column(
        1, "bp_n_relevant_bases", t.column("bp_n_relevant_bases").cast(pa.float64())
    ),
}  # fmt: skip


@pytest.mark.parametrize("dialect", DIALECTS)
def test_1500_real_spectra_through_each_dialect(dialect, tmp_path):
    path = tmp_path / "a.parquet"
    pq.write_table(DIALECTS[dialect](real()), path, row_group_size=400)
    found = spectra(path, batch_rows=333)
    assert same(found, real())
    assert found.column("fault").null_count == 1500
    assert found.column("row").to_pylist() == list(range(1500))
    names = [n for n in load_contract("xp_continuous").names if not n.endswith("correlations")]
    assert found.column_names == [*names, "row", "fault"]


def test_32_bit_coefficients(tmp_path):
    narrow = listed(real(50), lambda _: pa.list_(pa.float32()))
    found = spectra(put(tmp_path, "a.parquet", parquet_bytes(narrow)))
    assert found.schema.field("bp_coefficients").type == pa.list_(pa.float64())
    assert (
        found.column("bp_coefficients").to_pylist() == narrow.column("bp_coefficients").to_pylist()
    )


def test_text_with_correlations_equals_json():
    found = spectra(CORRELATED, correlations=True)
    plain = pq.read_table(CORRELATED)
    for name in (*ARRAYS, *CORRELATIONS):
        wanted = [json.loads(f"[{text.strip('()')}]") for text in plain.column(name).to_pylist()]
        kind = found.schema.field(name).type.value_type.to_pandas_dtype()
        assert (
            np.array(found.column(name).to_pylist(), kind) == np.array(wanted).astype(kind)
        ).all()
    assert spectra(CORRELATED).drop(["row", "fault"]).num_columns == 7


def test_correlations_that_are_absent_are_null(tmp_path):
    found = spectra(put(tmp_path, "a.parquet", parquet_bytes(real(3))), correlations=True)
    assert found.column(CORRELATIONS[0]).null_count == 3


def test_a_missing_band_in_every_dialect(tmp_path):
    table = real(6)
    gone = pa.array([row in (0, 4) for row in range(6)])
    columns = {
        name: pc.if_else(gone, pa.scalar(None, table.schema.field(name).type), table.column(name))
        if name.startswith("rp_c")
        else table.column(name)
        for name in table.column_names
    }
    table = pa.table(columns)
    for dialect in ("large_list", "fixed_size_list", "[a,b]", "bp_coefficients_0"):
        found = spectra(put(tmp_path, "a.parquet", parquet_bytes(DIALECTS[dialect](table))))
        assert same(found, table), dialect
        assert len(found.column("rp_coefficients").combine_chunks().values) == 4 * 55


# --- identifiers -----------------------------------------------------------------------

BEYOND_FLOAT = [(1 << 62) + 1, (1 << 53) + 1, 5853498713190525697, 4295806720]


@pytest.mark.parametrize(
    "kind",
    [pa.int64(), pa.uint64(), pa.decimal128(20, 0), pa.string(), pa.large_string(),
     pa.dictionary(pa.int32(), pa.int64()), pa.dictionary(pa.int8(), pa.string())],
    ids=str,
)  # fmt: skip
def test_identifiers_are_exact_in_every_type(kind, tmp_path):
    values = pa.array(BEYOND_FLOAT, pa.int64())
    if pa.types.is_dictionary(kind):
        values = values.cast(kind.value_type).dictionary_encode()
    else:
        values = values.cast(kind)
    table = real(4).set_column(0, "source_id", values)
    found = spectra(put(tmp_path, "a.parquet", parquet_bytes(table)))
    assert found.column("source_id").to_pylist() == BEYOND_FLOAT


def test_an_identifier_of_32_bits(tmp_path):
    table = real(2).set_column(0, "source_id", pa.array([7, 8], pa.int32()))
    found = spectra(put(tmp_path, "a.parquet", parquet_bytes(table)))
    assert found.column("source_id").to_pylist() == [7, 8]


@pytest.mark.parametrize(
    "kind", [pa.float64(), pa.float32(), pa.dictionary(pa.int8(), pa.float64())]
)
def test_an_identifier_that_was_a_float_is_refused(kind, tmp_path):
    values = pa.array([1.0, 2.0])
    values = values.dictionary_encode() if pa.types.is_dictionary(kind) else values.cast(kind)
    path = put(tmp_path, "a.parquet", parquet_bytes(real(2).set_column(0, "source_id", values)))
    with pytest.raises(InputError, match="a float, in which its last digits are lost"):
        spectra(path)


def test_a_float_identifier_is_refused_in_fits_and_votable(tmp_path, two):
    columns = {"source_id": ("D", np.arange(2.0))} | {n: ("55D", np.ones((2, 55))) for n in ARRAYS}
    with pytest.raises(InputError, match="last digits are lost"):
        spectra(put(tmp_path, "a.fits", fits_bytes(columns)))
    for data in ("TABLEDATA", "BINARY2"):
        content = votable(two, data).replace(b'datatype="long"', b'datatype="double"', 1)
        with pytest.raises(InputError, match="last digits are lost"):
            spectra(put(tmp_path, "a.vot", content))


# --- rows that cannot be read ----------------------------------------------------------


def five_rows(two: list[dict]) -> list[dict]:
    return [two[place % 2] | {"source_id": 1000 + place} for place in range(5)]


BP, RP, COUNT = "bp_coefficients", "rp_coefficients", "bp_n_relevant_bases"
OPEN, WHOLE = "a quotation mark is not closed", "wanted an integer"


@pytest.mark.parametrize(
    ("broken", "why", "lost"),
    [
        (lambda line: line.replace(b"(569", b"(5x9", 1), f"{BP}: wanted numbers, found '(5x9", BP),
        (lambda line: line.replace(b'"', b"", 1), OPEN, BP),
        (lambda line: line.replace(b'"', b"", 2), "wanted 7 fields, found 61", BP),
        (lambda line: line[: len(line) // 2], OPEN, RP),
        (lambda line: line[: line.rindex(b',"(')], "wanted 7 fields, found 6", RP),
        (lambda line: line.replace(b",53,", b",fifty,", 1), f"{COUNT}: {WHOLE}, found 'fi", COUNT),
        (lambda line: line.replace(b",53,", b",99999,", 1), f"{COUNT}: {WHOLE}, found '9", COUNT),
        (lambda line: b"1002.5" + line[4:], f"source_id: {WHOLE}, found '1002.5'", "source_id"),
        (lambda line: b"1.002e3" + line[4:], f"source_id: {WHOLE}, found '1.0", "source_id"),
        (lambda line: b"\xff\x00\xfe" + line[4:], f"source_id: {WHOLE}, found", "source_id"),
    ],
)
def test_a_broken_row_costs_itself_alone(broken, why, lost, tmp_path, two):
    lines = csv_bytes(five_rows(two), COLUMNS).split(b"\n")
    lines[3] = broken(lines[3])
    found = spectra(put(tmp_path, "a.csv", b"\n".join(lines)))
    assert found.num_rows == 5
    assert found.column("fault").is_valid().to_pylist() == [False, False, True, False, False]
    assert why in found.column("fault")[2].as_py()
    assert found.column(lost)[2].as_py() is None
    if lost != "source_id":
        assert found.column("source_id").to_pylist() == [1000, 1001, 1002, 1003, 1004]
    others = [0, 1, 3, 4]
    wanted = [five_rows(two)[row] for row in others]
    assert agrees(found.take(others), wanted, COLUMNS)


def test_a_broken_text_in_parquet_costs_its_row_alone(tmp_path):
    table = written(real(9), "(", ", ", ")")
    texts = table.column("rp_coefficients").to_pylist()
    texts[4] = texts[4].replace(", ", "; ", 1)
    table = table.set_column(5, "rp_coefficients", pa.array(texts))
    found = spectra(put(tmp_path, "a.parquet", parquet_bytes(table)))
    assert found.column("rp_coefficients").is_null().to_pylist() == [row == 4 for row in range(9)]
    assert "rp_coefficients: wanted numbers, found '(136" in found.column("fault")[4].as_py()
    assert found.column("fault").null_count == 8


def test_nulls_and_nan_among_the_numbers(tmp_path, two):
    rows = five_rows(two)[:2]
    content = csv_bytes(rows, COLUMNS, ecsv=True).replace(b"[56947.03696840172,", b"[null,", 1)
    content = content.replace(b"[7685.987865952477,", b"[NaN,", 1)
    found = spectra(put(tmp_path, "a.ecsv", content))
    values = np.array(found.column("bp_coefficients").to_pylist())
    assert np.isnan(values[:, 0]).all()
    assert np.isfinite(values[:, 1:]).all()
    assert found.column("fault").null_count == 2


def test_text_tables_of_other_manners(tmp_path, two):
    rows = five_rows(two)
    plain = csv_bytes(rows, COLUMNS)
    for name, content in {
        "return.csv": plain.replace(b"\n", b"\r\n"),
        "mark.csv": b"\xef\xbb\xbf" + plain,
        "blank_lines.csv": plain.replace(b"\n", b"\n\n"),
        "no_last_line_end.csv": plain.rstrip(b"\n"),
        "quoted_names.csv": plain.replace(b"source_id", b'"source_id"', 1),
        "capitals.csv": plain.replace(b"source_id", b"SOURCE_ID", 1),
        "spaces.ecsv": b"# %ECSV 1.0\n# ---\n"
        + plain.replace(b", ", b";").replace(b",", b" ").replace(b";", b", "),
        "bulk.csv": csv_bytes(rows, COLUMNS, ecsv=True),  # the archive's bulk files are such
    }.items():
        found = spectra(put(tmp_path, name, content))
        assert agrees(found, rows, COLUMNS), name
        assert found.column("fault").null_count == 5, name


# --- files that cannot be read ---------------------------------------------------------


TRUNCATED = (
    "XP_CONTINUOUS_RAW.csv", "XP_CONTINUOUS_RAW.fits", "XP_CONTINUOUS_RAW.xml",
    "XP_CONTINUOUS_RAW_plain.xml", "a.parquet", "a.csv.gz", "b.xml.gz",
)  # fmt: skip


@pytest.mark.parametrize("name", TRUNCATED)
@pytest.mark.parametrize("share", [0.02, 0.5, 0.9])
def test_a_truncated_file(name, share, tmp_path):
    whole = {
        "a.parquet": lambda: parquet_bytes(real(50)),
        "a.csv.gz": lambda: zipped((ARCHIVE / "XP_CONTINUOUS_RAW.csv").read_bytes()),
        "b.xml.gz": lambda: zipped((ARCHIVE / "XP_CONTINUOUS_RAW.xml").read_bytes()),
    }.get(name, lambda: (ARCHIVE / name).read_bytes())()
    path = put(tmp_path, name, whole[: int(len(whole) * share)])
    with pytest.raises(InputError) as caught:
        spectra(path)
    assert str(path) in str(caught.value)
    assert {"wanted", "found", "where"} <= set(caught.value.details)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.parquet", b"", "the file is empty"),
        ("a.csv", b"", "the file is empty"),
        ("a.csv.gz", b"", "the file is empty"),
        ("a.csv.gz", zipped(b""), "not what its name says"),
        ("a.fits", b"PAR1 and more", "not what its name says"),
        ("a.parquet", b"source_id,bp_coefficients\n", "not what its name says"),
        ("a.csv", b"\x00\x01\x02\x03", "not what its name says"),
        ("a.csv.gz", b"<!DOCTYPE html><html>503</html>", "not what its name says"),
        ("a.xml", b"<?xml version='1.0'?><html/>", "no table with data"),
        ("a.parquet", b"PAR1 is not enough", "cannot be read as Parquet"),
        ("a.csv.gz", b"\x1f\x8bnonsense", "cannot be read as CSV"),
        ("a.csv", b"# comments\n# alone\n", "without a line of column names"),
        ("a.csv", b"a,b,a\n", "a column name stands twice"),
        ("a.dat", b"Obj\x01 avro.schema", "a format that is not read"),
    ],
)  # fmt: skip
def test_a_file_that_is_no_table(name, content, message, tmp_path):
    path = put(tmp_path, name, content)
    with pytest.raises(InputError, match=message) as caught:
        spectra(path)
    assert str(path) in str(caught.value)
    assert {"wanted", "found"} <= set(caught.value.details) or "twice" in message


def test_a_file_that_is_not_there_or_a_folder(tmp_path):
    with pytest.raises(InputError, match="the file is not there"):
        spectra(tmp_path / "none.parquet")
    with pytest.raises(InputError, match="a folder, not a file"):
        spectra(tmp_path)
    os.mkfifo(tmp_path / "pipe.csv")  # would wait for ever
    with pytest.raises(InputError, match="not a regular file"):
        spectra(tmp_path / "pipe.csv")


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_file_that_may_not_be_read(tmp_path):
    path = put(tmp_path, "a.parquet", parquet_bytes(real(2)))
    path.chmod(0)
    with pytest.raises(InputError, match="Permission denied"):
        spectra(path)


def test_missing_columns_are_named(tmp_path, two):
    content = csv_bytes(two, ("source_id", "rp_coefficients", "rp_coefficient_errors"))
    path = put(tmp_path, "a.csv", content)
    with pytest.raises(InputError, match="columns are missing") as caught:
        spectra(path)
    assert caught.value.details == {
        "wanted": "bp_coefficients, bp_coefficient_errors",
        "found": "source_id, rp_coefficients, rp_coefficient_errors",
        "where": path,
    }


def test_columns_that_cannot_be_ours(tmp_path):
    table = scattered(real(2), lambda n, k: f"{n}_{k}")
    ids = real(2).column("source_id")
    twice = real(2).append_column("Source_ID", ids)
    twice = twice.rename_columns(["SOURCE_ID", *COLUMNS[1:], "Source_ID"])
    for changed, message in (
        (table.drop(["bp_coefficients_7"]), "wanted: element 7"),
        (table.drop(["bp_coefficients_0", "bp_coefficients_1"]), "wanted: element 1"),
        (table.append_column("bp_7", ids), "two columns for one element"),
        (real(2).set_column(3, "bp_coefficients", ids), "wanted: a list of numbers"),
        (twice, "differ in case alone"),
    ):
        with pytest.raises(InputError, match=message):
            spectra(put(tmp_path, "a.parquet", parquet_bytes(changed)))


def test_no_rows_are_no_rows(tmp_path, two):
    assert not list(read_spectra(put(tmp_path, "a.csv", csv_bytes([], COLUMNS))))
    assert not list(read_spectra(put(tmp_path, "b.csv", csv_bytes([], COLUMNS).rstrip(b"\n"))))
    assert not list(read_spectra(put(tmp_path, "a.parquet", parquet_bytes(real(0)))))
    empty = {"source_id": ("K", np.empty(0, "i8"))} | {
        n: ("55D", np.empty((0, 55))) for n in ARRAYS
    }
    assert not list(read_spectra(put(tmp_path, "a.fits", fits_bytes(empty))))


def test_a_votable_that_leads_elsewhere_or_was_cut_short(tmp_path, two):
    whole = votable(two, "BINARY2")
    overflow = b'</TABLE><INFO name="QUERY_STATUS" value="OVERFLOW"/>'
    for old, new, message in (
        (b"<STREAM ", b'<STREAM href="file:///etc/passwd" ', "another address"),
        (b"</TABLE>", overflow, "cut this result short"),
        (b"<VOTABLE ", b'<!DOCTYPE V [<!ENTITY a "b">]><VOTABLE ', "declares the entity"),
        (b'encoding="base64"', b'encoding="gzip"', "not base64"),
        (b"</TABLE>", b"</TABEL>", "mismatched tag"),
    ):
        assert old in whole
        with pytest.raises(InputError, match=message):
            spectra(put(tmp_path, "a.xml", whole.replace(old, new, 1)))


# --- streams ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a.parquet", "a.csv", "a.fits", "a.xml", "b.xml"])
def test_any_rows_of_any_format(name, tmp_path, two):
    """Rows asked for are those of the whole file, whatever the batches."""
    rows = [two[place % 2] | {"source_id": 1 + place} for place in range(11)]
    arrays = {
        n: ("PD(55)", np.array([*(np.array(r[n]) for r in rows), None], object)[:-1])
        for n in ARRAYS
    }
    ids = {"source_id": ("K", np.arange(1, 12))}
    content = {
        "a.parquet": lambda: parquet_bytes(
            pa.Table.from_pylist([{n: r[n] for n in COLUMNS} for r in rows]), row_group_size=4
        ),
        "a.csv": lambda: csv_bytes(rows, COLUMNS),
        "a.fits": lambda: fits_bytes(ids | arrays),
        "a.xml": lambda: votable(rows, "TABLEDATA"),
        "b.xml": lambda: votable(rows, "BINARY2"),
    }[name]()
    path = put(tmp_path, name, content)
    whole = spectra(path)
    count = whole.num_rows
    assert count == 11
    for skip, rows_wanted, batch_rows in itertools.product(
        (0, 1, 4, 10, 20), (None, 0, 1, 5), (1, 3, 99)
    ):
        batches = list(read_spectra(path, skip=skip, rows=rows_wanted, batch_rows=batch_rows))
        assert all(len(batch) <= batch_rows for batch in batches)
        found = pa.Table.from_batches(batches, schema=whole.schema)
        assert found.equals(whole.slice(skip, rows_wanted))


def test_rows_are_handed_out_before_the_file_is_read_to_its_end(tmp_path):
    """The end of this file is broken; what stands before comes out all the same."""
    lines = csv_bytes(real(1500).to_pylist(), COLUMNS)
    head, body = lines.split(b"\n", 1)
    whole = zipped(head + b"\n" + body) + b"".join([zipped(body)] * 5)
    path = put(tmp_path, "a.csv.gz", whole[:-100])
    batches = read_spectra(path, batch_rows=1000)
    assert len(next(batches)) == 1000
    with pytest.raises(InputError, match="cannot be read as CSV"):
        list(batches)


BOUNDED = """
import resource, sys, pyarrow
from catalogproc.sources.xp import read_spectra
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
next(iter(read_spectra(sys.argv[1], rows=10)))
before, rows = peak(), 0
for batch in read_spectra(sys.argv[1]):
    rows += len(batch)
print(rows, peak() - before)
"""


def test_memory_does_not_grow_with_the_file(tmp_path):
    """140 MB of text in 3,600 spectra with correlations, read in less than 100 MB."""
    rows = [r | {"source_id": 1} for r in pq.read_table(CORRELATED).to_pylist()]
    names = list(rows[0])
    cells = ([f'"{v}"' if isinstance(v, str) else str(v) for v in row.values()] for row in rows)
    body = "".join(",".join(row) + "\n" for row in cells)
    member = zipped(body.encode())
    path = put(tmp_path, "a.csv.gz", zipped(",".join(names).encode() + b"\n") + member * 120)
    assert len(body) * 120 > 140e6
    said = subprocess.run(
        [sys.executable, "-c", BOUNDED, path],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    ).stdout.split()
    assert int(said[0]) == 3600
    assert float(said[1]) < 100


# --- releases --------------------------------------------------------------------------


def test_the_release_is_told_by_the_number_of_coefficients(tmp_path):
    vocabulary = load_vocabulary()
    for path in (ARCHIVE / "XP_CONTINUOUS_RAW.fits", ARCHIVE / f"{MISSING_BP}.csv", CORRELATED,
                 EXAMPLES / "xp_continuous_000.parquet"):  # fmt: skip
        assert release(path) == {"bp": 55, "rp": 55}
        check_release(path, vocabulary)
    next_release = {n: [row[:51] for row in real(9).column(n).to_pylist()] for n in ARRAYS[:2]}
    table = pa.table({n: next_release.get(n, real(9).column(n)) for n in COLUMNS})
    path = put(tmp_path, "dr4.parquet", parquet_bytes(table))
    assert release(path) == {"bp": 51, "rp": 55}
    with pytest.raises(ReleaseError, match="does not read") as caught:
        check_release(path, vocabulary)
    assert caught.value.details["wanted"] == "55 BP, 55 RP"
    assert caught.value.details["found"] == "51 BP, 55 RP"
    assert "model that was trained on that release" in str(caught.value)


def test_single_rows_of_another_length_do_not_make_another_release(tmp_path):
    rows = real(9).column("bp_coefficients").to_pylist()
    rows[0] = rows[0][:51]
    table = real(9).set_column(3, "bp_coefficients", pa.array(rows))
    check_release(put(tmp_path, "a.parquet", parquet_bytes(table)), load_vocabulary())
    none = dict.fromkeys(ARRAYS[:2], pa.nulls(9, pa.list_(pa.float64())))
    only_rp = pa.table({n: none.get(n, real(9).column(n)) for n in COLUMNS})
    path = put(tmp_path, "rp.parquet", parquet_bytes(only_rp))
    check_release(path, load_vocabulary())
    assert release(path) == {"bp": 0, "rp": 55}


# --- bytes gone wrong ------------------------------------------------------------------

SEEDS = {
    "a.csv": lambda: (ARCHIVE / f"{MISSING_BP}.csv").read_bytes(),
    "a.csv.gz": lambda: zipped((ARCHIVE / "XP_CONTINUOUS_RAW.csv").read_bytes()),
    "a.ecsv": lambda: (ARCHIVE / "XP_CONTINUOUS_RAW.ecsv").read_bytes(),
    "a.fits": lambda: (ARCHIVE / f"{MISSING_BP}.fits").read_bytes(),
    "a.xml": lambda: (ARCHIVE / "XP_CONTINUOUS_RAW.xml").read_bytes(),
    "b.xml": lambda: (ARCHIVE / "XP_CONTINUOUS_RAW_plain.xml").read_bytes(),
    "c.vot": lambda: votable(plain_csv(ARCHIVE / f"{MISSING_BP}.csv"), "BINARY"),
    "a.parquet": lambda: parquet_bytes(real(30), compression="none", use_dictionary=False),
    "b.parquet": lambda: parquet_bytes(written(real(10), "(", ", ", ")"), row_group_size=4),
}


@pytest.fixture(scope="module")
def seeds() -> dict[str, bytes]:
    return {name: make() for name, make in SEEDS.items()}


@pytest.mark.parametrize("name", SEEDS)
@settings(
    max_examples=int(os.environ.get("CATALOGPROC_FUZZ", "40")),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
def test_damaged_bytes_give_rows_faults_or_an_input_error(name, seeds, tmp_path, data):
    content = bytearray(seeds[name])
    near_an_end = st.integers(0, 3000) | st.integers(len(content) - 3000, len(content) - 1)
    place = data.draw(st.integers(0, len(content) - 1) | near_an_end)
    match data.draw(st.sampled_from(["cut", "flip", "zero", "insert", "repeat"])):
        case "cut":
            del content[place:]
        case "flip":
            content[place] ^= 1 << data.draw(st.integers(0, 7))
        case "zero":
            content[place : place + 40] = bytes(len(content[place : place + 40]))
        case "insert":
            content[place:place] = data.draw(st.binary(min_size=1, max_size=30))
        case "repeat":
            content[place:place] = content[place : place + 5000]
    path = put(tmp_path, name, bytes(content))
    said = str(path)
    try:
        for batch in read_spectra(path, correlations=True):
            batch.validate(full=True)
            assert batch.schema.field("source_id").type == pa.int64()
    except InputError as error:
        said = str(error)
    assert str(path) in said
