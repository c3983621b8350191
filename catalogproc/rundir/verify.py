"""Is a finished catalog what its receipts say? Recount and rehash everything."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from catalogproc.contract import load_contract
from catalogproc.errors import CatalogprocError, VerifyError
from catalogproc.io.atomic import is_temporary
from catalogproc.io.hashes import file_sha256
from catalogproc.rundir.duplicate_ids import DuplicateSearch
from catalogproc.rundir.manifest import CATALOG, REJECTED, RunIdentity, read_identity
from catalogproc.rundir.provenance import check_provenance, read_summary, summarise
from catalogproc.rundir.receipts import Receipt, read_receipt, receipt_files

BATCH = 65_536
TIMES = ("seconds", "stars_per_second", "stage_seconds", "versions")
"""What a summary says besides the counts; it is not held against the receipts."""
SHOWN, LONG = 100, 1500
"""Findings that a message names, and the length of one."""


Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class VerifyReport:
    """What was counted in a catalog that is what its receipts say.

    ``repeated`` counts the source_ids that stand in the answers to more than one input file,
    which is no fault: the user may have named overlapping files.
    """

    run_id: str
    chunks: int
    parts: int
    bytes: int
    rows_read: int
    rows_written: int
    rows_rejected: int
    rejected_by_reason: dict[str, int] = field(default_factory=dict)
    repeated: int = 0
    warnings: tuple[str, ...] = ()

    def lines(self) -> list[str]:
        """For people."""
        reasons = "".join(f", {n:,} {word}" for word, n in sorted(self.rejected_by_reason.items()))
        return [
            f"run {self.run_id}: {self.rows_read:,} rows read = {self.rows_written:,} written "
            f"+ {self.rows_rejected:,} rejected{reasons}",
            f"{self.parts:,} parts of {self.chunks:,} chunks, {self.bytes:,} bytes: "
            "hashes, rows, contracts and provenance agree",
            *(f"warning: {warning}" for warning in self.warnings),
        ]

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def verify(folder: Path, progress: Progress | None = None) -> VerifyReport:
    """Recount, rehash and reread a finished catalog; ``progress`` is told of chunks.

    Checked are: each receipt belongs to the run; each part exists, with the hash, rows,
    columns, types and ranges that it should have, and no part stands without a receipt; read
    = written + rejected in every chunk and in total, as summary.json says; the chunks cover
    every input file from its first row on; no source_id stands twice in the answers to one
    file; provenance.json agrees. Memory is bounded by a row group and by the search for
    duplicates (:mod:`catalogproc.rundir.duplicate_ids`).

    Raises
    ------
    VerifyError
        Something is wrong; the message lists every finding.
    ResumeError
        The folder holds no run.
    """
    folder = Path(folder)
    identity = read_identity(folder)
    receipts, findings = _readable(folder)
    findings += _strays(folder, receipts)
    search = DuplicateSearch()
    size = 0
    for number, receipt in enumerate(receipts):
        if progress is not None:
            progress(number, len(receipts), "")
        findings += _check_receipt(receipt, identity)
        for path, sha256, rows in receipt.parts():
            part = folder / path
            found = _check_bytes(part, path, sha256)
            size += part.stat().st_size if part.is_file() else 0
            if not found:
                found = _check_rows(part, path, rows, receipt, identity, search)
            findings += found
    findings += _check_coverage(receipts, identity)
    findings += _check_summary(folder, identity, receipts)
    findings += check_provenance(folder, identity, receipts)
    repeated, within = search.run()
    findings += within
    if findings:
        raise VerifyError(
            f"the catalog is not what its receipts say: {len(findings)} findings",
            found="\n    ".join(["", *_shown(findings)]),
            where=folder,
            advice="remove the receipts of the chunks concerned and run the same command again",
        )
    warned = (f"{repeated:,} source_ids stand in more than one input file",) if repeated else ()
    total = summarise(identity, receipts)
    return VerifyReport(
        run_id=identity.run_id,
        chunks=len(receipts),
        parts=sum(len(receipt.parts()) for receipt in receipts),
        bytes=size,
        rows_read=total["rows_read"],
        rows_written=total["rows_written"],
        rows_rejected=total["rows_rejected"],
        rejected_by_reason=total["rejected_by_reason"],
        repeated=repeated,
        warnings=warned,
    )


def _readable(folder: Path) -> tuple[list[Receipt], list[str]]:
    receipts, findings = [], []
    for path in receipt_files(folder):
        try:
            receipts.append(read_receipt(path))
        except CatalogprocError as error:
            name = path.relative_to(folder)
            findings.append(f"{name} cannot be read: {error.found}")
    return receipts, findings


def _strays(folder: Path, receipts: Sequence[Receipt]) -> list[str]:
    claimed = {path for receipt in receipts for path, _, _ in receipt.parts()}
    return [
        f"{name} has no receipt"
        for subfolder in (CATALOG, REJECTED)
        for path in sorted((folder / subfolder).rglob("*"))
        if path.is_file()
        and not is_temporary(path)
        and (name := path.relative_to(folder).as_posix()) not in claimed
    ]


def _check_receipt(receipt: Receipt, identity: RunIdentity) -> list[str]:
    findings = []
    fingerprints = {file.fingerprint for file in identity.inputs}
    for wrong, what in (
        (receipt.job_hash != identity.job_hash, "is of another job"),
        (receipt.bundle_hash != identity.model_hash, "is of another model"),
        (receipt.input_fingerprint not in fingerprints, f"is of another input, {receipt.file}"),
        (
            receipt.rows_read != receipt.rows_written + receipt.rows_rejected,
            f"says {receipt.rows_read} rows read, but {receipt.rows_written} written "
            f"and {receipt.rows_rejected} rejected",
        ),
        (
            sum(receipt.rejected_by_reason.values()) != receipt.rows_rejected,
            f"says {receipt.rows_rejected} rows rejected, but the reasons add up to "
            f"{sum(receipt.rejected_by_reason.values())}",
        ),
        (receipt.rows_written and not receipt.catalog_part, "names no part of the catalog"),
        (receipt.rows_rejected and not receipt.rejected_part, "names no part of rejected rows"),
    ):
        if wrong:
            findings.append(f"receipt {receipt.chunk_id} {what}")
    return findings


def _check_bytes(part: Path, name: str, sha256: str) -> list[str]:
    try:
        found = file_sha256(part)
    except FileNotFoundError:
        return [f"{name} is missing"]
    except OSError as error:
        return [f"{name} cannot be read: {error}"]
    if found != sha256:
        return [f"{name} has SHA-256 {found}, its receipt says {sha256}"]
    return []


def _check_rows(
    part: Path,
    name: str,
    rows: int,
    receipt: Receipt,
    identity: RunIdentity,
    search: DuplicateSearch,
) -> list[str]:
    """Read a part whose bytes are those of its receipt."""
    of_catalog = name == receipt.catalog_part
    contract = load_contract(CATALOG if of_catalog else REJECTED)
    count, reasons = 0, Counter[str]()
    try:
        for batch in _batches(part):
            contract.check(batch, where=name)
            count += batch.num_rows
            if of_catalog:
                _check_ids(batch, identity, name)
                search.count(batch.column("source_id"))
            else:
                for pair in pc.value_counts(batch.column("reason").combine_chunks()).to_pylist():
                    reasons[pair["values"]] += pair["counts"]
    except CatalogprocError as error:
        return [" ".join(str(error).split())]
    except (OSError, pa.ArrowException) as error:
        return [f"{name} is no Parquet file that can be read: {error}"]
    findings = []
    if count != rows:
        findings.append(f"{name} has {count} rows, its receipt says {rows}")
    if not of_catalog and reasons != Counter(receipt.rejected_by_reason):
        findings.append(
            f"{name} has rows rejected as {dict(reasons)}, its receipt says "
            f"{dict(receipt.rejected_by_reason)}"
        )
    if of_catalog:
        search.add(part, receipt.input_fingerprint, receipt.file)
    return findings


def _batches(part: Path) -> Iterator[pa.Table]:
    with pq.ParquetFile(part) as file:
        schema = file.schema_arrow
        yield schema.empty_table()  # so that a part without rows is checked for its columns
        for batch in file.iter_batches(BATCH):
            yield pa.Table.from_batches([batch])


def _shown(findings: Sequence[str]) -> list[str]:
    """The first of them, each as long as can be read: what a file says may be of any length."""
    more = len(findings) - SHOWN
    short = [
        finding if len(finding) <= LONG else f"{finding[:LONG]} …" for finding in findings[:SHOWN]
    ]
    return [*short, f"and {more} more"] if more > 0 else short


def _check_ids(batch: pa.Table, identity: RunIdentity, name: str) -> None:
    for column, wanted in (("model_id", identity.model_id), ("run_id", identity.run_id)):
        found = pc.unique(batch.column(column)).to_pylist()
        if set(found) - {wanted}:
            raise VerifyError(f"{name} has rows of another {column}", wanted=wanted, found=found)


def _check_coverage(receipts: Sequence[Receipt], identity: RunIdentity) -> list[str]:
    """The chunks of each file must follow each other from row 0 to its end."""
    spans: dict[str, list[tuple[int, int]]] = {}
    for receipt in receipts:
        span = (receipt.first_row, receipt.first_row + receipt.rows_read)
        spans.setdefault(receipt.input_fingerprint, []).append(span)
    findings = []
    for file in identity.inputs:
        done = np.array(sorted(spans.get(file.fingerprint, [])), dtype=np.int64).reshape(-1, 2)
        if not len(done):
            findings.append(f"input {file.path}: no chunk of it is done")
            continue
        wanted = np.concatenate([[0], done[:-1, 1]])
        for start, expected in zip(done[:, 0], wanted, strict=True):
            if start != expected:
                word = "no receipt for" if start > expected else "two receipts for"
                low, high = sorted((int(start), int(expected)))
                findings.append(f"input {file.path}: {word} rows {low} to {high - 1}")
        end = int(done[-1, 1])
        if file.rows is not None and end != file.rows:
            findings.append(f"input {file.path}: {end} rows have receipts, it has {file.rows}")
    return findings


def _check_summary(folder: Path, identity: RunIdentity, receipts: Sequence[Receipt]) -> list[str]:
    stated = read_summary(folder)
    if stated is None:
        return ["summary.json is missing or cannot be read"]
    return [
        f"summary.json says {name} {stated.get(name)}, the receipts {value}"
        for name, value in summarise(identity, receipts).items()
        if name not in TIMES and stated.get(name) != value
    ]
