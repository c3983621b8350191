"""An open catalog: its folder is scanned once, changes of it are noticed, and it is fast."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.catalogs import catalog_table, finished_run
from support.many_chunks import many_chunks

from catalogproc.contract import load_contract
from catalogproc.errors import CatalogprocError, ContractError, ResumeError, VerifyError
from catalogproc.export import reader
from catalogproc.export.open_catalog import Catalog, open_catalog
from catalogproc.export.part_check import PartCheck
from catalogproc.io.parquet_writer import TableWriter
from catalogproc.rundir.receipts import read_receipts

CATALOG = load_contract("catalog")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    finished_run(tmp_path / "run", files=2, chunks=2, rows=30)
    return tmp_path / "run"


def test_the_folder_is_scanned_once(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scans = []
    scan = reader.scan_catalog
    monkeypatch.setattr(reader, "scan_catalog", lambda folder: scans.append(1) or scan(folder))
    stars = open_catalog(run)
    assert len(stars) == 120
    assert stars.columns == CATALOG.names
    assert stars.identity.run_id in repr(stars)
    assert stars.to_arrow(["mass"]).num_rows == 120
    assert stars.to_pandas(["mass"], where="mass > 0").shape == (120, 1)
    assert len(scans) == 1


def other_rows(part: Path) -> None:
    """In place, and one row less: the name and the inode stay."""
    pq.write_table(pq.read_table(part).slice(1), part)


def other_columns(part: Path) -> None:
    pq.write_table(pq.read_table(part).drop_columns(["e_mass"]), part)


def truncated(part: Path) -> None:
    part.write_bytes(part.read_bytes()[:-100])


def replaced(part: Path) -> None:
    """By another file of the same size, renamed to the part's name."""
    size = part.stat().st_size
    part.unlink()
    (part.parent / "new").write_bytes(bytes(size))
    (part.parent / "new").rename(part)


@pytest.mark.parametrize("number", [0, 1, 3])
@pytest.mark.parametrize(
    ("change", "error"),
    [
        (Path.unlink, VerifyError),
        (other_rows, VerifyError),
        (truncated, VerifyError),
        (replaced, VerifyError),
        (other_columns, ContractError),
    ],
)
@pytest.mark.parametrize("is_open", [True, False])
def test_a_changed_part_is_noticed(
    run: Path, number: int, change: Callable[[Path], None], error: type[Exception], is_open: bool
) -> None:
    """By each attribute of a catalog that is open, and when it is opened."""
    stars = Catalog(run)
    if is_open:
        assert len(stars) == 120
    change(reader.open_rows(run).parts[number])
    for use in (len, repr, lambda c: c.columns, lambda c: c.to_arrow(["mass"])):
        with pytest.raises(error):
            use(stars)
    with pytest.raises(error):
        open_catalog(run)


def test_chunks_that_come_and_go_are_noticed(run: Path) -> None:
    receipt = next((run / "receipts").iterdir())
    content = receipt.read_bytes()
    receipt.unlink()
    stars = open_catalog(run)
    assert len(stars) == 90
    receipt.write_bytes(content)
    assert len(stars) == stars.to_arrow(["mass"]).num_rows == 120
    receipt.write_bytes(b"{}")  # counts as absent
    assert len(stars) == 90
    (run / "run.json").unlink()
    with pytest.raises(ResumeError, match="holds no run"):
        len(stars)


@pytest.mark.parametrize("rows", [0, 1, 63, 64, 127, 128, 8191, 8192, 70_000])
def test_a_part_is_accepted_with_its_own_number_of_rows_only(tmp_path: Path, rows: int) -> None:
    """After another part was parsed, so that the footer is compared and not parsed."""
    for name, count in (("parsed", 5), ("compared", rows)):
        with TableWriter(tmp_path / name, CATALOG) as writer:
            writer.write(catalog_table(count))
    check = PartCheck(CATALOG)
    check.check(tmp_path / "parsed", 5)
    check.check(tmp_path / "compared", rows)
    for wrong in (rows + 1, abs(rows - 1), rows + 128, rows << 7):
        if wrong != rows:
            with pytest.raises(VerifyError, match="other rows than its receipt"):
                check.check(tmp_path / "compared", wrong)


def test_only_the_first_footer_is_parsed(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parsed = []
    read = pq.read_metadata
    monkeypatch.setattr(pq, "read_metadata", lambda path: parsed.append(path) or read(path))
    reader.scan_catalog(run)
    assert len(parsed) == 1


def test_garbage_in_place_of_a_part_is_an_error_of_ours(tmp_path: Path) -> None:
    check = PartCheck(CATALOG)
    for content in (b"", b"PAR1", b"PAR1" * 3, b"\0\0\0\0PAR1", b"\xff\xff\xff\xffPAR1", bytes(99)):
        (tmp_path / "x").write_bytes(content)
        with pytest.raises(CatalogprocError, match="cannot be read"):
            check.check(tmp_path / "x", 5)
    pq.write_table(pa.table({"a": [1, 2]}), tmp_path / "x")
    with pytest.raises(ContractError, match="another version"):
        check.check(tmp_path / "x", 2)


def cpu_seconds(function: Callable[[], object]) -> float:
    start = time.process_time()
    function()
    return time.process_time() - start


@pytest.mark.parametrize("chunks", [500, pytest.param(10_000, marks=pytest.mark.slow)])
def test_catalogs_of_many_chunks_open_quickly(tmp_path: Path, chunks: int) -> None:
    """With 10,000 chunks under 2 s, and each attribute after that under 0.2 s."""
    many_chunks(tmp_path / "run", chunks)
    assert len(read_receipts(tmp_path / "run")) == chunks
    stars = Catalog(tmp_path / "run")
    assert cpu_seconds(lambda: len(stars)) < 2.0 * max(chunks / 10_000, 0.1)
    uses: tuple[Callable[[], object], ...] = (
        lambda: len(stars),
        lambda: repr(stars),
        lambda: stars.columns,
        lambda: stars.contract,
        lambda: stars.identity,
        lambda: stars.summary,
    )
    for use in uses:
        assert cpu_seconds(use) < 0.2
    assert len(stars) == 20 * chunks
