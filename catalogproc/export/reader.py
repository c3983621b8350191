"""Rows of a finished catalog: selected columns and stars, in the order of the input."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from catalogproc.contract import Contract, load_contract
from catalogproc.errors import JobError
from catalogproc.export.binary_rows import string_widths
from catalogproc.export.part_check import PartCheck, other_contract, unreadable_part
from catalogproc.export.where import Condition, parse
from catalogproc.readers.hats import disjoint_partitions
from catalogproc.rundir.manifest import CATALOG, RECEIPTS, RUN_FILE, RunIdentity, read_identity
from catalogproc.rundir.receipts import Receipt, iterate_receipts
from catalogproc.rundir.summary import REFERENCES, versions

BATCH = 65_536

Progress = Callable[[int, int | None, str], None]


@dataclass(frozen=True)
class Fact:
    """One statement about the origin of a file.

    Attributes
    ----------
    keyword
        Its name in FITS.
    name
        Its name in other formats.
    value
        The statement.
    meaning
        Its comment in FITS.
    """

    keyword: str
    name: str
    value: str | int
    meaning: str


@dataclass(frozen=True)
class Rows:
    """Selected rows and columns of a finished catalog, in the order of the input.

    Attributes
    ----------
    contract
        The selected columns.
    parts
        All parts of the catalog.
    total
        Rows of all parts, selected or not.
    facts
        What a file states about its origin.
    condition
        Which stars are selected; all where None.
    progress
        Called by :meth:`stream` with (rows read, total, "").
    partitions
        HEALPix order and pixel of each input file, where the input was a HATS catalog.
    """

    contract: Contract
    parts: tuple[Path, ...]
    total: int
    facts: tuple[Fact, ...]
    condition: Condition | None = None
    progress: Progress | None = None
    partitions: tuple[tuple[int, int], ...] = ()

    @cached_property
    def metadata(self) -> dict[str, str]:
        """The facts as text, by name."""
        return {fact.name: str(fact.value) for fact in self.facts}

    def batches(self, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
        """Yield the rows in batches of at most :data:`BATCH`.

        Parameters
        ----------
        columns
            Which columns; all selected ones by default.
        """
        for _, batch in self._read(self.contract.names if columns is None else columns):
            yield batch

    def stream(self) -> Iterator[pa.RecordBatch]:
        """Yield what :meth:`batches` does, and report progress."""
        done = 0
        for read, batch in self._read(self.contract.names):
            yield batch
            done += read
            if self.progress is not None:
                self.progress(done, self.total, "")

    def _read(self, columns: Sequence[str]) -> Iterator[tuple[int, pa.RecordBatch]]:
        """Yield the number of rows read, and the selected ones of them."""
        names, condition = list(columns), self.condition
        needed = names if condition is None else list(dict.fromkeys([*names, *condition.columns]))
        for part in self.parts:
            try:
                with pq.ParquetFile(part) as file:
                    for batch in file.iter_batches(BATCH, columns=needed):
                        chosen = batch if condition is None else batch.filter(condition.expression)
                        yield batch.num_rows, chosen.select(names)
            except (OSError, pa.ArrowException) as error:
                raise unreadable_part(part, error) from None

    @cached_property
    def count(self) -> int:
        """Number of selected rows; a condition's columns are read to count them."""
        if self.condition is None:
            return self.total
        first = self.condition.columns[:1] or self.contract.names[:1]
        return sum(batch.num_rows for batch in self.batches(first))

    @cached_property
    def widths(self) -> dict[str, int]:
        """Bytes of the longest string of each string column; these columns are read twice."""
        strings = [column.name for column in self.contract.columns if column.type == "string"]
        return string_widths(self.contract, self.batches(strings) if strings else ())


@dataclass(frozen=True)
class CatalogScan:
    """A run's catalog as its receipts describe it, with every part checked.

    Attributes
    ----------
    identity
        Job, model and input of the run.
    receipts
        In the order of the input.
    parts
        The files of the catalog in the same order.
    """

    identity: RunIdentity
    receipts: tuple[Receipt, ...]
    parts: tuple[Path, ...]

    @cached_property
    def total(self) -> int:
        """Rows of all parts."""
        return sum(receipt.rows_written for receipt in self.receipts if receipt.catalog_part)

    def rows(
        self,
        columns: Sequence[str] | None = None,
        where: str | None = None,
        progress: Progress | None = None,
    ) -> Rows:
        """Select rows and columns; see :func:`open_rows`.

        Parameters
        ----------
        columns, where, progress
            As in :func:`open_rows`.
        """
        contract = load_contract(CATALOG)
        selected = _selected(contract, columns)
        condition = None if where is None else parse(where, contract)
        facts = _facts(self.identity, self.receipts, condition)
        partitions = disjoint_partitions([file.path for file in self.identity.inputs])
        return Rows(selected, self.parts, self.total, facts, condition, progress, tuple(partitions))


def scan_catalog(folder: Path) -> CatalogScan:
    """Read the receipts of a run and check each part's columns and number of rows.

    Parameters
    ----------
    folder
        The run folder.

    Raises
    ------
    ContractError
        The catalog's contract has another version.
    ResumeError
        The folder holds no run.
    VerifyError
        A part that a receipt names is missing or has other rows than it says.
    """
    identity = read_identity(folder)
    contract, version = load_contract(CATALOG), identity.contracts.get(CATALOG)
    if version != contract.version:
        raise other_contract(f"version {contract.version}", f"version {version}", folder)
    number = {file.fingerprint: number for number, file in enumerate(identity.inputs)}
    receipts = sorted(
        iterate_receipts(folder),
        key=lambda r: (number.get(r.input_fingerprint, len(number)), r.first_row, r.chunk_id),
    )
    parts, checker = [], PartCheck(contract)
    for receipt in receipts:
        if receipt.catalog_part:
            parts.append(folder / receipt.catalog_part)
            checker.check(parts[-1], receipt.rows_written)
    return CatalogScan(identity, tuple(receipts), tuple(parts))


class ScanCache:
    """The scan of a run folder, repeated only when a file that it read has changed.

    Parameters
    ----------
    folder
        The run folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._scan: CatalogScan | None = None
        self._files: list[tuple[str, int, int, int]] = []

    def current(self) -> CatalogScan:
        """Return the scan of the folder as it is now; raises as :func:`scan_catalog`."""
        # Listed before they are read: a change in between is noticed the next time.
        files = [*self._listed(".", RUN_FILE), *self._listed(RECEIPTS), *self._listed(CATALOG)]
        if self._scan is None or files != self._files:
            self._scan, self._files = scan_catalog(self.folder), files
        return self._scan

    def _listed(self, subfolder: str, name: str = "") -> Iterator[tuple[str, int, int, int]]:
        """Yield name, inode, size and time of change of files."""
        with suppress(OSError):
            for entry in os.scandir(self.folder / subfolder):
                if not name or entry.name == name:
                    stat = entry.stat()
                    yield entry.name, stat.st_ino, stat.st_size, stat.st_ctime_ns


def open_rows(
    folder: Path,
    columns: Sequence[str] | None = None,
    where: str | None = None,
    progress: Progress | None = None,
) -> Rows:
    """Select rows and columns of a run's catalog.

    Parameters
    ----------
    folder
        The run folder.
    columns
        Which columns, in which order; all of the contract by default.
    where
        Which stars: a condition as in :mod:`catalogproc.export.where`.
    progress
        Called by :meth:`Rows.stream`.

    Raises
    ------
    JobError
        A column is named twice, or the condition cannot be parsed.
    ContractError
        No such column, or the catalog's contract has another version.
    ResumeError
        The folder holds no run.
    VerifyError
        A part that a receipt names is missing or has other rows than it says.
    """
    return scan_catalog(Path(folder)).rows(columns, where, progress)


def _selected(contract: Contract, columns: Sequence[str] | None) -> Contract:
    if columns is None:
        return contract
    repeated = [name for name, count in Counter(columns).items() if count > 1]
    if repeated or not columns:
        raise JobError("each column must be named once", found=repeated or "none", where="columns")
    return replace(contract, columns=tuple(contract[name] for name in columns))


def _facts(
    identity: RunIdentity, receipts: Sequence[Receipt], condition: Condition | None
) -> tuple[Fact, ...]:
    end = max((receipt.finished for receipt in receipts), default="")[:19]
    read = sum(receipt.rows_read for receipt in receipts)
    rejected = sum(receipt.rows_rejected for receipt in receipts)
    job, model = (str(part.get("name", "")) for part in (identity.job, identity.model))
    release = identity.data_release
    writer = f"catalogproc {versions()['catalogproc']}"
    facts = [
        Fact("ORIGIN", "origin", writer, "software that wrote this file"),
        Fact("DATE", "date", end, "UTC, end of the run"),
        Fact("CONTRACT", "contract", CATALOG, "table contract"),
        Fact("CONTVERS", "contract_version", identity.contracts[CATALOG], "its version"),
        Fact("RUNHASH", "run_hash", identity.hash, "SHA-256 of job, model and input"),
        Fact("JOB", "job", job, "job that was run"),
        Fact("JOBHASH", "job_hash", identity.job_hash, "its SHA-256"),
        Fact("MODEL", "model", model, "model that was used"),
        Fact("MODLHASH", "model_hash", identity.model_hash, "its SHA-256"),
        Fact("RELEASE", "release", release.name, "Gaia data release"),
        Fact("RELTITLE", "release_title", release.title, "its title"),
        Fact("REFEPOCH", "release_epoch", release.epoch, "reference epoch of positions"),
        Fact("RELHASH", "release_hash", release.hash, "SHA-256 of its declaration"),
        Fact("NFILES", "input_files", len(identity.inputs), "input files"),
        Fact("NREAD", "rows_read", read, "rows read from them"),
        Fact("NREJECT", "rows_rejected", rejected, "of these, rejected rows"),
        Fact("REFERENC", "references", REFERENCES, "method"),
    ]
    counts = [file.rows for file in identity.inputs if file.rows is not None]
    missing = sum(counts) - read if len(counts) == len(identity.inputs) else 0
    if missing:
        facts.append(Fact("NMISSING", "rows_missing", missing, "input rows of failed chunks"))
    if release.bridge is not None:
        bridge, pairs = release.bridge.sha256, release.bridge.pairs
        facts.append(Fact("BRIDGE", "release_bridge", bridge, "map that read the spectra"))
        facts.append(Fact("NPAIRS", "bridge_pairs", pairs, "stars that it was learned from"))
    if condition is not None:
        facts.append(Fact("WHERE", "where", condition.text, "condition on the rows"))
    return tuple(facts)
