"""A catalog that was tampered with is found out, wherever it was."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.catalogs import catalog_table, finished_run, identity

from catalogproc.contract import load_contract
from catalogproc.errors import ResumeError, VerifyError
from catalogproc.io.atomic import as_json
from catalogproc.io.parquet_writer import Part, PartWriter
from catalogproc.rundir.duplicate_ids import SHIFT, DuplicateSearch
from catalogproc.rundir.manifest import RunIdentity
from catalogproc.rundir.provenance import write_provenance
from catalogproc.rundir.receipts import FileRows, Receipt, read_receipts, write_receipt
from catalogproc.rundir.summary import write_summary
from catalogproc.rundir.verify import VerifyReport, verify

ROWS, REJECTED = 50, 3


@pytest.fixture
def run(tmp_path: Path) -> RunIdentity:
    return finished_run(tmp_path, files=2, chunks=2, rows=ROWS, rejected=REJECTED)


def findings(folder: Path) -> list[str]:
    with pytest.raises(VerifyError) as caught:
        verify(folder)
    assert caught.value.exit_code == 1
    assert "what to do" in str(caught.value)
    return str(caught.value.details["found"]).split("\n    ")[1:]


def chunk(folder: Path, number: int) -> Receipt:
    receipts = sorted(read_receipts(folder).values(), key=lambda r: (r.file, r.first_row))
    return receipts[number]


def rewrite(folder: Path, receipt: Receipt, table: pa.Table) -> Receipt:
    """Put other rows into a chunk's part and let everything else agree with them."""
    stem = Path(receipt.catalog_part).stem
    with PartWriter(folder, stem, load_contract("catalog")) as writer:
        writer.write(table)
    part = writer.part
    assert isinstance(part, Part)
    changed = replace(receipt, rows_written=part.rows, catalog_sha256=part.sha256)
    return agree(folder, changed)


def agree(folder: Path, receipt: Receipt) -> Receipt:
    write_receipt(folder, receipt)
    write_summary(folder)
    write_provenance(folder)
    return receipt


def test_a_finished_catalog_is_what_its_receipts_say(tmp_path: Path, run: RunIdentity) -> None:
    report = verify(tmp_path)
    sizes = sum(p.stat().st_size for p in tmp_path.rglob("*.parquet"))
    assert report == VerifyReport(
        run_id=run.run_id,
        chunks=4,
        parts=8,
        bytes=sizes,
        rows_read=4 * (ROWS + REJECTED),
        rows_written=4 * ROWS,
        rows_rejected=4 * REJECTED,
        rejected_by_reason={"no_coefficients": 4 * REJECTED},
    )
    said = "\n".join(report.lines())
    assert "212 rows read = 200 written + 12 rejected, 12 no_coefficients" in said
    assert json.loads(json.dumps(report.to_dict()))["parts"] == 8


def test_verifying_changes_nothing(tmp_path: Path, run: RunIdentity) -> None:
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    verify(tmp_path)
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ResumeError, match="holds no run"):
        verify(tmp_path)


def test_a_run_of_no_rows_at_all_is_fine(tmp_path: Path) -> None:
    finished_run(tmp_path, files=1, chunks=1, rows=0, rejected=0)
    report = verify(tmp_path)
    assert (report.rows_read, report.parts) == (0, 1)


@pytest.mark.parametrize("place", [0.1, 0.5, 0.99])
def test_one_changed_bit_anywhere_in_a_part_is_found(
    tmp_path: Path, run: RunIdentity, place: float
) -> None:
    path = tmp_path / chunk(tmp_path, 1).catalog_part
    content = bytearray(path.read_bytes())
    content[int(place * len(content))] ^= 1
    path.write_bytes(content)
    (finding,) = findings(tmp_path)
    assert finding.startswith(f"catalog/{path.name} has SHA-256")
    assert finding.endswith(f"its receipt says {chunk(tmp_path, 1).catalog_sha256}")


def test_every_finding_is_told_not_the_first_alone(tmp_path: Path, run: RunIdentity) -> None:
    first, second, third = (chunk(tmp_path, number) for number in range(3))
    (tmp_path / first.catalog_part).unlink()
    (tmp_path / second.rejected_part).write_bytes(b"")
    (tmp_path / "catalog" / "stray.parquet").write_bytes(b"")
    (tmp_path / "receipts" / f"{third.chunk_id}.json").write_text("{")
    said = findings(tmp_path)
    for wanted in (
        f"{first.catalog_part} is missing",
        f"{second.rejected_part} has SHA-256",
        "catalog/stray.parquet has no receipt",
        f"receipts/{third.chunk_id}.json cannot be read",
        f"{third.catalog_part} has no receipt",
        f"input {third.file}: no receipt for rows 0 to {ROWS + REJECTED - 1}",
        "summary.json says rows_read 212, the receipts 159",
        "provenance.json: ",
    ):
        assert any(finding.startswith(wanted) for finding in said), wanted


def test_parts_of_a_killed_process_are_no_finding(tmp_path: Path, run: RunIdentity) -> None:
    (tmp_path / "catalog" / ".x.parquet.1@elsewhere.0123abcd.tmp").write_bytes(b"half")
    assert verify(tmp_path).parts == 8


def number_of_rows(table: pa.Table) -> pa.Table:
    return table.slice(1)


def another_model(table: pa.Table) -> pa.Table:
    place = table.column_names.index("model_id")
    return table.set_column(place, "model_id", pa.array(["ffffffff"] * table.num_rows))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (number_of_rows, "says 53 rows read, but 49 written and 3 rejected"),
        (another_model, "rows of another model_id"),
    ],
)
def test_rows_that_do_not_belong_are_found_though_all_hashes_agree(
    tmp_path: Path, run: RunIdentity, change: Callable[[pa.Table], pa.Table], words: str
) -> None:
    table = change(catalog_table(ROWS, 0, run_id=run.run_id))
    rewrite(tmp_path, chunk(tmp_path, 0), table)
    assert any(words in finding for finding in findings(tmp_path))


def test_rows_of_another_run_are_found(tmp_path: Path, run: RunIdentity) -> None:
    rewrite(tmp_path, chunk(tmp_path, 0), catalog_table(ROWS, 0, run_id="ffffffff"))
    (finding,) = findings(tmp_path)
    assert "rows of another run_id" in finding
    assert run.run_id in finding


@pytest.mark.parametrize(
    ("alter", "words"),
    [
        (lambda t: t.drop_columns(["teff"]), "columns are not those of catalog"),
        (lambda t: t.set_column(0, "source_id", t["source_id"].cast("double")), "wrong type"),
        (
            lambda t: t.set_column(
                t.column_names.index("e_mass"), "e_mass", pa.array([-1.0] * ROWS, pa.float32())
            ),
            "values out of range",
        ),
    ],
)
def test_a_part_that_breaks_the_contract_is_found(
    tmp_path: Path, run: RunIdentity, alter: Callable[[pa.Table], pa.Table], words: str
) -> None:
    """Written by some other program, with a receipt that has its hash."""
    import hashlib

    receipt = chunk(tmp_path, 0)
    path = tmp_path / receipt.catalog_part
    ids = pa.array(np.arange(ROWS) + 5)
    table = catalog_table(ROWS, 0, run_id=run.run_id).set_column(0, "source_id", ids)
    pq.write_table(alter(table), path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    agree(tmp_path, replace(receipt, catalog_sha256=digest))
    (finding,) = findings(tmp_path)
    assert words in finding
    assert receipt.catalog_part in finding


def test_reasons_are_counted_in_the_rejected_rows(tmp_path: Path, run: RunIdentity) -> None:
    receipt = chunk(tmp_path, 0)
    agree(tmp_path, replace(receipt, rejected_by_reason={"duplicate": REJECTED}))
    (finding,) = findings(tmp_path)
    assert "rows rejected as {'no_coefficients': 3}, its receipt says {'duplicate': 3}" in finding
    agree(tmp_path, replace(receipt, rejected_by_reason={"no_coefficients": 2}))
    assert any("the reasons add up to 2" in finding for finding in findings(tmp_path))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("job_hash", "is of another job"),
        ("bundle_hash", "is of another model"),
        ("input_fingerprint", "is of another input, xp/a.parquet"),
    ],
)
def test_a_receipt_of_another_run_is_found(
    tmp_path: Path, run: RunIdentity, name: str, words: str
) -> None:
    receipt = chunk(tmp_path, 0)
    agree(tmp_path, replace(receipt, **{name: "0" * 64}))
    assert f"receipt {receipt.chunk_id} {words}" in findings(tmp_path)


def test_rows_that_no_chunk_covers_are_found(tmp_path: Path, run: RunIdentity) -> None:
    width = ROWS + REJECTED
    for number, words in (
        (0, f"no receipt for rows 0 to {width - 1}"),
        (1, f"{width} rows have receipts, it has {2 * width}"),
    ):
        receipt = chunk(tmp_path, number)
        path = tmp_path / "receipts" / f"{receipt.chunk_id}.json"
        for part, _, _ in receipt.parts():
            (tmp_path / part).rename(tmp_path / f"{number}-{part.replace('/', '-')}")
        path.unlink()
        write_summary(tmp_path)
        write_provenance(tmp_path)
        assert findings(tmp_path) == [f"input xp/a.parquet: {words}"]
        write_receipt(tmp_path, receipt)
        for part, _, _ in receipt.parts():
            (tmp_path / f"{number}-{part.replace('/', '-')}").rename(tmp_path / part)
    write_summary(tmp_path)
    write_provenance(tmp_path)
    verify(tmp_path)


def test_rows_that_two_chunks_cover_are_found(tmp_path: Path, run: RunIdentity) -> None:
    agree(tmp_path, replace(chunk(tmp_path, 1), first_row=10))
    said = findings(tmp_path)
    assert f"input xp/a.parquet: two receipts for rows 10 to {ROWS + REJECTED - 1}" in said


@pytest.mark.parametrize(
    ("name", "value"), [("rows_written", 1), ("run_id", "00000000"), ("rejected_by_reason", {})]
)
def test_a_summary_that_disagrees_is_found(
    tmp_path: Path, run: RunIdentity, name: str, value: object
) -> None:
    path = tmp_path / "summary.json"
    content = json.loads(path.read_text())
    path.write_bytes(as_json(content | {name: value}))
    (finding,) = findings(tmp_path)
    assert finding.startswith(f"summary.json says {name} {value}, the receipts ")
    path.unlink()
    assert findings(tmp_path) == ["summary.json is missing or cannot be read"]


def test_provenance_that_disagrees_is_found(tmp_path: Path, run: RunIdentity) -> None:
    path = tmp_path / "provenance.json"
    receipt = chunk(tmp_path, 0)
    path.write_text(path.read_text().replace(receipt.catalog_sha256, "0" * 64))
    (finding,) = findings(tmp_path)
    assert finding.startswith("provenance.json: ")
    assert receipt.catalog_sha256 in finding
    path.unlink()
    assert findings(tmp_path) == ["provenance.json is missing or cannot be read"]


# ---------------------------------------------------------------- duplicates


def with_ids(ids: list[int], run: RunIdentity) -> pa.Table:
    table = catalog_table(len(ids), 0, run_id=run.run_id)
    return table.set_column(0, table.schema.field(0), pa.array(ids, pa.int64()))


BASE = 2**61


def tables(run: RunIdentity, *ids: list[int]) -> list[pa.Table]:
    return [with_ids([BASE + number for number in part], run) for part in ids]


def test_a_source_id_twice_in_a_file_is_found_across_its_chunks(tmp_path: Path) -> None:
    run = identity(2, 6)
    made = tables(run, [1, 2, 3], [3, 4, 5], [11, 12, 13], [14, 14, 15])
    finished_run(tmp_path, rows=3, rejected=0, tables=made)
    assert findings(tmp_path) == [
        f"input xp/a.parquet: 1 source_id occurs more than once: {BASE + 3}",
        f"input xp/b.parquet: 1 source_id occurs more than once: {BASE + 14}",
    ]


def test_a_source_id_in_two_files_is_a_warning(tmp_path: Path) -> None:
    run = identity(2, 6)
    made = tables(run, [1, 2, 3], [4, 5, 6], [3, 12, 13], [14, 6, 15])
    finished_run(tmp_path, rows=3, rejected=0, tables=made)
    report = verify(tmp_path)
    assert report.repeated == 2
    assert report.warnings == ("2 source_ids in more than one input file",)
    assert "warning: 2 source_ids" in report.lines()[-1]


def test_ids_that_differ_only_beyond_a_floats_reach_are_no_duplicates(tmp_path: Path) -> None:
    run = identity(2, 6)
    assert float(BASE) == float(BASE + 1)
    made = tables(run, [0, 1, 2], [3, 4, 5], [6, 7, 8], [9, 10, 11])
    finished_run(tmp_path, rows=3, rejected=0, tables=made)
    assert verify(tmp_path).repeated == 0


@pytest.mark.parametrize("limit", [10, 300, 10_000])
def test_the_search_finds_the_same_whatever_its_memory(tmp_path: Path, limit: int) -> None:
    """Against a plain count in a dictionary; ids of every size, over the whole sky."""
    rng = np.random.default_rng(0)
    search = DuplicateSearch(limit)
    seen: dict[int, list[int]] = {}
    for number in range(6):
        ids = rng.integers(0, 2**63 - 1, 200)
        ids[:20] = rng.integers(0, 40, 20) << 50
        file = number // 2
        for one in ids.tolist():
            seen.setdefault(one, []).append(file)
        table = catalog_table(200).set_column(0, "source_id", pa.array(ids))
        writer = PartWriter(tmp_path, f"{number}", load_contract("catalog"))
        writer.row_group = 50
        with writer:
            writer.write(table)
        search.count(table["source_id"])
        source = FileRows(f"file {file}", f"print {file}", 0, 200, 200)
        search.add(tmp_path / f"catalog/{number}.parquet", [source])
    across = sum(len(set(files)) > 1 for files in seen.values())
    within = {file: sum(files.count(file) > 1 for files in seen.values()) for file in range(3)}
    repeated, said = search.run()
    assert repeated == across > 0
    assert [line.split(":")[1].split()[0] for line in said] == [str(n) for n in within.values()]
    assert all(", …" in line for line in said)


def test_stars_of_several_files_in_one_part_are_told_apart(tmp_path: Path) -> None:
    """A star twice in one file is a fault; in two files of one part it is not."""
    ids = [7, 7, 8, 9, 10, 8, 11]
    table = catalog_table(len(ids)).set_column(0, "source_id", pa.array(ids, pa.int64()))
    writer = PartWriter(tmp_path, "0", load_contract("catalog"))
    writer.row_group = 2
    with writer:
        writer.write(table)
    search = DuplicateSearch()
    search.count(table["source_id"])
    files = [("a", 2), ("empty", 0), ("b", 2), ("c", 3)]
    search.add(
        tmp_path / "catalog/0.parquet",
        [FileRows(name, f"print {name}", 0, rows, rows) for name, rows in files],
    )
    assert search.run() == (1, ["input a: 1 source_id occurs more than once: 7"])


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The numbers of the row groups that are read, in order."""
    numbers: list[int] = []
    read = pq.ParquetFile.read_row_group

    def counted(file: pq.ParquetFile, number: int, **options: Any) -> pa.Table:
        numbers.append(number)
        return read(file, number, **options)

    monkeypatch.setattr(pq.ParquetFile, "read_row_group", counted)
    return numbers


def search_over(folder: Path, limit: int, *parts: list[int]) -> DuplicateSearch:
    """A search over parts, each of its own input file, with two rows per row group."""
    search = DuplicateSearch(limit)
    for number, ids in enumerate(parts):
        table = catalog_table(len(ids)).set_column(0, "source_id", pa.array(ids, pa.int64()))
        writer = PartWriter(folder, f"{number}", load_contract("catalog"))
        writer.row_group = 2
        with writer:
            writer.write(table)
        search.count(table["source_id"])
        source = FileRows(f"file {number}", f"print {number}", 0, len(ids), len(ids))
        search.add(folder / f"catalog/{number}.parquet", [source])
    return search


@pytest.mark.parametrize("number", [1, 6, 2**16 - 2])
def test_ids_at_the_edge_of_a_group_of_bins_are_found(
    tmp_path: Path, reads: list[int], number: int
) -> None:
    """The same id ends one row group and begins another; each bin is a group of its own."""
    before, same, after = ((number + step) << SHIFT for step in (-1, 0, 1))
    parts = ([before, same + 7], [same + 7, after], [after, after + 1])
    assert search_over(tmp_path, 1, *parts).run() == (2, [])  # same + 7, and after
    # Each group reads only the row groups that meet it: 1 of the first, 2 of both others.
    assert len(reads) == 1 + 2 + 2


def test_the_largest_possible_ids_are_found(tmp_path: Path) -> None:
    search = search_over(tmp_path, 1, [2**63 - 2, 2**63 - 1], [0, 2**63 - 1])
    assert search.run() == (1, [])


def test_a_group_is_as_large_as_memory_allows(tmp_path: Path, reads: list[int]) -> None:
    search = search_over(tmp_path, 4, [number << SHIFT for number in range(4)])
    assert search.run() == (0, [])
    assert reads == [0, 1]
