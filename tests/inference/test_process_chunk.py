"""A chunk from file to receipt: every row is accounted for, and a failure leaves no files."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support import real_stars
from support.bundles import LABELS, tiny_bundle
from support.paths import CORRELATED, EXAMPLES
from support.small_files import write_stars
from support.xp_files import real

from catalogproc.contract import load_contract
from catalogproc.errors import CatalogprocError, CountError, InputError
from catalogproc.flags import load_flags
from catalogproc.inference.engine import LABEL_COLUMNS, Engine
from catalogproc.inference.process_chunk import ChunkWorker, process_chunk
from catalogproc.inference.stopwatch import STAGES
from catalogproc.job import Job
from catalogproc.readers import chunks
from catalogproc.readers.chunks import Chunk
from catalogproc.readers.gaia_source import open_auxiliary
from catalogproc.rundir.receipts import Receipt, is_valid, read_receipts

JOB = Job("test")
REAL = EXAMPLES / "xp_continuous_000.parquet"


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    return Engine(tiny_bundle(tmp_path_factory.mktemp("bundle")), JOB)


def write(path: Path, table: pa.Table, row_group: int = 10_000) -> Path:
    path.parent.mkdir(exist_ok=True)
    pq.write_table(table, path, row_group_size=row_group)
    return path


def only(path: Path, rows: int = 10_000) -> Chunk:
    (chunk,) = chunks.cut([path], rows)
    return chunk


def run(engine: Engine, path: Path, output: Path, rows: int = 10_000) -> list[Receipt]:
    return [process_chunk(engine, chunk, None, output) for chunk in chunks.cut([path], rows)]


def files(output: Path) -> list[str]:
    """Everything in an output folder, hidden files too."""
    return sorted(str(path.relative_to(output)) for path in output.rglob("*") if not path.is_dir())


def catalog(output: Path, receipts: list[Receipt]) -> pa.Table:
    return pa.concat_tables(pq.read_table(output / r.catalog_part) for r in receipts)


def rejected(output: Path, receipts: list[Receipt]) -> list[dict[str, object]]:
    parts = [output / r.rejected_part for r in receipts if r.rejected_part]
    return [row for part in parts for row in pq.read_table(part).to_pylist()]


def edit(table: pa.Table, row: int, **values: object) -> pa.Table:
    for name, value in values.items():
        content = table.column(name).to_pylist()
        content[row] = value
        at = table.column_names.index(name)
        table = table.set_column(at, name, pa.array(content, table.schema.field(at).type))
    return table


def same_numbers(a: pa.Table, b: pa.Table) -> None:
    """Predictions to 2e-4 of sigma, as network.predictor states."""
    assert a.column("source_id").equals(b.column("source_id"))
    assert a.column("quality_flags").equals(b.column("quality_flags"))
    for name in (LABEL_COLUMNS[label] for label in LABELS):
        x, y = a.column(name).to_numpy(), b.column(name).to_numpy()
        sigma = a.column(f"e_{name}").to_numpy()
        assert (np.abs(x - y) <= 2e-4 * sigma + 4 * np.spacing(np.abs(x))).all()


def test_a_real_file_becomes_a_part_and_a_receipt(engine, tmp_path):
    done: list[int] = []
    worker = ChunkWorker("w1", progress=done.append)
    receipt = process_chunk(engine, only(REAL), None, tmp_path, worker)
    assert files(tmp_path) == [
        f"catalog/xp_continuous_000-{receipt.chunk_id[:8]}.parquet",
        f"receipts/{receipt.chunk_id}.json",
    ]
    assert (receipt.rows_read, receipt.rows_written, receipt.rows_rejected) == (500, 500, 0)
    assert sum(done) == 500
    assert (receipt.worker, receipt.device, receipt.rejected_part) == ("w1", "cpu", "")
    assert set(receipt.stage_seconds) == set(STAGES)
    assert 0 < sum(receipt.stage_seconds.values()) <= receipt.seconds
    part = tmp_path / receipt.catalog_part
    assert hashlib.sha256(part.read_bytes()).hexdigest() == receipt.catalog_sha256
    assert read_receipts(tmp_path) == {receipt.chunk_id: receipt}
    fingerprint = chunks.fingerprint(REAL)
    assert is_valid(receipt, tmp_path, JOB.hash, engine.bundle.hash, [fingerprint])


def test_a_part_states_what_was_predicted_without_the_parallax(engine, tmp_path):
    for inputs, stated in ((("bprp", "g_fakemag"), b"g_fakemag"), (("bprp",), None)):
        reading, output = Engine(engine.bundle, replace(JOB, inputs=inputs)), tmp_path / inputs[-1]
        (receipt,) = run(reading, REAL, output)
        metadata = pq.read_schema(output / receipt.catalog_part).metadata
        assert metadata.get(b"predicted_without_parallax") == stated


def test_the_part_follows_the_contract_and_has_its_provenance(engine, tmp_path):
    (receipt,) = run(engine, REAL, tmp_path)
    table = pq.read_table(tmp_path / receipt.catalog_part)
    load_contract("catalog").check(table)
    stated = {key.decode(): value.decode() for key, value in table.schema.metadata.items()}
    assert stated["model_hash"] == engine.bundle.hash
    assert stated["job_hash"] == JOB.hash
    assert stated["input"] == REAL.name
    assert json.loads(stated["model_training"]) == dict(engine.bundle.training)
    assert table.schema.field("teff").metadata[b"unit"] == b"K"
    spectra = pq.read_table(REAL)
    same_numbers(engine.process(spectra), table)


def test_the_same_chunk_gives_the_same_bytes(engine, tmp_path):
    first, second = (run(engine, REAL, tmp_path / name)[0] for name in ("a", "b"))
    assert first.catalog_sha256 == second.catalog_sha256
    assert first.catalog_part == second.catalog_part


def test_the_size_of_chunks_does_not_matter(engine, tmp_path):
    path = write(tmp_path / "in" / "stars.parquet", real_stars.faint(), row_group=100)
    whole = run(engine, path, tmp_path / "whole", 10_000)
    cut = run(engine, path, tmp_path / "cut", 300)
    assert (len(whole), len(cut)) == (1, 5)
    assert len({receipt.catalog_part for receipt in cut}) == 5
    assert [receipt.first_row for receipt in cut] == [0, 300, 600, 900, 1200]
    same_numbers(catalog(tmp_path / "whole", whole), catalog(tmp_path / "cut", cut))


def test_rejected_rows_are_kept_with_their_reason(engine, tmp_path):
    table = real_stars.faint().slice(0, 50)
    table = edit(table, 7, bp_coefficients=table.column("bp_coefficients")[7].as_py()[:-1])
    table = edit(table, 20, source_id=table.column("source_id")[3].as_py())
    broken = table.column("rp_coefficient_errors")[41].as_py()
    table = edit(table, 41, rp_coefficient_errors=[-1.0, *broken[1:]])
    path = write(tmp_path / "in" / "stars.parquet", table)
    receipts = run(engine, path, tmp_path / "out")
    (receipt,) = receipts
    assert (receipt.rows_read, receipt.rows_written, receipt.rows_rejected) == (50, 47, 3)
    assert receipt.rejected_by_reason == {"wrong_length": 1, "duplicate": 1, "bad_error": 1}
    rows = rejected(tmp_path / "out", receipts)
    assert [(row["row"], row["reason"]) for row in rows] == [
        (7, "wrong_length"), (20, "duplicate"), (41, "bad_error"),
    ]  # fmt: skip
    assert {row["file"] for row in rows} == {str(path)}
    assert [row["source_id"] for row in rows] == [
        table.column("source_id")[row].as_py() for row in (7, 20, 41)
    ]
    part = tmp_path / "out" / receipt.rejected_part
    assert hashlib.sha256(part.read_bytes()).hexdigest() == receipt.rejected_sha256
    kept = catalog(tmp_path / "out", receipts).column("source_id").to_pylist()
    assert kept == [s for i, s in enumerate(table.column("source_id").to_pylist())
                    if i not in (7, 20, 41)]  # fmt: skip


def test_a_duplicate_is_found_across_chunks_whichever_runs_first(engine, tmp_path):
    table = real_stars.faint().slice(0, 60)
    table = edit(table, 55, source_id=table.column("source_id")[2].as_py())
    path = write(tmp_path / "in" / "stars.parquet", table, row_group=20)
    parts = chunks.cut([path], 20)
    assert len(parts) == 3
    receipts = [process_chunk(engine, part, None, tmp_path / "out") for part in reversed(parts)]
    assert [receipt.rejected_by_reason for receipt in receipts] == [{"duplicate": 1}, {}, {}]
    (row,) = rejected(tmp_path / "out", receipts)
    assert row["row"] == 55


def test_a_chunk_of_rejected_rows_has_an_empty_part(engine, tmp_path):
    table = real_stars.faint().slice(0, 5)
    for row in range(5):
        table = edit(table, row, bp_coefficients=[float("nan")] * 54 + [1.0])
    path = write(tmp_path / "in" / "stars.parquet", table)
    (receipt,) = run(engine, path, tmp_path / "out")
    assert (receipt.rows_written, receipt.rejected_by_reason) == (0, {"bad_value": 5})
    load_contract("catalog").check(catalog(tmp_path / "out", [receipt]))
    fingerprint = chunks.fingerprint(path)
    assert is_valid(receipt, tmp_path / "out", JOB.hash, engine.bundle.hash, [fingerprint])


def test_a_chunk_without_rows_has_an_empty_part(engine, tmp_path):
    path = write(tmp_path / "in" / "stars.parquet", real_stars.faint().slice(0, 0))
    (receipt,) = run(engine, path, tmp_path / "out")
    assert (receipt.rows_read, receipt.rows_written, receipt.rows_rejected) == (0, 0, 0)
    table = catalog(tmp_path / "out", [receipt])
    load_contract("catalog").check(table)
    assert table.num_rows == 0


def test_a_star_of_one_band_needs_its_g_magnitude(engine, tmp_path):
    columns = [f"{band}_{name}" for band in ("bp", "rp")
               for name in ("coefficients", "coefficient_errors", "n_relevant_bases")]  # fmt: skip
    spectra = real_stars.nulled(real_stars.bright().select(["source_id", *columns]), "bp", [4, 9])
    path = write(tmp_path / "in" / "stars.parquet", spectra)
    receipts = run(engine, path, tmp_path / "alone")
    assert receipts[0].rejected_by_reason == {"no_tokens": 2}
    assert [row["row"] for row in rejected(tmp_path / "alone", receipts)] == [4, 9]
    assert receipts[0].rows_written == 28

    source = CORRELATED / "gaia_source_30.parquet"
    auxiliary = open_auxiliary([source], tmp_path / "staging")
    receipt = process_chunk(engine, only(path), auxiliary, tmp_path / "beside")
    assert (receipt.rows_written, receipt.rows_rejected) == (30, 0)
    table = catalog(tmp_path / "beside", [receipt])
    one_band = load_flags()["XP_ONE_BAND"].value
    raised = table.column("quality_flags").to_numpy() & one_band > 0
    assert np.flatnonzero(raised).tolist() == [4, 9]


def test_gaia_source_is_matched_by_source_id(engine, tmp_path):
    """Spectra in another order than gaia_source, and two stars that it does not have."""
    spectra = pa.concat_tables(
        [
            real_stars.bright().select(real_stars.faint().column_names),
            real_stars.faint().slice(0, 2),
        ],
        promote_options="permissive",
    ).take(pa.array(np.random.default_rng(5).permutation(32)))
    path = write(tmp_path / "in" / "stars.parquet", spectra)
    source = CORRELATED / "gaia_source_30.parquet"
    auxiliary = open_auxiliary([source], tmp_path / "staging")
    receipt = process_chunk(engine, only(path), auxiliary, tmp_path / "out")
    table = catalog(tmp_path / "out", [receipt])
    given = pq.read_table(source)
    magnitude = dict(zip(given.column("source_id").to_pylist(),
                         given.column("phot_g_mean_mag").to_pylist(), strict=True))  # fmt: skip
    synthetic = table.column("quality_flags").to_numpy() & load_flags()["XP_PHOTOMETRY"].value > 0
    for star, g, made in zip(
        table.column("source_id").to_pylist(),
        table.column("phot_g_mean_mag").to_pylist(),
        synthetic,
        strict=True,
    ):
        assert made == (star not in magnitude)
        assert star not in magnitude or g == magnitude[star]


def test_another_file_than_planned_is_refused(engine, tmp_path):
    path = write(tmp_path / "in" / "stars.parquet", real_stars.faint().slice(0, 10))
    chunk = only(path)
    write(path, real_stars.faint().slice(5, 10))
    with pytest.raises(InputError, match="not the one that the run was planned with"):
        process_chunk(engine, chunk, None, tmp_path / "out")
    assert files(tmp_path / "out") == []


def test_a_file_that_changes_while_it_is_read_is_refused(engine, tmp_path):
    path = write(tmp_path / "in" / "stars.parquet", real_stars.faint().slice(0, 10))
    chunk = only(path)

    def swap(_: int) -> None:
        other = write(tmp_path / "other" / "stars.parquet", real_stars.faint().slice(5, 10))
        os.replace(other, path)

    with pytest.raises(InputError, match="changed while it was read"):
        process_chunk(engine, chunk, None, tmp_path / "out", ChunkWorker(progress=swap))
    assert files(tmp_path / "out") == []


def test_rows_lost_by_the_reader_fail_the_chunk(engine, tmp_path):
    (piece,) = only(REAL).pieces
    with pytest.raises(CountError, match=r"501 rows of the input\n.*500 read"):
        process_chunk(engine, Chunk((replace(piece, rows=501),)), None, tmp_path)
    assert files(tmp_path) == []


class Lossy(Engine):
    """An engine that loses a row."""

    def to_catalog(self, *given):  # type: ignore[no-untyped-def]
        return super().to_catalog(*given).slice(1)


def test_a_row_lost_by_the_engine_fails_the_chunk(engine, tmp_path):
    with pytest.raises(CountError, match="499 written"):
        process_chunk(Lossy(engine.bundle, JOB), only(REAL), None, tmp_path)
    assert files(tmp_path) == []


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def test_a_truncated_file_fails_and_leaves_nothing(engine, tmp_path):
    path = tmp_path / "stars.parquet"
    shutil.copy(REAL, path)
    path.chmod(0o644)
    chunk = only(path)
    truncate(path)
    torn = Chunk((replace(chunk.pieces[0], fingerprint=chunks.fingerprint(path)),))
    with pytest.raises(InputError):
        process_chunk(engine, torn, None, tmp_path / "out")
    assert files(tmp_path / "out") == []


def test_an_interruption_leaves_nothing(engine, tmp_path):
    def interrupt(_: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        process_chunk(engine, only(REAL), None, tmp_path, ChunkWorker(progress=interrupt))
    assert files(tmp_path) == []


@pytest.mark.parametrize("blocked", ["receipts", "catalog", "rejected"])
def test_an_output_that_cannot_be_written_leaves_nothing(engine, tmp_path, blocked):
    (tmp_path / blocked).write_text("in the way")
    with pytest.raises(CatalogprocError):
        process_chunk(engine, only(REAL), None, tmp_path)
    assert files(tmp_path) == [blocked]


def test_memory_does_not_grow_with_the_chunk(engine, tmp_path, monkeypatch):
    """At most one batch is processed at a time, for chunks of any size."""
    many = pa.concat_tables([real_stars.faint()] * 12)
    unique = pa.array(np.arange(1, many.num_rows + 1))
    path = write(tmp_path / "in" / "stars.parquet", many.set_column(0, "source_id", unique))
    sizes: list[int] = []
    features: Callable[..., object] = Engine.features

    def watched(self, spectra, auxiliary=None):  # type: ignore[no-untyped-def]
        sizes.append(spectra.num_rows)
        return features(self, spectra, auxiliary)

    monkeypatch.setattr(Engine, "features", watched)
    (receipt,) = run(engine, path, tmp_path / "out", 100_000)
    assert receipt.rows_written == sum(sizes) == 18_000
    assert max(sizes) <= 8192


# --- several small files ---------------------------------------------------------------


def test_small_files_in_one_chunk_are_as_one_file(engine, tmp_path):
    stars = real(24)
    names = [str(path) for path in write_stars(tmp_path / "in", stars)]
    (chunk,) = chunks.cut(names, 1000)
    receipt = process_chunk(engine, chunk, None, tmp_path / "out")
    assert [(one.file, one.rows_read, one.rows_written) for one in receipt.files] == [
        (name, 1, 1) for name in names
    ]
    assert (receipt.file, receipt.first_row, receipt.rows_read) == (names[0], 0, 24)
    contents = b"".join(Path(name).read_bytes() for name in names)
    assert receipt.input_sha256 == hashlib.sha256(contents).hexdigest()
    marks = [one.fingerprint for one in receipt.files]
    assert marks == [chunks.fingerprint(name) for name in names]
    assert is_valid(receipt, tmp_path / "out", JOB.hash, engine.bundle.hash, marks)
    assert not is_valid(receipt, tmp_path / "out", JOB.hash, engine.bundle.hash, marks[:1])
    table = catalog(tmp_path / "out", [receipt])
    stated = json.loads(table.schema.metadata[b"input_files"])
    assert [one["fingerprint"] for one in stated] == marks
    same_numbers(engine.process(stars.combine_chunks().to_batches()[0]), table)


def test_rejected_rows_of_a_group_keep_their_file_and_row(engine, tmp_path):
    table = real_stars.faint().slice(0, 12)
    table = edit(table, 1, source_id=table.column("source_id")[0].as_py())  # in one file
    table = edit(table, 7, source_id=table.column("source_id")[2].as_py())  # in two files
    table = edit(table, 5, bp_coefficients=None, bp_coefficient_errors=None)  # without tokens
    table = edit(table, 9, rp_coefficients=[1.0])
    paths = [write(tmp_path / "in" / f"{n}.parquet", table.slice(4 * n, 4)) for n in range(3)]
    (chunk,) = chunks.cut(paths, 1000)
    receipt = process_chunk(engine, chunk, None, tmp_path / "out")
    rows = rejected(tmp_path / "out", [receipt])
    assert [(row["file"], row["row"], row["reason"]) for row in rows] == [
        (str(paths[0]), 1, "duplicate"),
        (str(paths[1]), 1, "no_tokens"),
        (str(paths[2]), 1, "wrong_length"),
    ]
    assert [(one.rows_read, one.rows_written) for one in receipt.files] == [(4, 3)] * 3
    kept = catalog(tmp_path / "out", [receipt]).column("source_id").to_pylist()
    assert kept == [
        star for row, star in enumerate(table.column("source_id").to_pylist())
        if row not in (1, 5, 9)
    ]  # fmt: skip


def test_files_of_a_group_may_have_other_columns_beside_the_spectra(engine, tmp_path):
    table = real_stars.faint().slice(0, 6)
    g_mags = pa.array([17.0, 17.5])
    paths = [
        write(tmp_path / "in" / "0.parquet", table.slice(0, 2)),
        write(tmp_path / "in" / "1.parquet",
              table.slice(2, 2).append_column("phot_g_mean_mag", g_mags)),
        write(tmp_path / "in" / "2.parquet", table.slice(4, 2)),
    ]  # fmt: skip
    (chunk,) = chunks.cut(paths, 1000)
    receipt = process_chunk(engine, chunk, None, tmp_path / "out")
    assert [(one.rows_read, one.rows_written) for one in receipt.files] == [(2, 2)] * 3
    found = catalog(tmp_path / "out", [receipt])
    assert found["source_id"].to_pylist() == table["source_id"].to_pylist()
    stated = np.isclose(found["phot_g_mean_mag"].to_numpy()[2:4], g_mags.to_numpy())
    assert stated.all()


def test_a_group_with_a_file_that_has_vanished_leaves_nothing(engine, tmp_path):
    paths = write_stars(tmp_path / "in", real(5))
    (chunk,) = chunks.cut(paths, 1000)
    paths[3].unlink()
    with pytest.raises(InputError, match=paths[3].name):
        process_chunk(engine, chunk, None, tmp_path / "out")
    assert files(tmp_path / "out") == []
