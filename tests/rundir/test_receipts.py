"""Which run a folder holds, and which chunks are proved to be done."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Callable
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import pytest
from support.bundles import tiny_bundle
from support.catalogs import catalog_table, identity, write_chunk

from catalogproc.contract import load_contract
from catalogproc.errors import InputError, Refusal, ResumeError
from catalogproc.io.parquet_writer import TableWriter
from catalogproc.job import Job
from catalogproc.rundir import manifest as module
from catalogproc.rundir.manifest import (
    InputFile,
    RunIdentity,
    compare,
    open_run,
    read_identity,
    shown_path,
)
from catalogproc.rundir.receipts import (
    FileRows,
    Receipt,
    is_valid,
    read_receipt,
    read_receipts,
    receipt_files,
    write_receipt,
)


@pytest.fixture
def run() -> RunIdentity:
    return identity(files=3, rows=53)


@pytest.fixture
def receipt(tmp_path: Path, run: RunIdentity) -> Receipt:
    table = catalog_table(50, run_id=run.run_id)
    return write_chunk(tmp_path, run, 0, run.inputs[0], 0, table, rejected=3)


def valid(receipt: Receipt, folder: Path, run: RunIdentity) -> bool:
    return is_valid(receipt, folder, run.job_hash, run.model_hash, [run.inputs[0].fingerprint])


# ---------------------------------------------------------------- receipts


def test_a_receipt_has_the_fields_of_its_contract() -> None:
    columns = load_contract("receipt").columns
    assert [item.name for item in fields(Receipt)] == [column.name for column in columns]
    kinds = {"string": "str", "int64": "int", "float64": "float"}
    for item, column in zip(fields(Receipt), columns, strict=True):
        if column.description.endswith("JSON"):
            assert str(item.type).startswith(("Mapping[str, ", "tuple[")), item.name
        else:
            assert item.type == kinds[column.type], item.name


def test_a_receipt_comes_back_as_it_was_written(tmp_path: Path, receipt: Receipt) -> None:
    (path,) = receipt_files(tmp_path)
    assert read_receipt(path) == receipt
    assert read_receipts(tmp_path) == {receipt.chunk_id: receipt}
    assert pickle.loads(pickle.dumps(receipt)) == receipt  # Dask carries it
    text = path.read_text()
    assert list(json.loads(text)) == sorted(json.loads(text))
    assert '\n  "rows_read": 53,\n' in text
    assert '"no_coefficients": 3' in text


def grouped(receipt: Receipt) -> Receipt:
    """The same receipt as that of a chunk of two files."""
    first = FileRows(receipt.file, receipt.input_fingerprint, 0, 40, 40)
    return replace(receipt, files=(first, FileRows("xp/other.csv", "abc1", 0, 13, 10)))


def test_a_receipt_of_several_files_comes_back(tmp_path: Path, receipt: Receipt) -> None:
    group = grouped(receipt)
    write_receipt(tmp_path, group)
    (path,) = receipt_files(tmp_path)
    assert read_receipt(path) == group
    assert [one.rows_read for one in group.each_file()] == [40, 13]
    assert receipt.each_file() == (FileRows(receipt.file, receipt.input_fingerprint, 0, 53, 50),)


def test_a_receipt_from_before_chunks_had_several_files_is_read(
    tmp_path: Path, run: RunIdentity, receipt: Receipt
) -> None:
    (path,) = receipt_files(tmp_path)
    content = json.loads(path.read_text())
    assert content.pop("files") == []
    path.write_text(json.dumps(content))
    assert read_receipt(path) == receipt
    assert valid(read_receipt(path), tmp_path, run)


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        ({"files": {}}, "files is {}, not an array"),
        ({"files": [1]}, "an entry that is no file"),
        ({"files": [{"file": "a"}]}, "an entry that is no file"),
        ({"rows_read": 54}, "rows_read is not that of its files"),
        ({"file": "xp/z.parquet"}, "file is not that of its files"),
    ],
)
def test_a_receipt_that_contradicts_its_list_of_files_proves_nothing(
    tmp_path: Path, receipt: Receipt, harm: dict[str, Any], message: str
) -> None:
    path = write_receipt(tmp_path, grouped(receipt))
    path.write_text(json.dumps(json.loads(path.read_text()) | harm))
    with pytest.raises(InputError, match=message):
        read_receipt(path)


def test_a_chunk_is_done_when_its_receipt_and_parts_say_so(
    tmp_path: Path, run: RunIdentity, receipt: Receipt
) -> None:
    assert valid(receipt, tmp_path, run)


@pytest.mark.parametrize("name", ["job_hash", "bundle_hash", "input_fingerprint"])
def test_a_chunk_of_another_job_model_or_input_is_not_done(
    tmp_path: Path, run: RunIdentity, receipt: Receipt, name: str
) -> None:
    assert not valid(replace(receipt, **{name: "0" * 64}), tmp_path, run)


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


def swapped(path: Path) -> None:
    other = catalog_table(7)
    with TableWriter(path, load_contract("catalog")) as writer:
        writer.write(other)


@pytest.mark.parametrize("subfolder", ["catalog", "rejected"])
@pytest.mark.parametrize(
    "harm", [Path.unlink, truncated, swapped, lambda path: path.write_bytes(b"")],
    ids=["gone", "truncated", "with other rows", "empty"],
)  # fmt: skip
def test_a_chunk_whose_part_is_harmed_is_done_anew(
    tmp_path: Path, run: RunIdentity, receipt: Receipt, subfolder: str, harm: Callable[[Path], Any]
) -> None:
    (part,) = (tmp_path / subfolder).iterdir()
    harm(part)
    assert not valid(receipt, tmp_path, run)


def test_a_chunk_that_wrote_nothing_needs_no_part(
    tmp_path: Path, run: RunIdentity, receipt: Receipt
) -> None:
    nothing = replace(
        receipt, rows_read=3, rows_written=0, rows_rejected=3, catalog_part="", catalog_sha256=""
    )
    assert valid(nothing, tmp_path, run)
    assert not valid(replace(receipt, catalog_part=""), tmp_path, run)
    assert not valid(replace(receipt, rows_read=99), tmp_path, run)


def altered(name: str, value: Any) -> Callable[[Receipt], bytes]:
    def alter(receipt: Receipt) -> bytes:
        content = asdict(receipt)
        if value is None:
            del content[name]
        else:
            content[name] = value
        return json.dumps(content).encode()

    return alter


@pytest.mark.parametrize(
    ("garbage", "words"),
    [
        (lambda _: b"", "Expecting value"),
        (lambda _: b"{\x80\x81", "codec can't decode"),
        (lambda _: b"[1, 2]", "not a JSON object"),
        (lambda _: b"[" * 100_000, "recursion|Expecting|depth"),
        (lambda receipt: json.dumps(asdict(receipt)).encode()[:200], "Unterminated|Expecting"),
        (altered("rows_read", None), "rows_read is missing"),
        (altered("rows_read", "53"), "rows_read is '53', wanted int"),
        (altered("rows_read", True), "rows_read is True, wanted int"),
        (altered("rejected_by_reason", []), r"rejected_by_reason is \[\], not an object"),
        (altered("rejected_by_reason", {"a": "x"}), "rejected_by_reason is 'x'"),
        (altered("seconds", "long"), "seconds is 'long', wanted float"),
        (altered("seconds", float("nan")), "seconds is nan"),
        (altered("seconds", float("inf")), "seconds is inf"),
        (altered("rows_written", -1), "rows_written is -1"),
        (altered("started", "yesterday"), "Invalid isoformat"),
        (altered("started", "2026-01-01T00:00:00"), "started has no time zone"),
        (altered("catalog_part", "../../etc/passwd"), "names no part"),
        (altered("catalog_part", "/etc/passwd"), "names no part"),
        (altered("more", 1), r"unknown fields \['more'\]"),
        (altered("chunk_id", "another"), "receipt of chunk another"),
    ],
)
def test_a_receipt_that_is_garbage_counts_as_absent(
    tmp_path: Path, receipt: Receipt, garbage: Callable[[Receipt], bytes], words: str
) -> None:
    (path,) = receipt_files(tmp_path)
    path.write_bytes(garbage(receipt))
    assert read_receipts(tmp_path) == {}
    with pytest.raises(InputError, match=words) as caught:
        read_receipt(path)
    assert caught.value.details["where"] == path


def test_no_receipts_folder_means_no_receipts(tmp_path: Path) -> None:
    assert read_receipts(tmp_path / "nothing") == {}


def test_a_receipt_replaces_an_older_one(tmp_path: Path, receipt: Receipt) -> None:
    write_receipt(tmp_path, replace(receipt, worker="7"))
    assert read_receipts(tmp_path)[receipt.chunk_id].worker == "7"
    assert len(list((tmp_path / "receipts").iterdir())) == 1


# ---------------------------------------------------------------- the run's identity


def test_the_first_start_makes_the_folder_and_a_later_one_resumes(
    tmp_path: Path, run: RunIdentity
) -> None:
    folder = tmp_path / "deep" / "output"
    assert open_run(folder, run) is False
    assert {path.name for path in folder.iterdir()} == {
        "run.json", "catalog", "rejected", "receipts",
    }  # fmt: skip
    written = (folder / "run.json").read_bytes()
    assert read_identity(folder) == run
    assert open_run(folder, run) is True
    assert (folder / "run.json").read_bytes() == written


def test_a_run_is_the_same_wherever_its_files_lie(run: RunIdentity) -> None:
    moved = replace(
        run,
        inputs=tuple(replace(file, path=f"/elsewhere/{file.path}") for file in run.inputs[::-1]),
    )
    assert compare(run, moved) == []
    assert moved.hash == run.hash
    assert run.run_id == run.hash[:8]


def test_a_run_with_another_auxiliary_table_is_a_different_run(
    tmp_path: Path, run: RunIdentity
) -> None:
    """The same number of tables, even of the same names: their content decides."""
    first = replace(run, auxiliary=(InputFile("gaia.fits", "5" * 64),))
    other = replace(run, auxiliary=(InputFile("gaia.fits", "6" * 64),))
    moved = replace(run, auxiliary=(InputFile("elsewhere/gaia.fits", "5" * 64),))
    assert len({run.hash, first.hash, other.hash}) == 3
    assert moved.hash == first.hash
    assert compare(first, other) == ["gaia-source: changed gaia.fits"]
    assert compare(first, moved) == []
    open_run(tmp_path, first)
    assert open_run(tmp_path, moved) is True
    with pytest.raises(ResumeError, match=r"gaia-source: changed gaia\.fits"):
        open_run(tmp_path, other)


def test_every_difference_is_named(tmp_path: Path, run: RunIdentity) -> None:
    a, b, c = run.inputs
    other = replace(
        run,
        job={"name": "another", "labels": ["teff"], "chunk_rows": 100},
        job_hash="1" * 64,
        model={"name": "large"},
        model_hash="2" * 64,
        inputs=(a, replace(b, fingerprint="3" * 64), InputFile("xp/new.parquet", "4" * 64)),
        auxiliary=(InputFile("gaia.fits", "5" * 64),),
        contracts=dict(run.contracts) | {"catalog": 99},
    )
    open_run(tmp_path, run)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(ResumeError) as caught:
        open_run(tmp_path, other)
    said = str(caught.value)
    assert caught.value.exit_code == 2
    assert "job.labels: was ['teff', 'mass'], is ['teff']" in said
    assert "job.chunk_rows" not in said
    assert f"model: was tiny ({run.model_id}), is large (22222222)" in said
    assert f"input: added xp/new.parquet; removed {c.path}; changed {b.path}" in said
    assert "gaia-source: added gaia.fits" in said
    assert "contract.catalog: was 1, is 99" in said
    assert "give another --output" in said
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before


def test_a_hash_alone_that_differs_is_told(run: RunIdentity) -> None:
    assert compare(run, replace(run, job_hash="1" * 64)) == ["job.hash: differs"]


def test_a_list_of_many_files_is_cut_short(run: RunIdentity) -> None:
    many = tuple(InputFile(f"{i}.parquet", f"{i:064d}") for i in range(1000))
    (line,) = compare(run, replace(run, inputs=run.inputs + many))
    assert "0.parquet" in line
    assert "and 995 more" in line
    assert len(line) < 200


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "{}", '{"hash": "x"}', "[" * 100_000, "null"],
    ids=["empty", "torn", "a list", "no field", "one field", "deep", "null"],
)  # fmt: skip
def test_a_run_file_that_is_garbage_is_refused(
    tmp_path: Path, run: RunIdentity, content: str
) -> None:
    open_run(tmp_path, run)
    (tmp_path / "run.json").write_text(content)
    with pytest.raises(ResumeError, match=r"run\.json cannot be read"):
        open_run(tmp_path, run)


def test_a_run_file_that_was_edited_is_refused(tmp_path: Path, run: RunIdentity) -> None:
    open_run(tmp_path, run)
    path = tmp_path / "run.json"
    path.write_text(path.read_text().replace(run.job_hash, "1" * 64))
    with pytest.raises(ResumeError, match="does not have its hash"):
        read_identity(tmp_path)


def test_parts_without_a_run_file_are_left_alone(tmp_path: Path, run: RunIdentity) -> None:
    (tmp_path / "catalog").mkdir()
    (tmp_path / "catalog" / "mine.parquet").write_text("mine")
    with pytest.raises(ResumeError, match=r"but no run\.json"):
        open_run(tmp_path, run)
    assert (tmp_path / "catalog" / "mine.parquet").read_text() == "mine"


def test_an_output_that_is_a_file_is_refused(tmp_path: Path, run: RunIdentity) -> None:
    (tmp_path / "file").write_text("")
    for output in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(Refusal) as caught:
            open_run(output, run)
        assert caught.value.exit_code == 2


def test_a_folder_without_a_run_says_so(tmp_path: Path) -> None:
    with pytest.raises(ResumeError, match="holds no run"):
        read_identity(tmp_path)


def test_two_first_starts_at_once_agree_or_one_is_refused(
    tmp_path: Path, run: RunIdentity, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other start comes in between this one's look and its writing."""
    other = replace(run, job_hash="1" * 64)
    write = module.write_atomic

    def late(path: Path, data: bytes, *, overwrite: bool) -> str:
        monkeypatch.setattr(module, "write_atomic", write)
        open_run(tmp_path, other)
        return write(path, data, overwrite=overwrite)

    monkeypatch.setattr(module, "write_atomic", late)
    with pytest.raises(ResumeError, match="a different run"):
        open_run(tmp_path, run)
    assert read_identity(tmp_path) == other


def test_claiming_removes_what_killed_processes_left(tmp_path: Path, run: RunIdentity) -> None:
    open_run(tmp_path, run)
    debris = tmp_path / "catalog" / ".x.parquet.1@another-host.0123abcd.tmp"
    debris.write_text("")
    os.utime(debris, (0, 0))
    open_run(tmp_path, run)
    assert not debris.exists()


def test_an_identity_is_made_of_a_job_and_a_bundle(tmp_path: Path) -> None:
    bundle = tiny_bundle(tmp_path / "bundle")
    job = Job("a-job", labels=("teff", "mass"))
    run = RunIdentity.of(job, bundle, [InputFile("a.parquet", "1" * 64, 10)])
    assert (run.job_hash, run.model_hash) == (job.hash, bundle.hash)
    open_run(tmp_path / "out", run)
    assert compare(read_identity(tmp_path / "out"), run) == []
    (difference,) = compare(run, RunIdentity.of(replace(job, labels=("teff",)), bundle, run.inputs))
    assert difference == "job.labels: was ['teff', 'mass'], is ['teff']"
    renamed = RunIdentity.of(replace(job, name="other"), bundle, run.inputs)
    assert compare(run, renamed) == []


def test_paths_are_shown_without_the_users_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, work = tmp_path / "home" / "someone", tmp_path / "work"
    work.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(work)
    assert shown_path(work / "xp" / "a.parquet") == "xp/a.parquet"
    assert shown_path(home / "xp" / "a.parquet") == "~/xp/a.parquet"
    assert shown_path(Path("../xp/a.parquet")) == "../xp/a.parquet"
    assert shown_path(Path("/data/a.parquet")) == "/data/a.parquet"
