"""Verify that a finished catalog agrees with its receipts: recount and rehash everything."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from catalogproc.contract import load_contract
from catalogproc.errors import CatalogprocError, VerifyError, masked, plural
from catalogproc.io.hashes import file_sha256
from catalogproc.io.temporary_files import is_temporary
from catalogproc.rundir.duplicate_ids import DuplicateSearch
from catalogproc.rundir.manifest import (
    CATALOG,
    POSTERIOR,
    REJECTED,
    RunIdentity,
    read_identity,
)
from catalogproc.rundir.posterior_check import check_posterior
from catalogproc.rundir.provenance import check_provenance
from catalogproc.rundir.receipts import Receipt, read_receipt, receipt_files
from catalogproc.rundir.summary import read_summary, summarise

BATCH = 65_536
TIMES = ("seconds", "stars_per_second", "stage_seconds", "versions")
"""Fields of a summary that are not compared with the receipts."""
SHOWN, LONG = 100, 1500
"""Number of findings that a message lists, and of characters of each."""

Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class VerifyReport:
    """The counts of a catalog that agrees with its receipts.

    Attributes
    ----------
    run_id
        The run.
    chunks, parts, bytes
        Number of chunks, of Parquet files, and of bytes in these.
    rows_read, rows_written, rows_rejected, rejected_by_reason
        Counts over all chunks.
    repeated
        Number of source_ids with rows from more than one input file. That is no fault: input
        files may overlap.
    warnings
        What the user should know.
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
        """Return the report for the user."""
        reasons = "".join(f", {n:,} {word}" for word, n in sorted(self.rejected_by_reason.items()))
        return [
            f"run {self.run_id}: {plural(self.rows_read, 'row')} read = {self.rows_written:,} "
            f"written + {self.rows_rejected:,} rejected{reasons}",
            f"{plural(self.parts, 'part')} of {plural(self.chunks, 'chunk')}, {self.bytes:,} "
            "bytes: hashes, rows, contracts and provenance agree",
            *(f"warning: {warning}" for warning in self.warnings),
        ]

    def to_dict(self) -> dict[str, Any]:
        """Return the report for a program."""
        return asdict(self)


def verify(folder: Path, progress: Progress | None = None) -> VerifyReport:
    """Verify a finished catalog: recount, rehash and reread all of it.

    It is checked that each receipt belongs to the run; that each part exists with the right
    hash, rows, columns, types and ranges, and has a receipt; that read = written + rejected in
    each chunk and in total, as summary.json states; that the chunks cover each input file from
    its first row on; that no source_id occurs twice among the rows of one input file; and that
    provenance.json agrees. Memory is bounded by a row group and by the search for duplicates
    (:mod:`catalogproc.rundir.duplicate_ids`).

    Parameters
    ----------
    folder
        The output folder of a run.
    progress
        Called with (chunks done, chunks in all, an empty text) before each chunk.

    Returns
    -------
    VerifyReport
        The counts.

    Raises
    ------
    VerifyError
        Something is wrong; the message lists all findings.
    ResumeError
        The folder holds no run.

    Examples
    --------
    >>> import catalogproc
    >>> report = catalogproc.verify("output/demo")
    >>> report.rows_read == report.rows_written + report.rows_rejected
    True
    """
    checked = _Verification(Path(folder))
    for number, receipt in enumerate(checked.receipts):
        if progress is not None:
            progress(number, len(checked.receipts), "")
        checked.check_chunk(receipt)
    checked.check_run()
    if checked.findings:
        raise VerifyError(
            "the catalog does not agree with its receipts: "
            f"{plural(len(checked.findings), 'finding')}",
            found="\n    ".join(["", *_shown(checked.findings)]),
            where=folder,
            advice="remove the receipts of these chunks and run the same command again",
        )
    return checked.report()


class _Verification:
    """The findings of a verification, and what was counted meanwhile."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.identity = read_identity(folder)
        self.receipts, self.findings = _read_receipts(folder)
        self.findings += _parts_without_receipt(folder, self.receipts)
        self._search = DuplicateSearch()
        self._repeated = 0
        self._bytes = 0

    def check_chunk(self, receipt: Receipt) -> None:
        """Check a receipt and the parts that it names."""
        self.findings += _check_receipt(receipt, self.identity)
        for name, sha256, rows in receipt.parts():
            part = self.folder / name
            self._bytes += part.stat().st_size if part.is_file() else 0
            # Rows are read only from a part that has the hash of its receipt.
            changed = _check_bytes(part, name, sha256)
            if not changed and name == receipt.posterior_part:
                changed = check_posterior(self.folder, receipt)
            elif not changed:
                changed = self._check_rows(name, rows, receipt)
            self.findings += changed

    def check_run(self) -> None:
        """Check what all chunks together must satisfy."""
        self.findings += _check_coverage(self.receipts, self.identity)
        self.findings += _check_summary(self.folder, self.identity, self.receipts)
        self.findings += check_provenance(self.folder, self.identity, self.receipts)
        self._repeated, within_a_file = self._search.run()
        self.findings += within_a_file

    def report(self) -> VerifyReport:
        """Return the counts."""
        total = summarise(self.identity, self.receipts)
        warning = f"{plural(self._repeated, 'source_id')} in more than one input file"
        return VerifyReport(
            run_id=self.identity.run_id,
            chunks=len(self.receipts),
            parts=sum(len(receipt.parts()) for receipt in self.receipts),
            bytes=self._bytes,
            rows_read=total["rows_read"],
            rows_written=total["rows_written"],
            rows_rejected=total["rows_rejected"],
            rejected_by_reason=total["rejected_by_reason"],
            repeated=self._repeated,
            warnings=(warning,) if self._repeated else (),
        )

    def _check_rows(self, name: str, rows: int, receipt: Receipt) -> list[str]:
        in_catalog = name == receipt.catalog_part
        contract = load_contract(CATALOG if in_catalog else REJECTED)
        part = self.folder / name
        count, reasons, files = 0, Counter[str](), Counter[str]()
        try:
            for batch in _batches(part):
                contract.check(batch, where=name)
                count += batch.num_rows
                if in_catalog:
                    _check_ids(batch, self.identity, name)
                    self._search.count(batch.column("source_id"))
                else:
                    reasons.update(_counted(batch.column("reason")))
                    files.update(_counted(batch.column("file")))
        except CatalogprocError as error:
            return [" ".join(str(error).split())]
        except (OSError, pa.ArrowException) as error:
            return [f"{name} is no Parquet file that can be read: {error}"]
        if in_catalog:
            self._search.add(part, receipt.each_file())
        findings = []
        if count != rows:
            findings.append(f"{name} has {plural(count, 'row')}, its receipt says {rows}")
        if not in_catalog and reasons != Counter(receipt.rejected_by_reason):
            findings.append(
                f"{name} has rows rejected as {dict(reasons)}, its receipt says "
                f"{dict(receipt.rejected_by_reason)}"
            )
        if not in_catalog:
            findings += _check_files(name, files, receipt)
        return findings


def _read_receipts(folder: Path) -> tuple[list[Receipt], list[str]]:
    receipts, findings = [], []
    for path in receipt_files(folder):
        try:
            receipts.append(read_receipt(path))
        except CatalogprocError as error:
            name = path.relative_to(folder)
            findings.append(f"{name} cannot be read: {error.found}")
    return receipts, findings


def _counted(column: pa.ChunkedArray) -> dict[str, int]:
    values = pc.value_counts(column.combine_chunks())
    return {pair["values"]: pair["counts"] for pair in values.to_pylist()}


def _check_files(name: str, files: Mapping[str, int], receipt: Receipt) -> list[str]:
    """Check that the rejected rows of each input file are as many as its receipt says."""
    wanted = Counter[str]()
    for one in receipt.each_file():
        wanted[masked(one.file)] += one.rows_read - one.rows_written
    return [
        f"{name} has {plural(files.get(file, 0), 'row')} of {file}, its receipt says {wanted[file]}"
        for file in sorted(wanted.keys() | files.keys())
        if files.get(file, 0) != wanted[file]
    ]


def _parts_without_receipt(folder: Path, receipts: Sequence[Receipt]) -> list[str]:
    known = {path for receipt in receipts for path, _, _ in receipt.parts()}
    return [
        f"{name} has no receipt"
        for subfolder in (CATALOG, POSTERIOR, REJECTED)
        for path in sorted((folder / subfolder).rglob("*"))
        if path.is_file()
        and not is_temporary(path)
        and (name := path.relative_to(folder).as_posix()) not in known
    ]


def _check_receipt(receipt: Receipt, identity: RunIdentity) -> list[str]:
    fingerprints = {file.fingerprint for file in identity.inputs}
    foreign = [one.file for one in receipt.each_file() if one.fingerprint not in fingerprints]
    checks = (
        (receipt.job_hash != identity.job_hash, "is of another job"),
        (receipt.bundle_hash != identity.model_hash, "is of another model"),
        (foreign, f"is of another input, {', '.join(foreign[:5])}"),
        (
            receipt.rows_read != receipt.rows_written + receipt.rows_rejected,
            f"says {plural(receipt.rows_read, 'row')} read, but {receipt.rows_written} written "
            f"and {receipt.rows_rejected} rejected",
        ),
        (
            sum(receipt.rejected_by_reason.values()) != receipt.rows_rejected,
            f"says {plural(receipt.rows_rejected, 'row')} rejected, but the reasons add up to "
            f"{sum(receipt.rejected_by_reason.values())}",
        ),
        (receipt.rows_written and not receipt.catalog_part, "names no part of the catalog"),
        (receipt.rows_rejected and not receipt.rejected_part, "names no part of rejected rows"),
        (
            (POSTERIOR in identity.contracts) != bool(receipt.posterior_part),
            "names a posterior that the job does not ask for"
            if receipt.posterior_part
            else "names no posterior",
        ),
    )
    return [f"receipt {receipt.chunk_id} {finding}" for wrong, finding in checks if wrong]


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


def _batches(part: Path) -> Iterator[pa.Table]:
    with pq.ParquetFile(part) as file:
        schema = file.schema_arrow
        yield schema.empty_table()  # so that the columns of a part without rows are checked
        for batch in file.iter_batches(BATCH):
            yield pa.Table.from_batches([batch])


def _shown(findings: Sequence[str]) -> list[str]:
    """Return the first findings, each cut to LONG: what a file states may be of any length."""
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
    """Check that the chunks of each file follow each other from row 0 to its end."""
    spans: dict[str, list[tuple[int, int]]] = {}
    for receipt in receipts:
        for one in receipt.each_file():
            span = (one.first_row, one.first_row + one.rows_read)
            spans.setdefault(one.fingerprint, []).append(span)
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
