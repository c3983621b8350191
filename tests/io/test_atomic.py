"""A file exists complete or not at all, also after a crash, a full disk or a race."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from support.catalogs import catalog_table
from support.paths import ROOT

from catalogproc.contract import load_contract
from catalogproc.errors import CatalogprocError
from catalogproc.io import temporary_files
from catalogproc.io.atomic import AtomicFile, write_atomic
from catalogproc.io.parquet_writer import PartWriter, TableWriter
from catalogproc.io.temporary_files import is_temporary, remove_stale

CATALOG = load_contract("catalog")


def write(folder: Path, rows: int) -> PartWriter:
    with PartWriter(folder, "part", CATALOG) as writer:
        writer.write(catalog_table(rows))
    return writer


def run_python(code: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run code in another process, in which the tests' helpers can be imported."""
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), str(folder)],
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=60,
    )


PART_IN_A_PROCESS = """
    import os, sys
    from pathlib import Path
    from support.catalogs import catalog_table
    from catalogproc.io.parquet_writer import PartWriter
    from catalogproc.contract import load_contract
    folder = Path(sys.argv[1])
    writer = PartWriter(folder, "part", load_contract("catalog"))
"""


@pytest.mark.parametrize("moment", ["flush to the disk", "rename"])
def test_a_process_killed_before_the_rename_leaves_no_part(tmp_path: Path, moment: str) -> None:
    code = f"""
    {PART_IN_A_PROCESS}
    def die(*arguments):
        os._exit(9)
    with writer:
        writer.write(catalog_table(1000))
        os.{"fsync" if moment == "flush to the disk" else "replace"} = die
    """
    assert run_python(code, tmp_path).returncode == 9
    (temporary,) = (tmp_path / "catalog").iterdir()
    assert is_temporary(temporary)
    assert remove_stale([tmp_path / "catalog"]) == [temporary]
    part = write(tmp_path, 10).part
    assert part is not None
    assert [path.name for path in (tmp_path / "catalog").iterdir()] == ["part.parquet"]


def test_a_process_killed_after_the_rename_leaves_the_whole_part(tmp_path: Path) -> None:
    code = f"""
    {PART_IN_A_PROCESS}
    replace = os.replace
    def and_die(*arguments):
        replace(*arguments)
        os._exit(9)
    os.replace = and_die
    with writer:
        writer.write(catalog_table(1000))
    """
    assert run_python(code, tmp_path).returncode == 9
    (path,) = (tmp_path / "catalog").iterdir()
    assert pq.read_table(path)["source_id"].equals(catalog_table(1000)["source_id"])


@pytest.mark.parametrize("limit", [0, 30_000, 100_000])
def test_a_full_disk_is_an_error_of_its_own_and_leaves_nothing(tmp_path: Path, limit: int) -> None:
    """A limit on the size of files stands for the disk: EFBIG instead of ENOSPC.

    It is reached at the start, between the rows, and in the flush at the end.
    """
    code = f"""
    {PART_IN_A_PROCESS}
    import resource, signal
    from catalogproc.errors import DiskFullError
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))
    try:
        with writer:
            for seed in range(4):
                writer.write(catalog_table(200, seed))
    except DiskFullError as error:
        print(error)
        print("exit code", error.exit_code)
    assert writer.part is None
    """
    done = run_python(code, tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert "no space left to write" in done.stdout
    assert "what to do: free some space" in done.stdout
    assert "catalog/part.parquet" in done.stdout
    assert "exit code 1" in done.stdout
    assert not list((tmp_path / "catalog").iterdir())


def test_dev_full_gives_the_real_error_of_a_full_disk(tmp_path: Path) -> None:
    """The kernel's own ENOSPC, on flush."""
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")

    def fill() -> None:
        with AtomicFile(tmp_path / "x") as file:
            file.write(b"1")
            file._file.close()
            file._file = Path("/dev/full").open("wb")  # noqa: SIM115
            file.write(b"2" * 10)

    with pytest.raises(CatalogprocError, match="no space left"):
        fill()
    assert list(tmp_path.iterdir()) == []


def test_a_file_in_place_of_the_folder_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "catalog").write_text("no folder")
    with pytest.raises(CatalogprocError, match="cannot be written") as caught:
        write(tmp_path, 3)
    assert caught.value.exit_code == 1
    assert "give another --output" in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["catalog"]


def test_an_exception_of_the_caller_is_raised_and_leaves_nothing(tmp_path: Path) -> None:
    def stopped() -> None:
        writer = PartWriter(tmp_path, "part", CATALOG)
        writer.row_group = 10
        with writer:
            writer.write(catalog_table(100))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped()
    assert not list((tmp_path / "catalog").iterdir())


def test_an_existing_file_is_replaced_only_where_that_is_allowed(tmp_path: Path) -> None:
    path = tmp_path / "one.parquet"
    path.write_text("mine")
    with (
        pytest.raises(CatalogprocError, match="exists already"),
        TableWriter(path, CATALOG, overwrite=False),
    ):
        pass
    assert path.read_text() == "mine"
    with TableWriter(path, CATALOG, overwrite=True):
        pass
    assert pq.read_table(path).num_rows == 0


def test_a_file_that_another_process_wrote_meanwhile_is_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "one"

    def late() -> None:
        with AtomicFile(path, overwrite=False) as file:
            file.write(b"mine")
            path.write_text("theirs")

    with pytest.raises(CatalogprocError, match="exists already"):
        late()
    assert path.read_text() == "theirs"
    assert list(tmp_path.iterdir()) == [path]


def test_without_hard_links_files_are_renamed_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_links(*names: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", no_links)
    write_atomic(tmp_path / "one", b"1", overwrite=False)
    assert (tmp_path / "one").read_bytes() == b"1"
    with pytest.raises(CatalogprocError, match="exists already"):
        write_atomic(tmp_path / "one", b"2", overwrite=False)


def test_readers_see_the_old_file_or_the_new_one(tmp_path: Path) -> None:
    path = tmp_path / "one"
    write_atomic(path, b"old")
    with AtomicFile(path) as file:
        file.write(b"new")
        file._file.flush()
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"


def test_stale_files_are_those_of_ended_processes_or_a_day_old(tmp_path: Path) -> None:
    dead = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"],
                          capture_output=True, text=True, check=True).stdout.strip()  # fmt: skip
    host = re.sub(r"[^\w.-]", "-", socket.gethostname())
    names = {
        "of a dead process here": (f".p.parquet.{dead}@{host}.0123abcd.tmp", 0, False),
        "of this process": (f".p.parquet.{os.getpid()}@{host}.0123abcd.tmp", 0, True),
        "of another host": (f".p.parquet.{dead}@elsewhere.0123abcd.tmp", 0, True),
        "of another host, old": (f".q.parquet.{dead}@elsewhere.0123abcd.tmp", 90_000, False),
        "no file of ours": (".p.tmp", 90_000, True),
        "a finished part": ("p.parquet", 90_000, True),
    }
    for name, age, _ in names.values():
        (tmp_path / name).write_bytes(b"")
        os.utime(tmp_path / name, (time.time() - age,) * 2)
    remove_stale([tmp_path, tmp_path / "no such folder"])
    remaining = {path.name for path in tmp_path.iterdir()}
    assert remaining == {name for name, _, stays in names.values() if stays}


def test_temporary_names_are_recognised_and_never_parts() -> None:
    name = temporary_files.temporary_path(Path("part.parquet")).name
    assert is_temporary(Path(name))
    assert name.startswith(".")
    assert not name.endswith(".parquet")
    assert len({temporary_files.temporary_path(Path("x")) for _ in range(100)}) == 100
