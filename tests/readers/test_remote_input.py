"""Input at an address is read where it lies: the same rows, few bytes, faults that pass."""

from __future__ import annotations

import gzip
import hashlib
import pickle
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.range_server import RangeServer, Trouble, ranges_served
from support.small_files import content
from support.xp_files import COLUMNS, csv_bytes, needed_bytes, real

from catalogproc.errors import CatalogprocError, InputError, Refusal, TransientError
from catalogproc.io import remote
from catalogproc.io.range_reader import END, RangeReader
from catalogproc.io.remote_file import RemoteFile
from catalogproc.io.staging import located, named
from catalogproc.readers.chunks import Chunk, cut, expand, fingerprint
from catalogproc.readers.content_hash import ContentHash
from catalogproc.readers.gaia_source import open_auxiliary
from catalogproc.readers.pieces import spectra
from catalogproc.readers.xp import read_spectra


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> Iterator[RangeServer]:
    monkeypatch.setattr(remote, "PAUSE", 0.01)
    with ranges_served() as server:
        yield server


def remote_file(address: str) -> RemoteFile:
    (file,) = expand([address])
    assert isinstance(file, RemoteFile)
    return file


def rows(file: Path | RemoteFile) -> pa.Table:
    return pa.Table.from_batches(list(read_spectra(file)))


def large_file(folder: Path, groups: int = 8) -> Path:
    """Spectra with a column besides that is four times as large as what is read."""
    table = real()
    count = len(table)
    noise = np.random.default_rng(1).integers(0, 256, (count, 8000), dtype=np.uint8)
    extra = pa.FixedSizeBinaryArray.from_buffers(
        pa.binary(8000), count, [None, pa.py_buffer(noise.tobytes())]
    )
    table = table.add_column(3, "picture", extra)
    many = pa.concat_tables([table] * 4)
    ids = pa.array(np.arange(len(many)), pa.int64())
    path = folder / "large.parquet"
    pq.write_table(
        many.set_column(0, "source_id", ids), path, row_group_size=-(-len(many) // groups)
    )
    return path


@pytest.mark.parametrize("kind", ["csv", "ecsv", "csv.gz", "fits", "fits.gz", "xml", "parquet"])
def test_the_rows_are_those_of_the_local_file(
    kind: str, served: RangeServer, tmp_path: Path
) -> None:
    path = tmp_path / f"stars.{kind}"
    if kind == "parquet":
        pq.write_table(real(300), path, row_group_size=70)
    else:
        plain = content(real(300), kind.removesuffix(".gz"))
        path.write_bytes(gzip.compress(plain) if kind.endswith(".gz") else plain)
    file = remote_file(served.put(path))
    assert rows(file).equals(rows(path))
    assert str(file) == named(file) == f"{served.url}/stars.{kind}"
    assert located(named(file)) == file


def test_of_parquet_the_needed_columns_are_fetched_and_little_else(
    served: RangeServer, tmp_path: Path
) -> None:
    path = large_file(tmp_path)
    file = remote_file(served.put(path))
    pieces = [piece for chunk in cut([file], 800) for piece in chunk.pieces]
    assert len(pieces) > 3
    found = pa.Table.from_batches([batch for piece in pieces for batch in spectra(piece)])
    assert found.equals(rows(path))
    needed = needed_bytes(path, COLUMNS)
    assert needed < 0.4 * path.stat().st_size
    assert needed <= served.sent["/large.parquet"] <= 1.05 * needed


def test_of_a_small_object_the_columns_and_the_footer_are_asked_for_once(
    served: RangeServer, tmp_path: Path
) -> None:
    path = tmp_path / "small.parquet"
    noise = np.random.default_rng(1).integers(0, 256, (100, 800), dtype=np.uint8)
    picture = pa.FixedSizeBinaryArray.from_buffers(
        pa.binary(800), 100, [None, pa.py_buffer(noise.tobytes())]
    )
    pq.write_table(real(100).append_column("picture", picture), path)
    (chunk,) = cut([remote_file(served.put(path))], 10**6)
    hash_of(chunk)
    needed = needed_bytes(path, COLUMNS) + pq.read_metadata(path).serialized_size + 8
    assert needed <= served.sent["/small.parquet"] < 1.02 * needed
    assert served.count("GET") == 2


def test_a_footer_that_is_longer_than_the_end_that_is_read_at_once(
    served: RangeServer, tmp_path: Path
) -> None:
    path, table = tmp_path / "wide.parquet", real(20)
    for number in range(300):
        table = table.append_column(f"other_{number}", pa.array(np.arange(20)))
    pq.write_table(table, path)
    assert pq.read_metadata(path).serialized_size > 10_000
    assert rows(remote_file(served.put(path))).equals(rows(path))
    path.write_bytes(path.read_bytes()[:-8] + b"\xff\xff\xff\x7fPAR1")
    with pytest.raises(InputError, match="damaged"):
        rows(remote_file(served.put(path, "/damaged.parquet")))


def test_memory_is_bounded_by_two_windows(served: RangeServer, tmp_path: Path) -> None:
    path = large_file(tmp_path, groups=30)
    needed = needed_bytes(path, COLUMNS)
    batches = read_spectra(remote_file(served.put(path)), batch_rows=100)
    next(batches)
    # The first window and the one after it, of 4 MiB each; the end of the file.
    assert served.sent["/large.parquet"] < min(needed, 3 * (4 << 20))
    batches.close()  # type: ignore[attr-defined]


def test_a_stream_is_read_once_in_large_blocks(served: RangeServer, tmp_path: Path) -> None:
    path = tmp_path / "stars.csv"
    path.write_bytes(csv_bytes(real().to_pylist(), COLUMNS))
    file = remote_file(served.put(path))
    with file.stream() as stream:
        assert stream.read() == path.read_bytes()
    assert served.sent["/stars.csv"] == path.stat().st_size
    assert served.count("GET") < 10


def hash_of(chunk: Chunk) -> str:
    found = ContentHash()
    for piece in chunk.pieces:
        for _ in spectra(found.hearing(piece)):
            pass
        found.finish(piece)
    return found.hexdigest()


@pytest.mark.parametrize("kind", ["csv", "csv.gz", "fits", "xml"])
def test_the_hash_of_a_stream_is_that_of_the_file(
    kind: str, served: RangeServer, tmp_path: Path
) -> None:
    path = tmp_path / f"stars.{kind}"
    plain = content(real(400), kind.removesuffix(".gz"))
    path.write_bytes(gzip.compress(plain) if kind.endswith(".gz") else plain)
    (there,), (here,) = cut([remote_file(served.put(path))], 10**6), cut([path], 10**6)
    expected = hashlib.sha256(path.read_bytes()).hexdigest()
    assert hash_of(there) == hash_of(here) == expected


def test_the_hash_of_parquet_is_that_of_the_columns_read(
    served: RangeServer, tmp_path: Path
) -> None:
    path = tmp_path / "plain.parquet"
    pq.write_table(real(300), path, row_group_size=100)
    (chunk,) = cut([remote_file(served.put(path))], 10**6)
    data, footer = path.read_bytes(), pq.ParquetFile(path).metadata
    # Every column is read: all between the magic word and the footer.
    end = len(data) - footer.serialized_size - 8
    first = footer.row_group(0).column(0)
    begin = first.dictionary_page_offset or first.data_page_offset
    last = footer.row_group(2).column(footer.num_columns - 1)
    stop = min(last.dictionary_page_offset or 1 << 60, last.data_page_offset)
    stop += last.total_compressed_size
    assert hash_of(chunk) == hashlib.sha256(data[begin:stop] + data[end:]).hexdigest()


def test_faults_that_pass_change_nothing(served: RangeServer, tmp_path: Path) -> None:
    path = tmp_path / "stars.parquet"
    pq.write_table(real(300), path, row_group_size=70)
    file = remote_file(served.put(path))
    served.trouble["/stars.parquet"] = [
        Trouble(status=503), Trouble(end_after=100), Trouble(), Trouble(status=429),
        Trouble(end_after=0),
    ]  # fmt: skip
    assert rows(file).equals(rows(path))
    served.trouble["/stars.parquet"] = [Trouble(status=500)] * 20
    with pytest.raises(TransientError, match=r"(?s)cannot be read.*500.*run.*again"):
        rows(RemoteFile(file.address, file.path, file.size, file.version, 1))  # nothing is kept


def test_other_faults_are_told(served: RangeServer, tmp_path: Path) -> None:
    with pytest.raises(CatalogprocError, match=r"(?s)no file at the address.*none"):
        expand([f"{served.url}/none.parquet"])
    with pytest.raises(Refusal, match="web server lists no files"):
        expand([f"{served.url}/*.parquet"])
    path = tmp_path / "stars.csv"
    path.write_bytes(csv_bytes(real(300).to_pylist(), COLUMNS))
    address = served.put(path)
    file = remote_file(address)
    before = fingerprint(file)
    assert before == fingerprint(file, now=False)
    assert len(before) == 64
    served.files["/stars.csv"] += b"\n"
    assert fingerprint(file) != before == fingerprint(file, now=False)
    again = pickle.loads(pickle.dumps(remote_file(address)))
    del served.files["/stars.csv"]
    with pytest.raises(InputError, match=r"(?s)cannot be read.*404"):
        again.read(0, 10)
    served.files["/stars.csv"] = path.read_bytes()
    served.ranges = False
    with pytest.raises(CatalogprocError, match="does not hand out parts of files"):
        rows(remote_file(address))


def test_a_server_without_head_and_without_etag(served: RangeServer, tmp_path: Path) -> None:
    path = tmp_path / "stars.parquet"
    pq.write_table(real(300), path)
    served.heads = served.etags = False
    file = remote_file(served.put(path))
    assert rows(file).equals(rows(path))
    other = remote_file(served.put(path, "/other.parquet"))
    assert file.fingerprint != other.fingerprint  # nothing tells that they are the same


def test_a_plan_asks_little_of_each_file(served: RangeServer, tmp_path: Path) -> None:
    """Of Parquet version and footer, once; of text the version alone."""
    addresses = []
    for number in range(20):
        table = real(60).slice(3 * number, 3)
        pq.write_table(table, tmp_path / f"{number}.parquet")
        addresses.append(served.put(tmp_path / f"{number}.parquet"))
        (tmp_path / f"{number}.csv").write_bytes(
            csv_bytes(real(400).slice(100 + number, 1).to_pylist(), COLUMNS)
        )
        addresses.append(served.put(tmp_path / f"{number}.csv"))
    files = expand(addresses)
    chunks = cut(files, 10**6)
    cut(files, 10)  # footers are kept
    assert served.count("HEAD") == 80  # is it there, and how is it; a store answers by one list
    assert served.count("GET") == 20
    assert [piece.rows for chunk in chunks for piece in chunk.pieces] == [3, None] * 20


def test_auxiliary_tables_are_looked_up_where_they_lie(served: RangeServer, tmp_path: Path) -> None:
    stars = np.arange(100_000, dtype=np.int64) * 7
    table = pa.table({"source_id": stars, "ruwe": (stars % 100).astype(np.float32)})
    pq.write_table(table, tmp_path / "gaia.parquet", row_group_size=5000)
    file = remote_file(served.put(tmp_path / "gaia.parquet"))
    wanted = pa.array(stars[[20_001, 20_002]])
    found = open_auxiliary([file], None).match(wanted)
    assert found["ruwe"].to_pylist() == [float(one) for one in stars[[20_001, 20_002]] % 100]
    assert served.sent["/gaia.parquet"] < 0.3 * (tmp_path / "gaia.parquet").stat().st_size


def test_wavelengths_beside_sampled_spectra(served: RangeServer, tmp_path: Path) -> None:
    numbers = np.linspace(336.0, 1020.0, 343)
    flux = pa.array([np.full(343, 1e-17)], pa.list_(pa.float64()))
    table = pa.table({"source_id": pa.array([5], pa.int64()), "flux": flux, "flux_error": flux})
    pq.write_table(table, tmp_path / "out.parquet")
    (tmp_path / "out_sampling.csv").write_text("pos\n" + ",".join(map(str, numbers)))
    there = [served.put(tmp_path / name) for name in ("out.parquet", "out_sampling.csv")]
    told: list[str] = []
    (file,) = expand(there, told.append)
    assert any("the wavelengths of the sampled spectra" in line for line in told)
    assert rows(file).equals(rows(tmp_path / "out.parquet"))


def test_a_reader_gives_any_bytes(served: RangeServer, tmp_path: Path) -> None:
    data = np.random.default_rng(5).integers(0, 256, 3 * END + 77, dtype=np.uint8).tobytes()
    (tmp_path / "a.bin").write_bytes(data)
    file = remote_file(served.put(tmp_path / "a.bin"))
    draw = np.random.default_rng(6)
    for sequential in (True, False):
        reader = RangeReader(file, sequential=sequential)
        reader.expect([[(10, 200), (300, 5000)], [(5000, 90_000)]])
        for _ in range(200):
            place, count = int(draw.integers(0, len(data) + 10)), int(draw.integers(0, END))
            reader.seek(place)
            assert reader.read(count) == data[place : place + count]
            assert reader.tell() == min(place, len(data)) + len(data[place : place + count]) or (
                place > len(data)
            )
        reader.close()


def hats_of(folder: Path, table: pa.Table, order: int = 7) -> Path:
    """Write spectra as a HATS collection by its definition, with nested columns as LSDB's."""
    pixels = np.asarray(table["source_id"].to_numpy()) // 2**35 >> 2 * (12 - order)
    catalog = folder / "xp"
    lines = ["Norder,Npix"]
    arrays = [name for name in table.column_names if name != "source_id"]
    for pixel in np.unique(pixels):
        part = table.filter(pa.array(pixels == pixel)).combine_chunks()
        nested = pa.StructArray.from_arrays(
            [part[name].combine_chunks() for name in arrays], names=arrays
        )
        path = (
            catalog / f"dataset/Norder={order}/Dir={pixel // 10_000 * 10_000}/Npix={pixel}.parquet"
        )
        path.parent.mkdir(parents=True, exist_ok=True)
        ids = part["source_id"].combine_chunks()
        pq.write_table(pa.table({"source_id": ids, "spectrum": nested}), path, row_group_size=20)
        lines.append(f"{order},{pixel}")
    pq.write_metadata(pq.read_schema(path), catalog / "dataset" / "_metadata")
    (catalog / "partition_info.csv").write_text("\n".join(lines) + "\n")
    (catalog / "hats.properties").write_text("#HATS\nobs_collection=xp\n")
    (folder / "collection.properties").write_text("#HATS\nhats_primary_table_url=xp\n")
    return folder


def test_a_hats_catalog_is_read_by_its_partitions(served: RangeServer, tmp_path: Path) -> None:
    folder = hats_of(tmp_path / "sky", real())
    local = expand([folder])
    assert len(local) > 5
    for path in folder.rglob("*"):
        if path.is_file():
            served.put(path, f"/sky/{path.relative_to(folder)}")
    told: list[str] = []
    remote_files = expand([f"{served.url}/sky"], told.append)
    assert [file.name for file in remote_files] == [file.name for file in local]
    assert f"{served.url}/sky: {len(local)} files" in told[0]
    again = expand([f"{served.url}/sky/xp", f"{served.url}/sky"])  # each file once
    assert [str(file) for file in again] == [str(file) for file in remote_files]
    # A partition is a chunk, however large or small.
    for rows_of_a_chunk in (10, 10**6):
        for files in (local, remote_files):
            chunks = cut(files, rows_of_a_chunk)
            assert [[piece.file for piece in chunk.pieces] for chunk in chunks] == [
                [file] for file in files
            ]
    assert sum(chunk.rows or 0 for chunk in chunks) == 1500
    # A store lists the partitions itself: Arrow's local file system stands in for it.
    listed = expand([f"file://{folder}"])
    assert [str(file) for file in listed] == [f"file://{path}" for path in local]
    assert rows(remote_files[2]).equals(rows(local[2]))
