"""Receipts: the proof, a file a chunk, that the chunk is done.

``receipts/<chunk>.json`` is written last, when the chunk's parts stand on the disk. Nothing
else is state: what remains to be done follows from the receipts alone.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from datetime import datetime
from pathlib import Path
from typing import Self

import pyarrow as pa
import pyarrow.parquet as pq

from catalogproc.errors import InputError
from catalogproc.io.atomic import as_json, is_temporary, write_atomic
from catalogproc.rundir.manifest import (
    CATALOG,
    RECEIPTS,
    REJECTED,
    InputFile,
    RunIdentity,
    claim,
    compare,
    read_identity,
)

__all__ = [
    "InputFile",
    "Receipt",
    "RunIdentity",
    "claim",
    "compare",
    "is_valid",
    "iterate_receipts",
    "read_identity",
    "read_receipt",
    "read_receipts",
    "receipt_files",
    "write_receipt",
]


@dataclass(frozen=True)
class Receipt:
    """The proof that a chunk is done. Its fields are the columns of schemas/receipt.toml;
    those that the contract declares as JSON are mappings here, and objects in the file."""

    chunk_id: str
    file: str
    first_row: int
    rows_read: int
    rows_written: int
    rows_rejected: int
    rejected_by_reason: Mapping[str, int]
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

    @classmethod
    def from_dict(cls, content: object) -> Self:
        """Raises ValueError, saying which field is wrong and how."""
        if not isinstance(content, dict):
            raise ValueError("not a JSON object")
        for name, wanted in _TYPES.items():
            if name not in content:
                raise ValueError(f"field {name} is missing")
            _check_value(name, content[name], wanted)
        mark = content["input_fingerprint"]
        if mark and not (mark.isascii() and mark.isalnum()):
            raise ValueError(f"field input_fingerprint is no hash: {mark[:SHOWN]!r}")
        if unknown := sorted(set(content) - set(_TYPES)):
            raise ValueError(f"unknown fields {str(unknown)[:SHOWN]}")
        for name in ("started", "finished"):
            if datetime.fromisoformat(content[name]).tzinfo is None:
                raise ValueError(f"field {name} has no time zone")
        for name, folder in (("catalog_part", CATALOG), ("rejected_part", REJECTED)):
            if content[name] and not re.fullmatch(rf"{folder}/[^/]+\.parquet", content[name]):
                raise ValueError(f"field {name} names no part: {content[name][:SHOWN]!r}")
        return cls(**content)

    def parts(self) -> tuple[tuple[str, str, int], ...]:
        """(path, SHA-256, rows) of each part that the chunk wrote."""
        both = (
            (self.catalog_part, self.catalog_sha256, self.rows_written),
            (self.rejected_part, self.rejected_sha256, self.rows_rejected),
        )
        return tuple(part for part in both if part[0])


SHOWN = 80
"""Characters of a wrong value that a message shows."""
_TYPES = {item.name: str(item.type) for item in fields(Receipt)}


def _check_value(name: str, value: object, wanted: str) -> None:
    """Raise ValueError unless a JSON value is of a type as the dataclass writes it."""
    if wanted.startswith("Mapping"):
        if type(value) is not dict:
            raise ValueError(f"field {name} is {repr(value)[:SHOWN]}, not an object")
        inner = wanted.removeprefix("Mapping[str, ").removesuffix("]")
        for held in value.values():
            _check_value(name, held, inner)
        return
    kinds = {"str": (str,), "int": (int,), "float": (float, int)}[wanted]
    if type(value) not in kinds or (isinstance(value, int | float) and not 0 <= value < math.inf):
        raise ValueError(f"field {name} holds {repr(value)[:SHOWN]}, wanted {wanted}")


def write_receipt(folder: Path, receipt: Receipt) -> Path:
    """Write receipts/<chunk>.json, whole or not at all. Raises CatalogprocError."""
    path = Path(folder) / RECEIPTS / f"{receipt.chunk_id}.json"
    write_atomic(path, as_json(asdict(receipt)))
    return path


def read_receipt(path: Path) -> Receipt:
    """One receipt. Raises InputError when it is no receipt, or another chunk's."""
    try:
        receipt = Receipt.from_dict(json.loads(path.read_bytes()))
        if receipt.chunk_id != path.stem:
            raise ValueError(f"it is the receipt of chunk {receipt.chunk_id[:SHOWN]}")
    except (ValueError, OSError, RecursionError) as error:
        raise InputError(
            "a receipt cannot be read", found=error, where=path,
            advice="run the same command again: the chunk is done anew",
        ) from None  # fmt: skip
    return receipt


def receipt_files(folder: Path) -> list[Path]:
    """Every receipt of an output folder, readable or not, sorted by name."""
    files = (Path(folder) / RECEIPTS).glob("*.json")
    return sorted(path for path in files if not is_temporary(path))


def iterate_receipts(folder: Path) -> Iterator[Receipt]:
    """The readable receipts. One that is garbage counts as absent: its chunk is done anew."""
    for path in receipt_files(folder):
        try:
            yield read_receipt(path)
        except InputError:
            continue


def read_receipts(folder: Path) -> dict[str, Receipt]:
    """The readable receipts by chunk."""
    return {receipt.chunk_id: receipt for receipt in iterate_receipts(folder)}


def is_valid(
    receipt: Receipt, folder: Path, job_hash: str, bundle_hash: str, fingerprint: str
) -> bool:
    """Whether the chunk need not be done again: same job, model and input, parts in place.

    Of each part the footer is read and its rows are counted, which finds a missing and a
    truncated file; :func:`catalogproc.rundir.verify.verify` reads every byte.
    """
    of_this_run = (receipt.job_hash, receipt.bundle_hash, receipt.input_fingerprint) == (
        job_hash,
        bundle_hash,
        fingerprint,
    )
    counted = receipt.rows_read == receipt.rows_written + receipt.rows_rejected
    named = bool(receipt.catalog_part) or not receipt.rows_written
    named = named and (bool(receipt.rejected_part) or not receipt.rows_rejected)
    return (
        of_this_run
        and counted
        and named
        and all(_rows_in(Path(folder) / path) == rows for path, _, rows in receipt.parts())
    )


def _rows_in(path: Path) -> int | None:
    try:
        with pq.ParquetFile(path) as file:
            return int(file.metadata.num_rows)
    except (OSError, pa.ArrowException):
        return None
