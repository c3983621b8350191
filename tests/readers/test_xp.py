"""Spectra come out the same, bit for bit, of every dialect; broken rows alone, by name."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from support.xp_files import (
    ARCHIVE,
    ARRAYS,
    COLUMNS,
    CORRELATED,
    CORRELATIONS,
    agrees,
    csv_bytes,
    fits_bytes,
    listed,
    parquet_bytes,
    plain_csv,
    put,
    real,
    same,
    scattered,
    spectra,
    votable,
    written,
    zipped,
)

from catalogproc.contract import load_contract
from catalogproc.errors import InputError
from catalogproc.readers.xp_layout import OCCASIONAL

MISSING_BP = "XP_CONTINUOUS_RAW_with_missing_BP"


@pytest.fixture(scope="module")
def two() -> list[dict]:
    """The two stars of the archive's files, by Python's own csv and json."""
    return plain_csv(ARCHIVE / "XP_CONTINUOUS_RAW.csv")


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
    names = [
        name
        for name in load_contract("xp_continuous").names
        if not name.endswith("correlations") and name not in OCCASIONAL
    ]
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
    assert spectra(CORRELATED).drop(["row", "fault"]).num_columns == 9


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
    with pytest.raises(InputError, match="a float: its last digits are lost"):
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


# --- columns that are not there ---


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


# VmHWM is of this program alone; getrusage would begin with the peak of the one that started it.
BOUNDED = """
import sys, pyarrow
from catalogproc.readers.xp import read_spectra
def peak():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) / 1024
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
