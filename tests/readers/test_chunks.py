"""Inputs are found once, and cut into chunks that hold every row once."""

from __future__ import annotations

import hashlib
import os
import pickle
import shutil
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.xp_files import ARCHIVE, EXAMPLES, parquet_bytes, real

from catalogproc.errors import InputError, JobError, Refusal
from catalogproc.readers import content_hash
from catalogproc.readers import pieces as pieces_module
from catalogproc.readers.chunks import (
    Chunk,
    cut,
    expand,
    fingerprint,
)
from catalogproc.readers.content_hash import ContentHash
from catalogproc.readers.pieces import Piece, source_ids_before, spectra
from catalogproc.readers.xp import read_spectra


def cut_pieces(files: list[Path], rows: int) -> list[Piece]:
    """The pieces of the chunks, each of which has one."""
    chunks = cut(files, rows)
    assert all(len(chunk.pieces) == 1 and chunk.id == chunk.pieces[0].id for chunk in chunks)
    return [chunk.pieces[0] for chunk in chunks]


def content_sha256(pieces):
    content = ContentHash()
    for piece in pieces:
        content.finish(content.hearing(piece))
    return content.hexdigest()


def put(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


@pytest.fixture
def grouped(tmp_path) -> Path:
    """1,500 real spectra in 15 row groups."""
    return put(tmp_path / "grouped.parquet", parquet_bytes(real(), row_group_size=100))


# --- expand ----------------------------------------------------------------------------


def test_words_globs_and_folders(tmp_path, monkeypatch):
    for name in ("b.parquet", "a.csv.gz", "c.VOT", "d.txt", ".hidden.csv", "_metadata.parquet",
                 "deep/e.fits", "deep/deeper/f.fits", "_metadata", "g.parquet.gz"):  # fmt: skip
        put(tmp_path / "in" / name, name.encode())
    folder = tmp_path / "in"

    def names(*words: object) -> list[str]:
        return [path.name for path in expand([str(word) for word in words])]

    assert names(folder) == ["a.csv.gz", "b.parquet", "c.VOT"]
    assert names(folder / "*.parquet") == ["b.parquet"]
    assert names(folder / "**" / "*.fits") == ["f.fits", "e.fits"]
    assert names(folder / "d.txt", folder / "b.parquet") == ["d.txt", "b.parquet"]
    assert names(folder / "b.parquet", folder) == ["b.parquet", "a.csv.gz", "c.VOT"]
    monkeypatch.chdir(folder)
    assert names("b.parquet", "./b.parquet", folder / "deep" / ".." / "b.parquet") == ["b.parquet"]
    assert names("[ab].*") == ["a.csv.gz", "b.parquet"]
    put(folder / "odd[1].csv", b"x")
    assert names("odd[1].csv") == ["odd[1].csv"]


def test_links_to_one_file_are_one_file(tmp_path):
    path = put(tmp_path / "a.csv", b"x")
    os.link(path, tmp_path / "b.csv")
    (tmp_path / "c.csv").symlink_to(path)
    assert expand([tmp_path]) == [path]


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("none.csv", "no such file"),
        ("*.fits", "nothing matches"),
        ("deep", "the folder holds no file that can be read"),
    ],
)
def test_a_word_that_stands_for_nothing_says_what_was_looked_for(word, message, tmp_path):
    put(tmp_path / "deep" / "notes.txt", b"x")
    with pytest.raises(JobError, match=message) as caught:
        expand([str(tmp_path / word)])
    assert caught.value.exit_code == 2
    assert str(tmp_path) in str(caught.value)


def test_a_link_to_nothing_is_left_to_fail_by_itself(tmp_path):
    (tmp_path / "gone.csv").symlink_to(tmp_path / "nowhere")
    assert expand([tmp_path]) == [tmp_path / "gone.csv"]
    assert [chunk.rows for chunk in cut(expand([tmp_path]), 10)] == [None]


# --- fingerprints ----------------------------------------------------------------------


def test_fingerprint_is_over_size_and_ends(tmp_path):
    content = bytes(range(256)) * 1024  # 256 KiB
    path = put(tmp_path / "a", content)
    ends = content[:65536] + content[-65536:]
    assert fingerprint(path) == hashlib.sha256(b"262144\n" + ends).hexdigest()
    assert fingerprint(put(tmp_path / "b", content)) == fingerprint(path)
    for place in (0, 65535, len(content) - 65536, len(content) - 1):
        changed = bytearray(content)
        changed[place] ^= 1
        assert fingerprint(put(tmp_path / "c", bytes(changed))) != fingerprint(path)
    assert fingerprint(put(tmp_path / "d", content + b"x")) != fingerprint(path)
    with pytest.raises(InputError, match="cannot be read"):
        fingerprint(tmp_path / "none")


# --- cut -------------------------------------------------------------------------------


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(groups=st.lists(st.integers(1, 40), min_size=1, max_size=12), wanted=st.integers(1, 120))
def test_chunks_hold_each_row_once_and_about_as_many_as_wanted(groups, wanted, tmp_path):
    import pyarrow.parquet as pq

    path = tmp_path / "a.parquet"
    table, place = real(sum(groups)), 0
    with pq.ParquetWriter(path, table.schema) as writer:
        for rows in groups:
            writer.write_table(table.slice(place, rows))
            place += rows
    chunks = cut_pieces([path], wanted)
    assert [c.first_row for c in chunks] == [0, *np.cumsum([c.rows for c in chunks])[:-1]]
    assert sum(c.rows for c in chunks) == table.num_rows
    assert all(c.rows <= wanted or c.row_groups[1] - c.row_groups[0] == 1 for c in chunks)
    assert len({c.id for c in chunks}) == len(chunks)
    # No two neighbours would fit into one chunk.
    assert all(
        first.rows + groups[first.row_groups[1]] > wanted for first in chunks[:-1]
    )  # fmt: skip
    assert pickle.loads(pickle.dumps(chunks)) == chunks


def test_the_spectra_of_chunks_are_those_of_the_file(grouped):
    chunks = cut_pieces([grouped], 250)
    assert [chunk.row_groups for chunk in chunks[:2]] == [(0, 2), (2, 4)]
    whole = pa.Table.from_batches(list(read_spectra(grouped)))
    parts = [pa.Table.from_batches(list(spectra(chunk, batch_rows=70))) for chunk in chunks]
    assert pa.concat_tables(parts).combine_chunks().equals(whole.combine_chunks())
    for chunk in chunks:
        before = source_ids_before(chunk)
        assert before.type == pa.int64()
        assert before.to_pylist() == whole.column("source_id").to_pylist()[: chunk.first_row]


def test_other_formats_are_one_chunk_a_file():
    files = expand([ARCHIVE])
    chunks = cut_pieces(files, 1)
    assert [chunk.file for chunk in chunks] == files
    assert all(chunk.row_groups is None and chunk.first_row == 0 for chunk in chunks)
    told = {chunk.file.name: chunk.rows for chunk in chunks}
    assert told["XP_CONTINUOUS_RAW.fits"] == 2
    assert told["XP_CONTINUOUS_RAW.csv"] is None
    for chunk in chunks:
        assert sum(len(batch) for batch in spectra(chunk)) in (2, 3)
        assert len(source_ids_before(chunk)) == 0
        whole = hashlib.sha256(chunk.file.read_bytes()).hexdigest()
        assert content_sha256([chunk]) == whole


def test_a_chunk_is_named_by_content_not_by_place(tmp_path, grouped, monkeypatch):
    moved = tmp_path / "elsewhere" / "renamed.pq"
    moved.parent.mkdir()
    shutil.copy(grouped, moved)
    names = [chunk.id for chunk in cut([grouped], 250)]
    assert [chunk.id for chunk in cut([moved], 250)] == names
    monkeypatch.chdir(tmp_path)
    assert [chunk.id for chunk in cut(["./grouped.parquet"], 250)] == names
    assert not set(names) & {chunk.id for chunk in cut([grouped], 300)} - {names[-1]}


def test_a_file_that_cannot_be_read_is_a_chunk_that_fails_in_its_turn(tmp_path, grouped):
    whole = grouped.read_bytes()
    files = [
        put(tmp_path / "cut.parquet", whole[: len(whole) // 2]),
        put(tmp_path / "empty.parquet", b""),
        put(tmp_path / "empty.csv", b""),
        tmp_path / "vanished.csv",
        grouped,
    ]
    chunks = cut_pieces(files, 1500)
    assert [chunk.file for chunk in chunks] == files
    assert [chunk.rows for chunk in chunks] == [None] * 4 + [1500]
    assert len({chunk.id for chunk in chunks}) == 5
    for chunk in chunks[:4]:
        with pytest.raises(InputError, match=chunk.file.name):
            list(spectra(chunk))
    with pytest.raises(InputError):
        content_sha256([chunks[3]])


def test_a_file_without_rows_is_a_chunk_without_rows(tmp_path):
    (chunk,) = cut_pieces([put(tmp_path / "a.parquet", parquet_bytes(real(0)))], 10)
    assert chunk.rows == 0
    assert not list(spectra(chunk))
    assert len(content_sha256([chunk])) == 64


def test_a_chunk_has_a_limit_of_bytes_too(grouped, monkeypatch):
    """Rows with correlations are many times as large: a chunk of them must not take hours."""
    groups = pq.ParquetFile(grouped).metadata
    sizes = [
        sum(groups.row_group(g).column(i).total_compressed_size for i in range(groups.num_columns))
        for g in range(groups.num_row_groups)
    ]
    assert len(cut([grouped], 1500)) == 1
    monkeypatch.setattr(pieces_module, "PIECE_BYTES", 4 * max(sizes))
    found = cut_pieces([grouped], 1500)
    assert [chunk.rows for chunk in found] == [400, 400, 400, 300]
    monkeypatch.setattr(pieces_module, "PIECE_BYTES", 1)  # at least one row group
    assert [chunk.rows for chunk in cut_pieces([grouped], 1500)] == [100] * 15


def test_the_same_content_twice_is_refused(tmp_path):
    one = EXAMPLES / "xp_continuous_000.parquet"
    two = Path(shutil.copy(one, tmp_path / "copy.parquet"))
    with pytest.raises(Refusal, match="the same content") as caught:
        cut([one, two], 100)
    assert f"{one} and {two}" in str(caught.value)


def test_the_hash_of_a_chunk_covers_its_rows_and_the_footer(tmp_path, grouped):
    content = grouped.read_bytes()
    chunks = cut_pieces([grouped], 250)
    before = [content_sha256([chunk]) for chunk in chunks]
    assert len(set(before)) == len(chunks)
    changed = []
    for share in (0.01, 0.5, 0.95):
        damaged = bytearray(content)
        damaged[int(len(content) * share)] ^= 1
        put(grouped, bytes(damaged))
        after = [content_sha256([chunk]) for chunk in chunks]
        changed.append([n for n, mark in enumerate(after) if mark != before[n]])
    assert changed == [[0], [3], [7]]
    # Where the footer is another one, all chunks are.
    put(grouped, parquet_bytes(real().replace_schema_metadata({"a": "b"}), row_group_size=100))
    assert all(content_sha256([c]) != b for c, b in zip(chunks, before, strict=True))


def test_a_chunk_is_what_the_plan_says(grouped):
    first = cut([grouped], 250)[0]
    assert first == Chunk((Piece(first.id, grouped, fingerprint(grouped), 0, 200, (0, 2)),))
    assert len(first.id) == 16


# --- small files -----------------------------------------------------------------------


def small_files(folder: Path, rows: list[int]) -> list[Path]:
    """Files of spectra with these numbers of rows, each with other stars."""
    ends = np.cumsum([0, *rows])
    return [
        put(folder / f"{number:03}.parquet", parquet_bytes(real().slice(int(begin), count)))
        for number, (begin, count) in enumerate(zip(ends, rows, strict=False))
    ]


def test_small_files_that_follow_each_other_share_a_chunk(tmp_path):
    files = small_files(tmp_path, [1, 2, 10, 11, 1, 1, 3])
    groups = [[piece.file for piece in chunk.pieces] for chunk in cut(files, 100)]
    assert groups == [files[:3], files[3:4], files[4:]]  # 11 rows are more than a tenth
    assert [chunk.rows for chunk in cut(files, 100)] == [13, 11, 5]
    assert [len(chunk.pieces) for chunk in cut(files, 9)] == [1] * 7
    # At most half of the rows of a chunk.
    groups = [[piece.rows for piece in chunk.pieces] for chunk in cut(files, 110)]
    assert groups == [[1, 2, 10, 11, 1, 1, 3]]
    many = small_files(tmp_path / "many", [10] * 11)
    assert [chunk.rows for chunk in cut(many, 100)] == [50, 50, 10]


def test_a_group_is_named_by_its_files_and_a_single_file_as_ever(tmp_path):
    files = small_files(tmp_path, [1, 2, 30])
    group, single = cut(files, 100)
    name = hashlib.sha256(f"{fingerprint(files[2])}\n0\n30".encode()).hexdigest()[:16]
    assert single.id == single.pieces[0].id == name
    assert group.id not in {piece.id for piece in group.pieces}
    assert cut([files[1], files[0]], 100)[0].id != group.id
    assert pickle.loads(pickle.dumps(group)).id == group.id
    assert [chunk.pieces for chunk in group.divided()] == [group.pieces[:1], group.pieces[1:]]
    assert single.divided() == (single,)


def test_a_file_that_cannot_be_read_is_alone_and_separates_no_others(tmp_path):
    files = small_files(tmp_path, [1, 1, 1, 1])
    files[1].write_bytes(b"garbage")
    files.append(put(tmp_path / "empty.csv", b""))
    groups = [[piece.file for piece in chunk.pieces] for chunk in cut(files, 100)]
    assert groups == [[files[0], files[2], files[3]], [files[1]], [files[4]]]
    # A file of which only reading the rows shows that it is damaged.
    groups = [[piece.file for piece in c.pieces] for c in cut(files, 100, {files[2]})]
    assert groups == [[files[0], files[3]], [files[1]], [files[2]], [files[4]]]


def test_a_group_has_a_bounded_number_of_files(tmp_path, monkeypatch):
    monkeypatch.setattr("catalogproc.readers.chunks.GROUP_FILES", 3)
    files = small_files(tmp_path, [1] * 7)
    assert [len(chunk.pieces) for chunk in cut(files, 1000)] == [3, 3, 1]


def test_local_files_are_hashed_beside_the_work_in_their_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The caller goes on at once; the bytes are those of the files, one after the other."""
    files = [tmp_path / "a.csv", tmp_path / "b.csv"]
    for number, file in enumerate(files):
        file.write_bytes(bytes([number]) * 100_000)
    held, original = threading.Event(), content_hash.file_blocks

    def waits(*given: Any) -> Any:
        assert held.wait(30)
        return original(*given)

    monkeypatch.setattr(content_hash, "file_blocks", waits)
    found = ContentHash()
    for file in files:
        found.finish(Piece("", file, "", 0, 1))
    held.set()
    assert found.hexdigest() == hashlib.sha256(b"".join(f.read_bytes() for f in files)).hexdigest()
    missing = ContentHash()
    missing.finish(Piece("", tmp_path / "none.csv", "", 0, 1))
    with pytest.raises(InputError, match="cannot be read"):
        missing.wait()
