"""Conversion keeps every number and every row, or says which it could not keep."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.xp_files import (
    ARCHIVE,
    COLUMNS,
    CORRELATED,
    csv_bytes,
    parquet_bytes,
    plain_csv,
    real,
    zipped,
)

from catalogproc.contract import load_contract
from catalogproc.errors import CatalogprocError, CountError, InputError, JobError
from catalogproc.readers import convert as module
from catalogproc.readers.chunks import cut, expand
from catalogproc.readers.convert import Converted, convert
from catalogproc.readers.xp import read_spectra
from catalogproc.readers.xp_layout import SAMPLED

UNUSED = ("basis_id", *SAMPLED)


def put(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def numbers(path: Path) -> list[dict]:
    batches = list(read_spectra(path, correlations=True))
    return [row for batch in batches for row in batch.to_pylist()]


def test_every_archive_format_becomes_the_same_parquet(tmp_path):
    files = [path for path in expand([ARCHIVE]) if "missing" not in path.name]
    accounts: list[Converted] = []
    written = convert(files, tmp_path, correlations=True, progress=accounts.append)
    assert [account.file for account in accounts] == files
    assert [part for account in accounts for part in account.parts] == written
    assert all((a.rows_read, a.rows_written, a.rows_rejected) == (2, 2, 0) for a in accounts)
    contract = load_contract("xp_continuous")
    wanted = numbers(files[0])
    for path in written:
        assert numbers(path) == wanted
        schema = pq.read_schema(path)
        fields = [f for f in contract.arrow_schema() if f.name not in UNUSED]
        assert schema.equals(pa.schema(fields))  # names, types and nulls
        for field in schema:
            metadata = {} if field.metadata is None else field.metadata
            assert metadata[b"description"].decode() == contract[field.name].description
    # What was written is found again by the folder's name, and is a file of spectra.
    assert expand([tmp_path]) == sorted(written)
    assert sum(chunk.rows for chunk in cut(sorted(written)[:1], 10)) == 2


def test_correlations_are_left_out_unless_asked_for(tmp_path):
    (path,) = convert([CORRELATED], tmp_path)
    assert pq.read_schema(path).names == [
        n for n in COLUMNS_OF_CONTRACT if "correl" not in n and n not in UNUSED
    ]
    assert path.stat().st_size < 60_000
    with pytest.raises(JobError, match="something else by the name of this conversion"):
        convert([CORRELATED], tmp_path, correlations=True)


COLUMNS_OF_CONTRACT = load_contract("xp_continuous").names


def test_1500_real_spectra_keep_their_bits_through_csv_and_parquet(tmp_path):
    content = zipped(csv_bytes(real().to_pylist(), COLUMNS))
    accounts: list[Converted] = []
    path = put(tmp_path / "all.csv.gz", content)
    written = convert([path], tmp_path / "out", chunk_rows=400, progress=accounts.append)
    assert [pq.read_metadata(part).num_rows for part in written] == [400, 400, 400, 300]
    assert [part.stem[-4:] for part in written] == ["-000", "-001", "-002", "-003"]
    found = pa.concat_tables([pq.read_table(part) for part in written])
    for name in COLUMNS:
        kind = found.schema.field(name).type
        assert found.column(name).combine_chunks().equals(
            real().column(name).cast(kind).combine_chunks()
        )  # fmt: skip
    assert accounts[0].rows_written == 1500
    assert accounts[0].rejected is None


def test_rows_that_cannot_be_read_are_kept_apart_and_counted(tmp_path):
    rows = [row | {"source_id": 100 + n} for n, row in enumerate(real(6).to_pylist())]
    lines = csv_bytes(rows, COLUMNS).split(b"\n")
    lines[2] = lines[2].replace(b'"', b"", 1)
    lines[4] = lines[4].replace(b"103", b"", 1)
    lines[5] = lines[5].replace(b"(", b"(?", 1)
    accounts: list[Converted] = []
    path = put(tmp_path / "a.csv", b"\n".join(lines))
    (part,) = convert([path], tmp_path / "out", progress=accounts.append)
    (account,) = accounts
    assert (account.rows_read, account.rows_written, account.rows_rejected) == (6, 3, 3)
    assert pq.read_table(part).column("source_id").to_pylist() == [100, 102, 105]
    rejected = pq.read_table(account.rejected)
    load_contract("rejected").check(rejected)
    assert rejected.drop(["detail", "file"]).to_pylist() == [
        {"source_id": 101, "row": 1, "reason": "unreadable"},
        {"source_id": None, "row": 3, "reason": "no_source_id"},
        {"source_id": 104, "row": 4, "reason": "unreadable"},
    ]
    details = rejected.column("detail").to_pylist()
    assert "quotation mark" in details[0]
    assert details[1] == "source_id: wanted one, found none"
    assert "bp_coefficients: wanted numbers" in details[2]
    # A folder of converted files holds spectra alone.
    assert expand([tmp_path / "out"]) == [part]
    again: list[Converted] = []
    assert convert([path], tmp_path / "out", progress=again.append) == [part]
    assert again == accounts


def test_a_missing_band_stays_missing(tmp_path):
    path = ARCHIVE / "XP_CONTINUOUS_RAW_with_missing_BP.fits"
    (part,) = convert([path], tmp_path)
    plain = plain_csv(ARCHIVE / "XP_CONTINUOUS_RAW_with_missing_BP.csv")
    for row, wanted in zip(pq.read_table(part).to_pylist(), plain, strict=True):
        assert row["source_id"] == wanted["source_id"]
        assert row["bp_coefficients"] == wanted["bp_coefficients"]
        assert row["rp_coefficients"] == wanted["rp_coefficients"]
        assert row["bp_n_relevant_bases"] == wanted["bp_n_relevant_bases"]


def test_nothing_of_a_broken_file_is_written(tmp_path):
    content = zipped(csv_bytes(real().to_pylist(), COLUMNS))
    path = put(tmp_path / "a.csv.gz", content[:-9])
    with pytest.raises(InputError, match=r"a\.csv\.gz"):
        convert([path], tmp_path / "out", chunk_rows=100)
    assert not list((tmp_path / "out").glob("*"))


def test_what_was_converted_before_a_failure_stays_and_is_not_done_again(tmp_path):
    good = put(tmp_path / "good.parquet", parquet_bytes(real(5)))
    bad = put(tmp_path / "bad.parquet", b"PAR1 not")
    with pytest.raises(InputError, match=r"bad\.parquet"):
        convert([good, bad], tmp_path / "out")
    (part,) = expand([tmp_path / "out"])
    before = part.stat().st_mtime_ns
    shutil.copy(good, tmp_path / "moved.parquet")
    put(bad, parquet_bytes(real(7)))
    assert len(convert([good, bad], tmp_path / "out")) == 2
    assert part.stat().st_mtime_ns == before


def test_a_conversion_that_was_killed_between_two_files_is_finished(tmp_path):
    """Only the first part says that all are there, for it is moved last; the others go."""
    path = put(tmp_path / "a.parquet", parquet_bytes(real(30)))
    written = convert([path], tmp_path / "out", chunk_rows=10)
    for rows in (10, 15):
        written[0].unlink()
        assert convert([path], tmp_path / "out", chunk_rows=rows) == written[: 30 // rows]
        assert expand([tmp_path / "out"]) == written[: 30 // rows]
    assert sum(pq.read_metadata(part).num_rows for part in written[:2]) == 30


def test_files_without_rows(tmp_path):
    (part,) = convert([put(tmp_path / "a.csv", csv_bytes([], COLUMNS))], tmp_path / "out")
    assert pq.read_metadata(part).num_rows == 0


def test_rows_that_go_astray_are_noticed(tmp_path, monkeypatch):
    whole = module._parted
    monkeypatch.setattr(module, "_parted", lambda *a: (lambda g, b: (g.slice(1), b))(*whole(*a)))
    path = put(tmp_path / "a.parquet", parquet_bytes(real(5)))
    with pytest.raises(CountError, match="5 read, 4 written"):
        convert([path], tmp_path / "out")
    assert not list((tmp_path / "out").glob("*"))


def test_a_folder_that_cannot_be_written(tmp_path):
    path = put(tmp_path / "a.parquet", parquet_bytes(real(5)))
    put(tmp_path / "out", b"a file")
    with pytest.raises(CatalogprocError, match="a file cannot be written") as caught:
        convert([path], tmp_path / "out")
    assert str(tmp_path / "out") in str(caught.value)


def test_columns_of_converted_files_compress_and_prune(tmp_path):
    """Byte streams, page checksums, and row groups whose range of stars the footer tells."""
    order = np.argsort(real().column("source_id").to_numpy())
    path = put(tmp_path / "a.parquet", parquet_bytes(real().take(order)))
    (part,) = convert([path], tmp_path / "out")
    column = pq.read_metadata(part).row_group(0).column(3)
    assert "BYTE_STREAM_SPLIT" in column.encodings
    assert column.compression == "ZSTD"
    stated = pq.read_metadata(part).row_group(0).column(0).statistics
    assert (stated.min, stated.max) == (
        real().column("source_id").to_numpy().min(), real().column("source_id").to_numpy().max()
    )  # fmt: skip
    assert part.stat().st_size < 1500 * 1400
