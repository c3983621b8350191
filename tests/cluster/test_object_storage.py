"""Runs from and to object storage (S3, served by moto) have the guarantees of a local disk."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from support.bucket import KEY, Bucket
from support.runs import CHUNKS, WORKERS, Kit, Uninterrupted, assert_same

from catalogproc.errors import CatalogprocError, JobError, LockedError, Refusal
from catalogproc.export.open_catalog import open_catalog
from catalogproc.io import remote, staging
from catalogproc.io.remote import Address, Entry
from catalogproc.io.remote_file import RemoteFile
from catalogproc.io.staging import named, stage, staged_folder
from catalogproc.readers.chunks import expand, fingerprint
from catalogproc.report.explain import explain
from catalogproc.rundir import sync
from catalogproc.rundir.sync import Mirror, pull, synced
from catalogproc.rundir.verify import verify

# The run takes seconds: new files are uploaded at once.
MAIN = """
from catalogproc.cli.main import main
from catalogproc.rundir import sync
sync.PACE = 0.1
main()
"""


def command(kit: Kit, output: str) -> subprocess.Popen[str]:
    words = ["run", "--input", "s3://gaia/xp/*.parquet", "--gaia-source", "s3://gaia/gaia.csv",
             "--output", output, "--job", str(kit.job), "--model", str(kit.bundle),
             "--workers", str(WORKERS), "--device", "cpu", "--json"]  # fmt: skip
    return subprocess.Popen(
        [sys.executable, "-c", MAIN, *words], text=True, start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip


def wait_for(what: Callable[[], object], process: subprocess.Popen[str]) -> None:
    for _ in range(600):
        if what() or process.poll() is not None:
            return
        time.sleep(0.2)


def receipts(content: dict[str, bytes]) -> list[dict[str, str]]:
    return [json.loads(data) for name, data in content.items() if name.startswith("receipts/")]


def test_a_run_from_bucket_to_bucket_resumes_after_the_loss_of_the_machine(
    kit: Kit, uninterrupted: Uninterrupted, bucket: Bucket, tmp_path: Path
) -> None:
    for path in kit.inputs.glob("*.parquet"):
        bucket.put(path, f"xp/{path.name}")
    bucket.put(kit.gaia_source, "gaia.csv")

    first = command(kit, "s3://gaia/out")
    wait_for(lambda: _held(bucket), first)
    # Another start, as from another machine, is refused.
    second = command(kit, "s3://gaia/out")
    _, refused = second.communicate(timeout=100)
    wait_for(lambda: any("receipts/" in name for name in bucket.names("out")), first)
    os.killpg(first.pid, signal.SIGKILL)
    first.communicate()
    assert first.returncode == -signal.SIGKILL
    assert second.returncode == 2, refused
    assert "another run is using the output's address" in refused
    assert f"process {first.pid} on" in refused

    # The bucket is consistent: no receipt without the parts that it names.
    before = bucket.content("out")
    assert 0 < len(receipts(before)) < CHUNKS
    for receipt in receipts(before):
        for kind in ("catalog", "rejected"):
            if part := receipt[f"{kind}_part"]:
                assert hashlib.sha256(before[part]).hexdigest() == receipt[f"{kind}_sha256"]

    shutil.rmtree(stage())
    again = command(kit, "s3://gaia/out")
    output, errors = again.communicate(timeout=200)
    assert again.returncode == 0, errors
    result = json.loads(output)
    assert result["chunks_done"] == CHUNKS
    assert result["chunks_run"] == CHUNKS - len(receipts(before))

    after = bucket.content("out")
    for name, data in after.items():
        (tmp_path / "copy" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "copy" / name).write_bytes(data)
    # A run over objects is another one than over local files: its inputs are known by their ETags.
    assert_same(tmp_path / "copy", uninterrupted.output, differing={"run_id"})
    assert verify(tmp_path / "copy")
    assert {"run.json", "summary.json", "provenance.json", "report.html"} <= after.keys()
    assert not [name for name in after if name.startswith(".") or name.endswith(".tmp")]
    assert not any(KEY.encode() in data for data in after.values())
    run = json.loads(after["run.json"])
    assert {item["path"] for item in run["inputs"]} == {
        f"s3://gaia/xp/{path.name}" for path in kit.inputs.glob("*.parquet")
    }
    # A star is explained from the bucket alone, on a machine without local files.
    shutil.rmtree(stage())
    catalog = open_catalog("s3://gaia/out")
    assert len(catalog) == result["rows_written"]
    star = explain(catalog.folder, catalog.to_arrow(["source_id"])[0][7].as_py(), model=kit.bundle)
    assert isinstance(star.file, RemoteFile)
    assert star.receipt.file.startswith("s3://gaia/xp/")
    assert star.file.read(0, star.file.size) == (kit.inputs / star.file.name).read_bytes()
    # Nothing of the input was copied: the folder of copies holds the run alone.
    copies = {path.relative_to(stage()).parts[:3] for path in stage().rglob("*") if path.is_file()}
    assert copies == {("s3", "gaia", "out")}


def test_files_are_uploaded_later_if_the_server_is_down_at_the_end(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "TRIES", 1)  # the client of S3 tries for ten seconds each time
    parts = {"run.json": b"{}", "catalog/a.parquet": b"rows", "receipts/1.json": b"{}"}

    def write(folder: Path) -> None:
        for name, data in parts.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(data)

    def lose_the_server() -> None:
        with synced("s3://gaia/out") as folder:
            write(folder)
            bucket.stop()

    folder = staged_folder(Address("s3://gaia/out"))
    with pytest.raises(CatalogprocError, match=r"(?s)an address cannot.*s3://gaia/out.*again"):
        lose_the_server()
    assert (folder / "catalog/a.parquet").read_bytes() == b"rows"
    bucket.start()
    Mirror(Address("s3://gaia/out")).address.write("run.json", b"{}")
    with synced("s3://gaia/out"):
        pass
    assert bucket.content("out") == parts


def test_a_run_that_was_removed_from_the_bucket_is_not_uploaded_again(bucket: Bucket) -> None:
    with synced("s3://gaia/out") as folder:
        folder.mkdir(parents=True)
        (folder / "run.json").write_bytes(b"{}")
        (folder / "provenance.json").write_bytes(b"{}")
    bucket.files.delete_dir("gaia/out")
    with synced("s3://gaia/out") as folder:
        assert not folder.exists()
    assert bucket.content("out") == {}


def test_a_bucket_that_holds_no_run_is_not_touched(bucket: Bucket, kit: Kit) -> None:
    bucket.put(kit.job, "xp/a.parquet")
    message = r"(?s)that are not of a run.*1 file, such as xp/a.parquet.*s3://gaia"
    with pytest.raises(Refusal, match=message), synced("s3://gaia"):
        pass
    assert not list(pull("s3://gaia").glob("**/*"))  # nor is it downloaded
    assert bucket.content("xp").keys() == {"a.parquet"}


def test_receipts_are_uploaded_after_the_parts(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    put = Address.put

    def noted(address: Address, file: Path, name: str) -> Entry:
        order.append(name)
        return put(address, file, name)

    monkeypatch.setattr(Address, "put", noted)
    names = ("summary.json", "receipts/1.json", "rejected/b.parquet", "catalog/b.parquet",
             "run.json", ".lock", ".auxiliary/x", "catalog/.c.tmp")  # fmt: skip
    with synced("s3://gaia/out") as folder:
        for name in names:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(name.encode())
    assert order == ["run.json", "catalog/b.parquet", "rejected/b.parquet", "receipts/1.json",
                     "summary.json"]  # fmt: skip


def test_an_incomplete_upload_is_an_error(
    bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "PAUSE", 0.01)
    file = tmp_path / "part"
    file.write_bytes(b"0123456789")
    monkeypatch.setattr(remote.shutil, "copyfileobj", lambda source, sink, size: sink.write(b"01"))
    refused = r"(?s)cannot be written: part.*2 bytes of 10 were uploaded"
    with pytest.raises(CatalogprocError, match=refused):
        Address("s3://gaia/out").put(file, "part")


@pytest.mark.parametrize("scheme", ["file", "fsspec+file"])
def test_file_systems_in_which_incomplete_files_are_visible(
    scheme: str, kit: Kit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Arrow's and fsspec's local file systems: files are written under another name and renamed."""
    monkeypatch.setenv(staging.STAGE, str(tmp_path / "stage"))
    spectra = sorted(kit.inputs.glob("*.parquet"))
    found = expand([f"{scheme}://{kit.inputs}/*.parquet"])
    assert [content_of(file) for file in found] == [path.read_bytes() for path in spectra]
    assert named(found[0]) == f"{scheme}://{spectra[0]}"
    there = tmp_path / "far" / "out"
    with synced(f"{scheme}://{there}") as folder:
        for name in ("run.json", "catalog/a.parquet", "receipts/1.json"):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(name)
    held = {path.relative_to(there).as_posix() for path in there.rglob("*") if path.is_file()}
    assert held == {"run.json", "catalog/a.parquet", "receipts/1.json"}
    shutil.rmtree(folder)
    assert (pull(f"{scheme}://{there}") / "receipts/1.json").read_text() == "receipts/1.json"


def test_addresses_are_expanded_and_read_where_they_lie(bucket: Bucket, kit: Kit) -> None:
    spectra = sorted(kit.inputs.glob("*.parquet"))
    for path in spectra:
        bucket.put(path, f"xp/deep/{path.name}")
    bucket.put(spectra[0], "xp/odd [1] name.parquet")
    bucket.put(kit.job, "xp/deep/readme.txt")
    message: list[str] = []
    for word, count in (
        ("s3://gaia/xp/deep/*.parquet", 3),
        ("s3://gaia/xp/deep", 3),
        ("s3://gaia/**/*.parquet", 4),
        (f"s3://gaia/xp/deep/{spectra[0].name}", 1),
        ("s3://gaia/xp/*.parquet", 1),
    ):
        found = expand([word], message.append)
        assert len(found) == count, word
        assert all(isinstance(path, RemoteFile) for path in found)
    assert named(found[0]) == "s3://gaia/xp/odd [1] name.parquet"
    assert content_of(found[0]) == spectra[0].read_bytes()
    assert message[0].startswith("s3://gaia/xp/deep/*.parquet: 3 files,")
    assert not stage().exists()
    # The fingerprint is of size and ETag: copies have the same one, a changed object another.
    (copy,) = expand([f"s3://gaia/xp/deep/{spectra[0].name}"])
    assert fingerprint(found[0]) == fingerprint(copy)
    bucket.put(spectra[1], "xp/odd [1] name.parquet")
    assert fingerprint(found[0]) != fingerprint(copy)
    (changed,) = expand(["s3://gaia/xp/*.parquet"])
    assert content_of(changed) == spectra[1].read_bytes()
    assert KEY.encode() not in pickle.dumps(changed)
    with pytest.raises(
        JobError, match=r"(?s)no file at the address can be read.*s3://gaia/none/\*"
    ):
        expand(["s3://gaia/none/*.parquet"])
    with pytest.raises(CatalogprocError, match=r"(?s)too little space to stage.*s3://gaia/xp"):
        staging._check_space(Address("s3://gaia/xp"), 1 << 60)


def test_a_zip_archive_at_an_address_is_fetched_and_unpacked(
    bucket: Bucket, kit: Kit, tmp_path: Path
) -> None:
    first = min(kit.inputs.glob("*.parquet"))
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.write(first, "XP_CONTINUOUS_RAW.parquet")
    bucket.put(tmp_path / "a.zip", "zip/a.zip")
    (member,) = expand(["s3://gaia/zip/a.zip"])
    assert isinstance(member, Path)
    assert member.read_bytes() == first.read_bytes()


def content_of(file: Path | RemoteFile) -> bytes:
    assert isinstance(file, RemoteFile)
    return file.read(0, file.size)


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("s3://me:secret@gaia/xp", r"(?s)contains credentials.*s3://…@gaia/xp.*environment"),
        ("s3://gaia/xp?secret_key=1", r"contains credentials"),
        ("s3://gaia/../../etc/passwd", r"leaves its folder"),
        ("gopher://gaia/xp", r"(?s)not of a supported file system.*s3://.*gopher://gaia/xp"),
    ],
)
def test_addresses_that_are_refused(word: str, message: str) -> None:
    with pytest.raises(Refusal, match=message) as caught:
        assert staged_folder(Address(word))
    assert "secret@" not in str(caught.value)


def test_of_starts_in_the_same_second_one_goes_on(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sync, "SETTLE", 1.0)
    for starts in (2, 4):
        together, ready = threading.Barrier(starts), threading.Barrier(starts)

        def start(together: threading.Barrier = together, ready: threading.Barrier = ready) -> str:
            mirror = Mirror(Address("s3://gaia/out"))
            together.wait()
            try:
                with mirror.exclusive():
                    ready.wait()
                    return "went on"
            except LockedError as error:
                ready.wait()
                return error.message

        with ThreadPoolExecutor(starts) as pool:
            ends = [one.result() for one in [pool.submit(start) for _ in range(starts)]]
        refused = "another run is using the output's address"
        assert sorted(ends) == [refused] * (starts - 1) + ["went on"]
        assert bucket.names("out") == []


def _held(bucket: Bucket) -> bool:
    locks = [name for name in bucket.names("out") if name.startswith(sync.LOCK)]
    return any(b'"held": true' in bucket.read(f"out/{name}") for name in locks)


def test_the_lock_of_a_dead_run_on_this_host_is_ignored(bucket: Bucket) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    stated = {"pid": ended.pid, "host": socket.gethostname(), "token": "0", "held": True}
    address = Address("s3://gaia/out")
    address.write(f"{sync.LOCK}.0", json.dumps(stated).encode())
    with synced("s3://gaia/out"):
        (own,) = bucket.names("out")
        assert own.startswith(f"{sync.LOCK}.")
        assert own != f"{sync.LOCK}.0"
    assert bucket.content("out") == {}
    address.write(f"{sync.LOCK}.0", json.dumps(stated | {"host": "elsewhere"}).encode())
    with (
        pytest.raises(Refusal, match=rf"process {ended.pid} on elsewhere"),
        synced("s3://gaia/out"),
    ):
        pass
