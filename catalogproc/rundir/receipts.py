"""Receipts: one file per chunk states that the chunk is done, and what it wrote.

``receipts/<chunk>.json`` is written last, after the chunk's parts are on the disk. There is no
other state: the chunks that remain follow from the receipts alone.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import datetime
from pathlib import Path
from typing import Any, Self

import pyarrow as pa
import pyarrow.parquet as pq

from catalogproc.errors import InputError
from catalogproc.io.atomic import as_json, write_atomic
from catalogproc.io.temporary_files import is_temporary
from catalogproc.rundir.manifest import CATALOG, POSTERIOR, RECEIPTS, REJECTED


@dataclass(frozen=True)
class FileRows:
    """The rows of one input file in a chunk.

    Attributes
    ----------
    file, fingerprint
        The input file.
    first_row
        First row of the chunk in the file, counted from 0.
    rows_read, rows_written
        Number of rows that were read, and of rows in the catalog's part; the others are in the
        rejected part.
    """

    file: str
    fingerprint: str
    first_row: int
    rows_read: int
    rows_written: int


@dataclass(frozen=True)
class Receipt:
    """The record of a finished chunk.

    Its fields are the columns of schemas/receipt.toml; those that the contract declares as
    JSON are mappings or tuples here, and objects or arrays in the file. ``file``,
    ``input_fingerprint`` and ``first_row`` are those of the first file; ``files`` is empty
    for a chunk of one file.
    """

    chunk_id: str
    file: str
    first_row: int
    rows_read: int
    rows_written: int
    rows_rejected: int
    rejected_by_reason: Mapping[str, int]
    rows_matched: int
    auxiliary: Mapping[str, Mapping[str, int]]
    zero_point_differences: Mapping[str, int]
    job_hash: str
    bundle_hash: str
    input_fingerprint: str
    input_sha256: str
    catalog_part: str
    catalog_sha256: str
    rejected_part: str
    rejected_sha256: str
    device: str
    worker: str
    host: str
    versions: Mapping[str, str]
    started: str
    finished: str
    seconds: float
    stage_seconds: Mapping[str, float]
    files: tuple[FileRows, ...] = ()
    posterior_part: str = ""
    posterior_sha256: str = ""
    memory_halvings: int = 0
    precision: str = "float32"

    @classmethod
    def from_dict(cls, content: Any) -> Self:
        """Return the receipt that a JSON document holds.

        Parameters
        ----------
        content
            The document.

        Raises
        ------
        ValueError
            It is no receipt; the message names the field.
        """
        if not isinstance(content, dict):
            raise ValueError("not a JSON object")
        # Receipts of runs that were begun when a chunk had one file have no list.
        later = {"posterior_part": "", "posterior_sha256": "", "memory_halvings": 0}
        later["precision"] = "float32"
        content = {"files": [], **later, **content}
        _check_values(content, _TYPES)
        _check_hash("input_fingerprint", content["input_fingerprint"])
        content["files"] = tuple(_file_rows(item) for item in content["files"])
        if unknown := sorted(set(content) - set(_TYPES)):
            raise ValueError(f"unknown fields {str(unknown)[:SHOWN]}")
        for name in ("started", "finished"):
            if datetime.fromisoformat(content[name]).tzinfo is None:
                raise ValueError(f"field {name} has no time zone")
        for name, folder in (
            ("catalog_part", CATALOG),
            ("rejected_part", REJECTED),
            ("posterior_part", POSTERIOR),
        ):
            if content[name] and not re.fullmatch(rf"{folder}/[^/]+\.parquet", content[name]):
                raise ValueError(f"field {name} names no part: {content[name][:SHOWN]!r}")
        receipt = cls(**content)
        receipt._check_files()
        return receipt

    def _check_files(self) -> None:
        """Raise ValueError unless the list of files agrees with the other fields."""
        first = self.each_file()[0]
        for name, found, wanted in (
            ("file", first.file, self.file),
            ("input_fingerprint", first.fingerprint, self.input_fingerprint),
            ("first_row", first.first_row, self.first_row),
            ("rows_read", sum(one.rows_read for one in self.each_file()), self.rows_read),
            ("rows_written", sum(one.rows_written for one in self.each_file()), self.rows_written),
        ):
            if found != wanted:
                raise ValueError(f"field {name} is not that of its files: {str(wanted)[:SHOWN]!r}")

    def each_file(self) -> tuple[FileRows, ...]:
        """Return the rows of each input file, in the order in which they are in the parts."""
        return self.files or (
            FileRows(
                self.file,
                self.input_fingerprint,
                self.first_row,
                self.rows_read,
                self.rows_written,
            ),
        )

    def parts(self) -> tuple[tuple[str, str, int], ...]:
        """Return path, SHA-256 and number of rows of each part that the chunk wrote."""
        every = (
            (self.catalog_part, self.catalog_sha256, self.rows_written),
            (self.rejected_part, self.rejected_sha256, self.rows_rejected),
            (self.posterior_part, self.posterior_sha256, self.rows_written),
        )
        return tuple(part for part in every if part[0])


SHOWN = 80
"""Number of characters of a wrong value that a message shows."""
_TYPES = {item.name: str(item.type) for item in fields(Receipt)}
_FILE_TYPES = {item.name: str(item.type) for item in fields(FileRows)}


def _file_rows(content: Any) -> FileRows:
    """Return the rows of a file that an item of ``files`` states; ValueError if it states none."""
    if type(content) is not dict or content.keys() != _FILE_TYPES.keys():
        raise ValueError(f"field files has an entry that is no file: {repr(content)[:SHOWN]}")
    _check_values(content, _FILE_TYPES)
    _check_hash("fingerprint", content["fingerprint"])
    return FileRows(**content)


def _check_values(content: Mapping[str, Any], types: Mapping[str, str]) -> None:
    for name, type_name in types.items():
        if name not in content:
            raise ValueError(f"field {name} is missing")
        _check_value(name, content[name], type_name)


def _check_hash(name: str, value: str) -> None:
    if value and not (value.isascii() and value.isalnum()):
        raise ValueError(f"field {name} is no hash: {value[:SHOWN]!r}")


def _check_value(name: str, value: object, type_name: str) -> None:
    """Raise ValueError unless a JSON value has a type of the dataclass's annotations."""
    if type_name.startswith("tuple"):
        if type(value) is not list:
            raise ValueError(f"field {name} is {repr(value)[:SHOWN]}, not an array")
        return
    if type_name.startswith("Mapping"):
        if type(value) is not dict:
            raise ValueError(f"field {name} is {repr(value)[:SHOWN]}, not an object")
        inner = type_name.removeprefix("Mapping[str, ").removesuffix("]")
        for item in value.values():
            _check_value(name, item, inner)
        return
    types = {"str": (str,), "int": (int,), "float": (float, int)}[type_name]
    if type(value) not in types or (isinstance(value, int | float) and not 0 <= value < math.inf):
        raise ValueError(f"field {name} is {repr(value)[:SHOWN]}, wanted {type_name}")


def write_receipt(folder: Path, receipt: Receipt) -> Path:
    """Write a receipt atomically.

    Parameters
    ----------
    folder
        The output folder of a run.
    receipt
        The receipt.

    Returns
    -------
    Path
        ``receipts/<chunk>.json`` in the folder.

    Raises
    ------
    CatalogprocError
        The file cannot be written.
    """
    path = Path(folder) / RECEIPTS / f"{receipt.chunk_id}.json"
    write_atomic(path, as_json(asdict(receipt)))
    return path


def read_receipt(path: Path) -> Receipt:
    """Return a receipt.

    Parameters
    ----------
    path
        Its file.

    Raises
    ------
    InputError
        It is no receipt, or that of another chunk.
    """
    try:
        receipt = Receipt.from_dict(json.loads(path.read_bytes()))
        if receipt.chunk_id != path.stem:
            raise ValueError(f"it is the receipt of chunk {receipt.chunk_id[:SHOWN]}")
    except (ValueError, OSError, RecursionError) as error:
        raise InputError(
            "a receipt cannot be read", found=error, where=path,
            advice="run the same command again: the chunk is processed again",
        ) from None  # fmt: skip
    return receipt


def receipt_files(folder: Path) -> list[Path]:
    """Return the files of all receipts of a run, readable or not, sorted by name.

    Parameters
    ----------
    folder
        The output folder of a run.
    """
    files = (Path(folder) / RECEIPTS).glob("*.json")
    return sorted(path for path in files if not is_temporary(path))


def iterate_receipts(folder: Path) -> Iterator[Receipt]:
    """Yield the readable receipts of a run; the chunk of another one is processed again.

    Parameters
    ----------
    folder
        The output folder of a run.
    """
    for path in receipt_files(folder):
        try:
            yield read_receipt(path)
        except InputError:
            continue


def read_receipts(folder: Path) -> dict[str, Receipt]:
    """Return the readable receipts of a run by chunk.

    Parameters
    ----------
    folder
        The output folder of a run.
    """
    return {receipt.chunk_id: receipt for receipt in iterate_receipts(folder)}


def is_valid(
    receipt: Receipt, folder: Path, job_hash: str, bundle_hash: str, fingerprints: Sequence[str]
) -> bool:
    """Return whether a chunk is done: same job, model and input, and its parts exist.

    Only the footer of each part is read, which finds missing and truncated files;
    :func:`catalogproc.rundir.verify.verify` reads every byte.

    Parameters
    ----------
    receipt
        The chunk's receipt.
    folder
        The output folder of the run.
    job_hash, bundle_hash, fingerprints
        Hashes of the job, the model and each of the chunk's input files.
    """
    of_this_run = (receipt.job_hash, receipt.bundle_hash) == (job_hash, bundle_hash)
    of_this_run &= [one.fingerprint for one in receipt.each_file()] == list(fingerprints)
    counts_agree = receipt.rows_read == receipt.rows_written + receipt.rows_rejected
    has_parts = bool(receipt.catalog_part) or not receipt.rows_written
    has_parts = has_parts and (bool(receipt.rejected_part) or not receipt.rows_rejected)
    return (
        of_this_run
        and counts_agree
        and has_parts
        and all(_rows_in(Path(folder) / path) == rows for path, _, rows in receipt.parts())
    )


def _rows_in(path: Path) -> int | None:
    try:
        with pq.ParquetFile(path) as file:
            return int(file.metadata.num_rows)
    except (OSError, pa.ArrowException):
        return None
