"""AuxiliaryTable tables: the right star's numbers, exact identifiers, bounded reading."""

from __future__ import annotations

import csv
import pickle
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.xp_files import AUXILIARY, CORRELATED, DATA, fits_bytes, parquet_bytes, zipped

from catalogproc.contract import load_contract
from catalogproc.errors import InputError, JobError
from catalogproc.readers import sorted_tables
from catalogproc.readers.gaia_source import open_auxiliary

CONTRACT = load_contract("gaia_source")


def kepler() -> pa.Table:
    """322 real giants of Kepler, with identifiers beyond a float's reach made of their numbers."""
    with (DATA / "kepler_red_giants.csv").open() as file:
        rows = list(csv.DictReader(file))
    columns = {"source_id": pa.array([(1 << 62) + 2 * int(row["KIC"]) + 1 for row in rows])}
    for name in rows[0]:
        if name != "KIC":
            columns[name] = pa.array([float(row[name]) if row[name] else None for row in rows])
    return pa.table(columns)


def put(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def as_csv(table: pa.Table) -> bytes:
    out = pa.BufferOutputStream()
    pyarrow.csv.write_csv(table, out)
    return out.getvalue().to_pybytes()


def as_fits(table: pa.Table) -> bytes:
    columns = {"SOURCE_ID": ("K", table.column("source_id").to_numpy())}
    for name in table.column_names[1:]:
        values = table.column(name).cast(pa.float64()).to_numpy(zero_copy_only=False)
        columns[name.upper()] = ("D", values)
    return fits_bytes(columns)


def as_votable(table: pa.Table, data: str) -> bytes:
    """By astropy, which writes scalars well; variable-length text stands among them."""
    import io

    from astropy.io.votable import from_table
    from astropy.table import MaskedColumn, Table

    made = Table()
    for name in table.column_names:
        column = table.column(name)
        mask = column.is_null().to_numpy(zero_copy_only=False)
        filler = 0 if name == "source_id" else np.nan
        values = column.fill_null(filler).to_numpy()
        made[name] = values if name == "source_id" else MaskedColumn(values, mask=mask)
    made["ph_qual"] = ["AAA" if row % 3 else "" for row in range(table.num_rows)]
    made["designation"] = ["Gaia DR3 " + str(10**row) for row in range(table.num_rows)]
    document = from_table(made)
    out = io.BytesIO()
    document.to_xml(out, tabledata_format=data)
    return out.getvalue()


WRITERS = {
    "a.parquet": parquet_bytes,
    "a.csv": as_csv,
    "a.csv.gz": lambda table: zipped(as_csv(table)),
    "a.fits": as_fits,
    "a.fits.gz": lambda table: zipped(as_fits(table)),
    "a.vot": lambda table: as_votable(table.slice(0, 15), "binary2"),
    "b.vot": lambda table: as_votable(table.slice(0, 15), "binary"),
    "c.vot.gz": lambda table: zipped(as_votable(table.slice(0, 15), "tabledata")),
}


@pytest.mark.parametrize("name", WRITERS)
def test_every_format_gives_each_star_its_own_numbers(name, tmp_path):
    table = kepler()
    auxiliary = open_auxiliary([put(tmp_path / name, WRITERS[name](table))], tmp_path / "staged")
    order = np.random.default_rng(1).permutation(15)
    found = auxiliary.match(table.column("source_id").take(order))
    assert found.schema.equals(CONTRACT.arrow_schema())
    assert found.column("source_id").equals(table.column("source_id").take(order))
    for ours, theirs in (
        ("ra", "ra"), ("parallax", "parallax"), ("phot_g_mean_mag", "phot_g_mean_mag"),
        ("pseudocolour", "pseudocolour"), ("ecl_lat", "ecl_lat"),
        ("j_m", "j_m"), ("ks_m", "k_m"), ("ks_msigcom", "k_msigcom"), ("ebv", "ebv"),
    ):  # fmt: skip
        wanted = table.column(theirs).take(order).cast(CONTRACT[ours].arrow_type)
        assert found.column(ours).to_pylist() == wanted.to_pylist(), ours
    assert found.column("l").null_count == 15
    if name.endswith(("vot", "vot.gz")):
        qualities = ["AAA" if row % 3 else None for row in range(15)]
        assert found.column("ph_qual").to_pylist() == [qualities[row] for row in order]


def test_the_auxiliary_table_of_the_30_bright_stars():
    spectra = pq.read_table(CORRELATED)
    plain = {row["source_id"]: row for row in pq.read_table(AUXILIARY).to_pylist()}
    found = open_auxiliary([AUXILIARY], None).match(spectra.column("source_id"))
    assert found.num_rows == 30
    for row, star in zip(found.to_pylist(), spectra.column("source_id").to_pylist(), strict=True):
        assert row["source_id"] == star
        for name in ("ra", "dec", "l", "b", "parallax", "phot_g_mean_mag", "phot_variable_flag"):
            assert row[name] == plain[star][name]


def test_stars_without_a_partner_are_null(tmp_path):
    auxiliary = open_auxiliary([AUXILIARY], None)
    known = pq.read_table(AUXILIARY).column("source_id")[4].as_py()
    found = auxiliary.match(pa.array([1, known, None, known + 1, known], pa.int64()))
    assert found.column("ra").is_null().to_pylist() == [True, False, True, True, False]
    assert found.column("source_id").to_pylist() == [1, known, None, known + 1, known]
    assert auxiliary.match(pa.array([], pa.int64())).num_rows == 0


def test_nothing_is_nothing_however_it_is_written(tmp_path):
    text = (
        b"source_id,ra,j_m,ph_qual,phot_bp_n_obs,extra\n"
        b"1,1.5,9.5,AAA,12,x\n2,,nan,,,x\n3,NaN,null,null,--,x\n4,2.5,--, AAB ,7.0,x\n"
    )
    found = open_auxiliary([put(tmp_path / "a.csv", text)], tmp_path / "s").match(
        pa.array([1, 2, 3, 4])
    )
    assert found.column("ra").to_pylist() == [1.5, None, None, 2.5]
    assert found.column("j_m").to_pylist() == [9.5, None, None, None]
    assert found.column("ph_qual").to_pylist() == ["AAA", None, None, "AAB"]
    assert found.column("phot_bp_n_obs").to_pylist() == [12, None, None, 7]


@pytest.mark.parametrize("sort", [True, False], ids=["sorted", "in disorder"])
def test_many_files_and_row_groups_give_what_a_join_gives(sort, tmp_path):
    """Against pyarrow's own join; files in disorder go through staging."""
    rng = np.random.default_rng(2)
    ids = np.unique(rng.integers(1, 1 << 62, 30_000))
    order = np.arange(len(ids)) if sort else rng.permutation(len(ids))
    table = pa.table({
        "source_id": ids[order], "parallax": rng.normal(size=len(ids))[order],
        "ruwe": np.arange(len(ids), dtype="f4")[order],
    })  # fmt: skip
    files = []
    for number in range(3):
        part = table.slice(number * 10_000, 10_000)
        files.append(put(tmp_path / f"{number}.parquet", parquet_bytes(part, row_group_size=1000)))
    auxiliary = open_auxiliary(files, tmp_path / "staged")
    assert (tmp_path / "staged").exists() != sort
    auxiliary = pickle.loads(pickle.dumps(auxiliary))
    assert len(pickle.dumps(auxiliary)) < 20_000
    for wanted in (rng.choice(ids, 700), np.sort(rng.choice(ids, 700)), ids[5000:6000] + 1):
        asked = pa.table({"source_id": wanted, "place": np.arange(len(wanted))})
        joined = asked.join(table, "source_id").sort_by("place")
        found = auxiliary.match(asked.column("source_id"))
        for name in ("source_id", "parallax", "ruwe"):
            assert found.column(name).to_pylist() == joined.column(name).to_pylist()


def test_only_row_groups_that_can_hold_a_star_are_read(tmp_path, monkeypatch):
    ids = np.arange(1, 100_001) << 20
    table = pa.table({"source_id": ids, "ra": ids / 1e9})
    path = put(tmp_path / "a.parquet", parquet_bytes(table, row_group_size=1000))
    auxiliary = open_auxiliary([path], None)
    read = []
    whole = sorted_tables._read_group
    monkeypatch.setattr(
        sorted_tables, "_read_group", lambda part, n: read.append(n) or whole(part, n)
    )
    auxiliary.match(pa.array(ids[[10, 20, 5500, 99_999]]))
    assert read == [0, 5, 99]
    auxiliary.match(pa.array(ids[30:40]))
    assert read == [0, 5, 99]  # held from before
    auxiliary.match(pa.array(ids[30:40] + 1))
    auxiliary.match(pa.array([5, 1 << 60]))
    assert read == [0, 5, 99]


def test_a_changed_file_is_read_anew(tmp_path):
    table = pa.table({"source_id": [1, 2], "ra": [1.0, 2.0]})
    auxiliary = open_auxiliary([put(tmp_path / "a.parquet", parquet_bytes(table))], None)
    assert auxiliary.match(pa.array([2])).column("ra").to_pylist() == [2.0]
    other = table.set_column(1, "ra", pa.array([10.0, 20.25])).append_column("b", pa.array([1, 2]))
    put(tmp_path / "a.parquet", parquet_bytes(other))
    assert auxiliary.match(pa.array([2])).column("ra").to_pylist() == [20.25]


def test_staging_is_done_once_and_whole(tmp_path, monkeypatch):
    path = put(tmp_path / "a.csv", as_csv(kepler()))
    first = open_auxiliary([path], tmp_path / "s")
    times = {file: file.stat().st_mtime_ns for file in (tmp_path / "s").rglob("*")}
    assert open_auxiliary([path], tmp_path / "s").parts[0].path == first.parts[0].path
    assert {file: file.stat().st_mtime_ns for file in (tmp_path / "s").rglob("*")} == times
    assert not list((tmp_path / "s").glob(".*"))

    def fail(*_: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(sorted_tables, "publish", fail)
    with pytest.raises(Exception, match="No space left"):
        open_auxiliary([path], tmp_path / "t")
    assert not list((tmp_path / "t").iterdir())


def test_long_tables_are_staged_in_runs(tmp_path, monkeypatch):
    monkeypatch.setattr(sorted_tables, "_RUN_ROWS", 1000)
    monkeypatch.setattr(sorted_tables, "_GROUP_ROWS", 100)
    ids = np.random.default_rng(3).permutation(np.arange(1, 5001))
    table = pa.table({"source_id": ids, "ra": ids / 7})
    auxiliary = open_auxiliary([put(tmp_path / "a.csv", as_csv(table))], tmp_path / "s")
    assert len(auxiliary.parts) == 5
    found = auxiliary.match(pa.array(np.arange(1, 5001)))
    assert np.allclose(found.column("ra").to_numpy(), np.arange(1, 5001) / 7, rtol=1e-15)


def test_without_staging_a_text_table_is_checked_and_nothing_written(tmp_path):
    path = put(tmp_path / "a.csv", as_csv(kepler()))
    auxiliary = open_auxiliary([path, AUXILIARY], None)
    assert auxiliary.files == (path, AUXILIARY)
    assert auxiliary.unready == (path,)
    with pytest.raises(JobError, match="must be sorted"):
        auxiliary.match(pa.array([1]))
    assert [file.name for file in tmp_path.iterdir()] == ["a.csv"]


@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
def test_a_star_that_stands_twice_is_refused_by_name(suffix, tmp_path):
    table = pa.table({"source_id": [7, 1 << 60, 9, 1 << 60], "ra": [1.0, 2.0, 3.0, 4.0]})
    write = parquet_bytes if suffix == ".parquet" else as_csv
    path = put(tmp_path / f"a{suffix}", write(table))
    with pytest.raises(InputError, match=f"source_id {1 << 60} more than once") as caught:
        open_auxiliary([path], tmp_path / "s").match(pa.array([1 << 60]))
    assert str(path) in str(caught.value)


def test_a_star_with_different_rows_in_two_files_is_refused(tmp_path):
    table = pa.table({"source_id": [7, 8, 9], "ra": [1.0, 2.0, 3.0]})
    other = pa.table({"source_id": [8, 9], "ra": [2.5, 3.0]})
    one = put(tmp_path / "a.parquet", parquet_bytes(table))
    two = put(tmp_path / "b.parquet", parquet_bytes(other))
    auxiliary = open_auxiliary([one, two], None)
    # The two rows of star 9 agree: they are one.
    assert auxiliary.match(pa.array([7, 9])).column("ra").to_pylist() == [1.0, 3.0]
    with pytest.raises(InputError, match="different rows") as caught:
        auxiliary.match(pa.array([7, 8]))
    assert str(one) in str(caught.value)
    assert str(two) in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"source_id,ra\n1,2\n2,x\n", "a number\n  found: 'x'\n  where: .*row 1, column ra"),
        (b"source_id,ra\n1,2\n1e18,3\n", "found: '1e18'"),
        (b"source_id,ra\n1,2\n3,4,5\n", "wanted 2 fields, found 3"),
        (b"source_id,phot_bp_n_obs\n1,2.5\n", "column phot_bp_n_obs"),
        (b"id,ra\n1,2\n", "not an auxiliary table"),
        (b"source_id,colour\n1,2\n", "not an auxiliary table"),
        (b"", "the file is empty"),
    ],
)
def test_an_auxiliary_table_that_cannot_be_read(text, message, tmp_path):
    with pytest.raises(InputError, match=message):
        open_auxiliary([put(tmp_path / "a.csv", text)], tmp_path / "s")


def test_an_identifier_that_was_a_float_is_refused(tmp_path):
    table = kepler().set_column(
        0, "source_id", kepler().column("source_id").cast(pa.float64(), safe=False)
    )
    for name in ("a.parquet", "a.fits"):
        content = fits_bytes({"source_id": ("D", np.ones(2)), "ra": ("D", np.ones(2))})
        path = put(tmp_path / name, parquet_bytes(table) if name == "a.parquet" else content)
        with pytest.raises(InputError, match="last digits are lost"):
            open_auxiliary([path], None)


def test_counts_that_pandas_made_floats_of(tmp_path):
    table = pa.table({"source_id": [1, 2], "astrometric_params_solved": [31.0, None]})
    found = open_auxiliary([put(tmp_path / "a.parquet", parquet_bytes(table))], None)
    assert found.match(pa.array([1, 2])).column("astrometric_params_solved").to_pylist() == [
        31,
        None,
    ]


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data(), name=st.sampled_from(["a.parquet", "a.csv", "a.fits", "a.vot"]))
def test_damaged_auxiliary_tables_give_rows_or_an_error(data, name, tmp_path):
    content = bytearray(CONTENT.setdefault(name, WRITERS[name](kepler())))
    place = data.draw(st.integers(0, len(content) - 1))
    if data.draw(st.booleans()):
        content[place] ^= 1 << data.draw(st.integers(0, 7))
    else:
        del content[place:]
    path = put(tmp_path / name, bytes(content))
    stars = kepler().column("source_id")
    try:
        found = open_auxiliary([path], tmp_path / "s").match(stars)
        assert found.num_rows == len(stars)
        assert found.column("source_id").equals(stars)
    except InputError:
        pass


CONTENT: dict[str, bytes] = {}
