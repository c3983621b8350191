"""The same stars, bit for bit, from every file format; files that are none, by name."""

from __future__ import annotations

import itertools
import os

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.xp_files import (
    ARCHIVE,
    ARRAYS,
    COLUMNS,
    CORRELATIONS,
    agrees,
    csv_bytes,
    fits_bytes,
    parquet_bytes,
    plain_csv,
    put,
    real,
    spectra,
    votable,
    written,
    zipped,
)

from catalogproc.errors import InputError
from catalogproc.readers.xp import read_spectra

TWO_STARS = ("csv", "ecsv", "fits", "xml", "_plain.xml")
MISSING_BP = "XP_CONTINUOUS_RAW_with_missing_BP"


@pytest.fixture(scope="module")
def two() -> list[dict]:
    """The two stars of the archive's files, by Python's own csv and json."""
    return plain_csv(ARCHIVE / "XP_CONTINUOUS_RAW.csv")


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
        ("a.xml", b"<?xml version='1.0'?><Error/>", "no VOTable"),
        ("a.parquet", b"PAR1 is not enough", "cannot be read as Parquet"),
        ("a.csv.gz", b"\x1f\x8bnonsense", "cannot be read as CSV"),
        ("a.csv", b"# comments\n# alone\n", "has no line of column names"),
        ("a.csv", b"a,b,a\n", "two columns have the same name"),
        ("a.dat", b"Obj\x01 avro.schema", "the format is not read"),
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
