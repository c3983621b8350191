"""Temporary folders, folders that appear complete, hashes, and names of processes."""

from __future__ import annotations

import hashlib
import json
import os
import time
from pathlib import Path

import pytest

from catalogproc.errors import CatalogprocError, DiskFullError
from catalogproc.io import temporary_files
from catalogproc.io.atomic import AtomicFile, publish, scratch_folder
from catalogproc.io.hashes import BLOCK, file_blocks, file_sha256, sha256
from catalogproc.io.processes import describe_process, has_ended, this_process
from catalogproc.io.temporary_files import remove_stale


def test_a_scratch_folder_is_gone_after_the_block_whatever_happens(tmp_path: Path) -> None:
    with scratch_folder(tmp_path / "new", "x") as scratch:
        (scratch / "deep").mkdir()
        (scratch / "deep" / "file").write_text("half")
        assert temporary_files.is_temporary(scratch)
        assert scratch.parent == tmp_path / "new"
    assert list((tmp_path / "new").iterdir()) == []
    with pytest.raises(KeyError), scratch_folder(tmp_path / "new", "x"):
        raise KeyError
    assert list((tmp_path / "new").iterdir()) == []


def test_errors_of_the_system_in_a_scratch_folder_are_errors_for_the_user(tmp_path: Path) -> None:
    with pytest.raises(DiskFullError, match="no space left"), scratch_folder(tmp_path, "x"):
        raise OSError(28, "No space left on device")
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(CatalogprocError, match="a file cannot be written"),
        scratch_folder(tmp_path / "file", "x"),
    ):
        pass


def finished(folder: Path, content: str) -> Path:
    """A finished folder with a file in a subfolder."""
    (folder / "below").mkdir(parents=True)
    (folder / "below" / "file").write_text(content)
    return folder


def test_a_folder_is_flushed_before_it_gets_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    temporary, target = finished(tmp_path / "temporary", "new"), tmp_path / "deep" / "target"
    steps: list[str] = []
    fsync, rename = os.fsync, os.replace

    def flushed(descriptor: int) -> None:
        steps.append(Path(os.readlink(f"/proc/self/fd/{descriptor}")).name)
        fsync(descriptor)

    def renamed(before: Path, after: Path) -> None:
        steps.append("rename")
        rename(before, after)

    monkeypatch.setattr(os, "fsync", flushed)
    monkeypatch.setattr(os, "replace", renamed)
    assert publish(temporary, target) == target
    before = steps[: steps.index("rename")]
    assert {"file", "below", "temporary"} <= set(before)
    assert steps[-1] == "deep"  # the list of names, after the rename
    assert (target / "below" / "file").read_text() == "new"


def test_a_folder_is_replaced_only_where_that_is_allowed(tmp_path: Path) -> None:
    target = finished(tmp_path / "target", "old")
    with pytest.raises(OSError, match="not empty"):
        publish(finished(tmp_path / "one", "new"), target)
    assert (target / "below" / "file").read_text() == "old"
    publish(tmp_path / "one", target, overwrite=True)
    assert (target / "below" / "file").read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["target"]


def test_the_old_folder_is_put_back_where_the_new_one_cannot_be_renamed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target, new = finished(tmp_path / "target", "old"), finished(tmp_path / "new", "new")
    rename = os.replace

    def refused(before: Path, after: Path) -> None:
        if before == new:
            raise PermissionError(13, "Permission denied")
        rename(before, after)

    monkeypatch.setattr(os, "replace", refused)
    with pytest.raises(PermissionError):
        publish(new, target, overwrite=True)
    assert (target / "below" / "file").read_text() == "old"


def test_a_stale_folder_is_one_in_which_nothing_changes_for_a_day(tmp_path: Path) -> None:
    stale = tmp_path / ".map.1@elsewhere.0123abcd.tmp"
    finished(stale, "half")
    for path in (stale / "below", stale):
        os.utime(path, (0, 0))
    assert remove_stale([tmp_path]) == []  # the file in it is new
    assert remove_stale([tmp_path], time.time() + 2 * temporary_files.STALE_AGE) == [stale]
    assert not stale.exists()


def test_a_file_can_be_given_the_time_of_its_original(tmp_path: Path) -> None:
    with AtomicFile(tmp_path / "x", modified=1_700_000_000_123_456_789) as file:
        file.write(b"1")
    assert (tmp_path / "x").stat().st_mtime_ns == 1_700_000_000_123_456_789


def test_hashes_are_those_of_the_library(tmp_path: Path) -> None:
    data = os.urandom(2 * BLOCK + 7)
    (tmp_path / "x").write_bytes(data)
    wanted = hashlib.sha256(data).hexdigest()
    assert sha256(data) == sha256([data[:9], data[9:]]) == file_sha256(tmp_path / "x") == wanted
    spans = [(5, 10), (BLOCK - 1, 2 * BLOCK + 1)]
    assert (
        b"".join(file_blocks(tmp_path / "x", spans)) == data[5:10] + data[BLOCK - 1 : 2 * BLOCK + 1]
    )
    assert max(map(len, file_blocks(tmp_path / "x"))) <= BLOCK
    (tmp_path / "empty").touch()
    assert file_sha256(tmp_path / "empty") == hashlib.sha256(b"").hexdigest()


def test_a_process_is_named_and_known_to_run() -> None:
    me = json.dumps(this_process())
    assert describe_process(me).startswith(f"process {os.getpid()} on ")
    assert not has_ended(me)
    ended = json.dumps(this_process() | {"pid": 2**22 + 1})
    assert has_ended(ended)
    assert not has_ended(json.dumps({"pid": 2**22 + 1, "host": "elsewhere"}))
    for garbage in ("", "[]", "{}", '{"pid": "x", "host": 3}'):
        assert not has_ended(garbage)
