"""A finished catalog as one file that TOPCAT, STILTS, Astropy and others open."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from catalogproc.catalog.files import WholeFile
from catalogproc.catalog.fits import write_fits
from catalogproc.catalog.identity import CATALOG, RunIdentity, read_identity
from catalogproc.catalog.provenance import REFERENCES, versions
from catalogproc.catalog.receipts import Receipt, iterate_receipts
from catalogproc.catalog.records import string_widths
from catalogproc.catalog.votable import write_votable
from catalogproc.catalog.writer import TableWriter
from catalogproc.contract import Contract, load_contract
from catalogproc.errors import ContractError, JobError, VerifyError

BATCH = 65_536


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
    """The rows of a finished catalog, some of its columns, in the order of the input.

    Attributes
    ----------
    contract
        The columns that are wanted.
    parts
        The catalog's parts.
    facts
        What the file should say of where it comes from.
    """

    contract: Contract
    parts: tuple[Path, ...]
    facts: tuple[Fact, ...]

    @cached_property
    def words(self) -> dict[str, str]:
        """The facts as text by name."""
        return {fact.name: str(fact.value) for fact in self.facts}

    def batches(self, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
        """The rows in batches of at most :data:`BATCH`, read one after the other."""
        names = list(self.contract.names if columns is None else columns)
        for part in self.parts:
            try:
                with pq.ParquetFile(part) as file:
                    for batch in file.iter_batches(BATCH, columns=names):
                        yield batch.select(names)
            except (OSError, pa.ArrowException) as error:
                raise _unreadable(part, error) from None

    @cached_property
    def count(self) -> int:
        return sum(pq.read_metadata(part).num_rows for part in self.parts)

    @cached_property
    def widths(self) -> dict[str, int]:
        """The longest string of each string column, in bytes: these columns are read twice."""
        strings = [column.name for column in self.contract.columns if column.type == "string"]
        return string_widths(self.contract, self.batches(strings) if strings else ())


def export(
    folder: Path,
    format: str,
    output: Path,
    *,
    columns: Sequence[str] | None = None,
    overwrite: bool = False,
) -> int:
    """Write a catalog as one file, whole or not at all; the number of rows.

    Memory holds one batch of rows, however large the catalog. source_id and the flags keep
    every bit; units, UCDs, descriptions and the run's hashes are in the file.

    Parameters
    ----------
    folder
        The output folder of a run.
    format
        ``fits`` (binary table), ``votable`` (1.4, BINARY2) or ``parquet`` (with VOParquet's
        metadata).
    output
        The file.
    columns
        Which columns, in which order; all of the contract by default.
    overwrite
        Whether a file of that name may be replaced.

    Raises
    ------
    JobError
        No such format, or a column is named twice.
    ContractError
        No such column, or the catalog's contract has another version.
    ResumeError
        The folder holds no run.
    VerifyError
        A part that a receipt names is missing or has other rows than it says.
    CatalogprocError
        The file exists already, or cannot be written.
    """
    if format not in FORMATS:
        raise JobError("no such format", wanted=", ".join(FORMATS), found=format, where="--format")
    rows = open_rows(Path(folder), columns)
    FORMATS[format](rows, Path(output), overwrite)
    return rows.count


def open_rows(folder: Path, columns: Sequence[str] | None = None) -> Rows:
    """The rows of a run's catalog, to be read in order. Raises as :func:`export` does."""
    identity = read_identity(folder)
    place = {file.fingerprint: number for number, file in enumerate(identity.inputs)}
    receipts = sorted(
        iterate_receipts(folder),
        key=lambda r: (place.get(r.input_fingerprint, len(place)), r.first_row, r.chunk_id),
    )
    known, stated = load_contract(CATALOG), identity.contracts.get(CATALOG)
    if stated != known.version:
        raise ContractError(
            "this catalog was written with another version of its contract",
            wanted=known.version, found=stated, where=folder,
            todo="use the catalogproc that wrote it: summary.json names its version",
        )  # fmt: skip
    contract = _selected(known, columns)
    parts = tuple(_part(folder, receipt) for receipt in receipts if receipt.catalog_part)
    return Rows(contract, parts, _facts(identity, receipts))


def _selected(contract: Contract, columns: Sequence[str] | None) -> Contract:
    if columns is None:
        return contract
    twice = [name for name, count in Counter(columns).items() if count > 1]
    if twice or not columns:
        raise JobError("each column must be named once", found=twice or "none", where="columns")
    return replace(contract, columns=tuple(contract[name] for name in columns))


def _part(folder: Path, receipt: Receipt) -> Path:
    path = folder / receipt.catalog_part
    try:
        rows = pq.read_metadata(path).num_rows
    except (OSError, pa.ArrowException) as error:
        raise _unreadable(path, error) from None
    if rows != receipt.rows_written:
        raise VerifyError(
            "a part of the catalog has other rows than its receipt says",
            wanted=receipt.rows_written, found=rows, where=path,
            todo="give the run's command again: the chunk is done anew",
        )  # fmt: skip
    return path


def _unreadable(part: Path, error: Exception) -> VerifyError:
    return VerifyError(
        "a part of the catalog cannot be read",
        found=error,
        where=part,
        todo="give the run's command again: the chunk is done anew",
    )


def _facts(identity: RunIdentity, receipts: Sequence[Receipt]) -> tuple[Fact, ...]:
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
    return tuple(facts)


def _to_fits(rows: Rows, output: Path, overwrite: bool) -> None:
    with WholeFile(output, overwrite=overwrite) as file:
        write_fits(
            file,
            rows.contract,
            rows.batches(),
            widths=rows.widths,
            rows=rows.count,
            cards={fact.keyword: (fact.value, fact.meaning) for fact in rows.facts},
        )


def _to_votable(rows: Rows, output: Path, overwrite: bool) -> None:
    with WholeFile(output, overwrite=overwrite) as file:
        write_votable(
            file,
            rows.contract,
            rows.batches(),
            widths=rows.widths,
            rows=rows.count,
            infos=rows.words,
        )


def _to_parquet(rows: Rows, output: Path, overwrite: bool) -> None:
    with TableWriter(output, rows.contract, rows.words, overwrite=overwrite) as writer:
        for batch in rows.batches():
            writer.write(pa.Table.from_batches([batch]))


Writer = Callable[[Rows, Path, bool], None]
FORMATS: dict[str, Writer] = {"fits": _to_fits, "votable": _to_votable, "parquet": _to_parquet}
"""How each format is written; a new one is a function and a line here."""
