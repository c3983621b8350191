"""The rows of a finished catalog, some columns, some stars, in the order of the input."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from catalogproc.contract import Contract, load_contract
from catalogproc.errors import ContractError, JobError, VerifyError
from catalogproc.export.binary_rows import string_widths
from catalogproc.export.where import Condition, parse
from catalogproc.rundir.manifest import CATALOG, RunIdentity, read_identity
from catalogproc.rundir.provenance import REFERENCES, versions
from catalogproc.rundir.receipts import Receipt, iterate_receipts

BATCH = 65_536

Progress = Callable[[int, int | None, str], None]


@dataclass(frozen=True)
class Fact:
    """Something that a file says of where it comes from.

    ``keyword`` is its name in FITS, ``name`` elsewhere.
    """

    keyword: str
    name: str
    value: str | int
    meaning: str


@dataclass(frozen=True)
class Rows:
    """Rows of a finished catalog, some of its columns, in the order of the input.

    Attributes
    ----------
    contract
        The columns that are wanted.
    parts
        The catalog's parts.
    facts
        What a file should say of where it comes from.
    condition
        Which stars are wanted; all where None.
    progress
        Called by :meth:`stream` with (rows read, rows of all parts, "").
    """

    contract: Contract
    parts: tuple[Path, ...]
    facts: tuple[Fact, ...]
    condition: Condition | None = None
    progress: Progress | None = None

    @cached_property
    def words(self) -> dict[str, str]:
        """The facts as text by name."""
        return {fact.name: str(fact.value) for fact in self.facts}

    def batches(self, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
        """The rows in batches of at most :data:`BATCH`, read one after the other."""
        for _, batch in self._read(self.contract.names if columns is None else columns):
            yield batch

    def stream(self) -> Iterator[pa.RecordBatch]:
        """All columns, as :meth:`batches` gives them, with progress."""
        done = 0
        for read, batch in self._read(self.contract.names):
            yield batch
            done += read
            if self.progress is not None:
                self.progress(done, self.total, "")

    def _read(self, columns: Sequence[str]) -> Iterator[tuple[int, pa.RecordBatch]]:
        """How many rows were read, and those of them that are wanted."""
        names, condition = list(columns), self.condition
        needed = names if condition is None else list(dict.fromkeys([*names, *condition.columns]))
        for part in self.parts:
            try:
                with pq.ParquetFile(part) as file:
                    for batch in file.iter_batches(BATCH, columns=needed):
                        kept = batch if condition is None else batch.filter(condition.expression)
                        yield batch.num_rows, kept.select(names)
            except (OSError, pa.ArrowException) as error:
                raise _unreadable(part, error) from None

    @cached_property
    def total(self) -> int:
        """Rows of all parts, wanted or not."""
        return sum(pq.read_metadata(part).num_rows for part in self.parts)

    @cached_property
    def count(self) -> int:
        """How many rows are wanted; where there is a condition its columns are read for it."""
        if self.condition is None:
            return self.total
        first = self.condition.columns[:1] or self.contract.names[:1]
        return sum(batch.num_rows for batch in self.batches(first))

    @cached_property
    def widths(self) -> dict[str, int]:
        """The longest string of each string column, in bytes: these columns are read twice."""
        strings = [column.name for column in self.contract.columns if column.type == "string"]
        return string_widths(self.contract, self.batches(strings) if strings else ())


def open_rows(
    folder: Path,
    columns: Sequence[str] | None = None,
    where: str | None = None,
    progress: Progress | None = None,
) -> Rows:
    """The rows of a run's catalog, to be read in order.

    Parameters
    ----------
    folder
        The output folder of a run.
    columns
        Which columns, in which order; all of the contract by default.
    where
        Which stars: a condition as :mod:`catalogproc.export.where` has it.
    progress
        What the stream of the rows reports to.

    Raises
    ------
    JobError
        A column is named twice, or the condition is none.
    ContractError
        No such column, or the catalog's contract has another version.
    ResumeError
        The folder holds no run.
    VerifyError
        A part that a receipt names is missing or has other rows than it says.
    """
    folder = Path(folder)
    identity = read_identity(folder)
    place = {file.fingerprint: number for number, file in enumerate(identity.inputs)}
    receipts = sorted(
        iterate_receipts(folder),
        key=lambda r: (place.get(r.input_fingerprint, len(place)), r.first_row, r.chunk_id),
    )
    known, stated = load_contract(CATALOG), identity.contracts.get(CATALOG)
    if stated != known.version:
        raise _other_contract(f"version {known.version}", f"version {stated}", folder)
    contract = _selected(known, columns)
    parts = tuple(_part(folder, receipt, known) for receipt in receipts if receipt.catalog_part)
    condition = None if where is None else parse(where, known)
    return Rows(contract, parts, _facts(identity, receipts, condition), condition, progress)


def _selected(contract: Contract, columns: Sequence[str] | None) -> Contract:
    if columns is None:
        return contract
    twice = [name for name, count in Counter(columns).items() if count > 1]
    if twice or not columns:
        raise JobError("each column must be named once", found=twice or "none", where="columns")
    return replace(contract, columns=tuple(contract[name] for name in columns))


def _other_contract(wanted: str, found: str, where: Path) -> ContractError:
    return ContractError(
        "this catalog was written with another version of its contract",
        wanted=wanted,
        found=found,
        where=where,
        advice="use the catalogproc that wrote it: summary.json names its version",
    )


def _part(folder: Path, receipt: Receipt, contract: Contract) -> Path:
    path = folder / receipt.catalog_part
    try:
        footer = pq.read_metadata(path)
    except (OSError, pa.ArrowException) as error:
        raise _unreadable(path, error) from None
    rows, names = footer.num_rows, footer.schema.names
    if names != list(contract.names):
        other = sorted(set(names) ^ set(contract.names))
        raise _other_contract("the same columns in the same order", f"other: {other}", path)
    if rows != receipt.rows_written:
        raise VerifyError(
            "a part of the catalog has other rows than its receipt says",
            wanted=receipt.rows_written, found=rows, where=path,
            advice="give the run's command again: the chunk is done anew",
        )  # fmt: skip
    return path


def _unreadable(part: Path, error: Exception) -> VerifyError:
    return VerifyError(
        "a part of the catalog cannot be read",
        found=error,
        where=part,
        advice="give the run's command again: the chunk is done anew",
    )


def _facts(
    identity: RunIdentity, receipts: Sequence[Receipt], condition: Condition | None
) -> tuple[Fact, ...]:
    end = max((receipt.finished for receipt in receipts), default="")[:19]
    read = sum(receipt.rows_read for receipt in receipts)
    rejected = sum(receipt.rows_rejected for receipt in receipts)
    job, model = (str(stated.get("name", "")) for stated in (identity.job, identity.model))
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
        Fact("NFILES", "input_files", len(identity.inputs), "input files"),
        Fact("NREAD", "rows_read", read, "rows read from them"),
        Fact("NREJECT", "rows_rejected", rejected, "of these, rows without an answer"),
        Fact("REFERENC", "references", REFERENCES, "method"),
    ]
    counts = [file.rows for file in identity.inputs if file.rows is not None]
    missing = sum(counts) - read if len(counts) == len(identity.inputs) else 0
    if missing:
        facts.append(Fact("NMISSING", "rows_missing", missing, "input rows of failed chunks"))
    if condition is not None:
        facts.append(Fact("WHERE", "where", condition.text, "only rows for which this holds"))
    return tuple(facts)
