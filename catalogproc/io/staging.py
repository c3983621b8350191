"""Files that are there whole or not at all, and Parquet written in bounded pieces."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from catalogproc.errors import CatalogprocError


@contextmanager
def scratch_folder(folder: Path, stem: str) -> Iterator[Path]:
    """A hidden folder inside of ``folder`` that is gone afterwards, whatever happens.

    What is to stay is moved out of it by :func:`settle`: both are on one file system, so
    that a move is one step.

    Raises
    ------
    CatalogprocError
        The folder cannot be written to.
    """
    scratch = folder / f".{stem}-{os.getpid()}-{secrets.token_hex(4)}.tmp"
    try:
        scratch.mkdir(parents=True)
        yield scratch
    except OSError as error:
        raise CatalogprocError(
            "the output cannot be written",
            found=error,
            where=folder,
            todo="see to its permissions and to the room on that disk, then run this again",
        ) from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def settle(path: Path, target: Path) -> Path:
    """Give a finished file or folder its place, once its bytes are on the disk."""
    for file in sorted(path.iterdir()) if path.is_dir() else [path]:
        _sync(file)
    target.parent.mkdir(parents=True, exist_ok=True)
    os.replace(path, target)
    _sync(target.parent)
    return target


def parquet_writer(path: Path, schema: pa.Schema) -> pq.ParquetWriter:
    """A writer for columns of numbers: split into byte streams, they compress best."""
    floats = [
        f"{field.name}.list.element" if pa.types.is_list(field.type) else field.name
        for field in schema
        if pa.types.is_floating(getattr(field.type, "value_type", field.type))
    ]
    return pq.ParquetWriter(
        path,
        schema,
        compression="zstd",
        use_dictionary=[field.name for field in schema if pa.types.is_string(field.type)],
        column_encoding=dict.fromkeys(floats, "BYTE_STREAM_SPLIT"),
        write_page_checksum=True,
    )


def nearest(folder: Path) -> Path:
    """The folder, or the nearest above it that is there: its disk and its rights count."""
    return next(one for one in (folder, *folder.absolute().parents) if one.exists())


def _sync(path: Path) -> None:
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)
