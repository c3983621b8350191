"""What every format gives: a table that streams, and errors in the reader's words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import pyarrow as pa

from catalogproc.errors import CatalogprocError, InputError


@dataclass(frozen=True)
class Rows:
    """Consecutive rows of a file.

    Attributes
    ----------
    first
        Number of the first of them in the file, counted from 0.
    columns
        The columns asked for, in the order asked for, of whatever type the file has.
    fault
        Null where a row is whole, else what is wrong with it (string); None where all are.
    """

    first: int
    columns: pa.RecordBatch
    fault: pa.Array | None = None


class Table(Protocol):
    """A table in a file. Nothing but its head is read before ``batches`` is drawn from."""

    @property
    def path(self) -> Path: ...

    @property
    def kind(self) -> str:
        """The format, in words."""

    @property
    def types(self) -> Mapping[str, pa.DataType]:
        """Every column's type as the file has it; text formats give ``binary``."""

    @property
    def rows(self) -> int | None:
        """Number of rows, None where only reading tells."""

    def batches(
        self, names: Sequence[str], *, batch_rows: int, first: int = 0, stop: int | None = None
    ) -> Iterator[Rows]:
        """Rows ``first`` to ``stop`` in order, at most ``batch_rows`` at a time."""


@contextmanager
def reading(path: Path, kind: str) -> Iterator[None]:
    """Turn whatever a library says of a broken file into an InputError.

    Corrupt bytes make pyarrow, astropy, zlib, expat and struct raise a few dozen kinds of
    exception between them, so that no list of kinds would be complete: all are caught here,
    and kept as the cause.
    """
    try:
        yield
    except CatalogprocError:
        raise
    except Exception as error:
        said = " ".join(str(error).split())[:300]
        raise InputError(
            f"the file cannot be read as {kind}",
            wanted=f"a whole {kind} file",
            found=f"{type(error).__name__}: {said}" if said else type(error).__name__,
            where=path,
            todo="fetch the file again, or leave it out",
        ) from error


def unique_names(names: Sequence[str], path: Path) -> tuple[str, ...]:
    """The names as a tuple. Raises InputError where one stands twice."""
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise InputError("a column name stands twice", found=name, where=path)
        seen.add(name)
    return tuple(names)


def check_regular(path: Path) -> None:
    """Raise InputError unless the path is a regular file with something in it."""
    try:
        if path.is_dir():
            raise InputError("a folder, not a file", wanted="a file", found="a folder", where=path)
        if not path.is_file():
            found = "something that is not a regular file" if path.exists() else "nothing"
            raise InputError("the file is not there", wanted="a file", found=found, where=path)
        if path.stat().st_size == 0:
            raise InputError("the file is empty", wanted="a table", found="0 bytes", where=path)
    except OSError as error:
        raise InputError("the file cannot be reached", found=error, where=path) from error
