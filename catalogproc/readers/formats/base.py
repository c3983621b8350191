"""What every format provides: a table that streams, and errors in the user's words."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import pyarrow as pa

from catalogproc.errors import CatalogprocError, InputError
from catalogproc.io.remote_file import File
from catalogproc.readers.formats.masks import mask_columns, masked


@dataclass(frozen=True)
class Rows:
    """Consecutive rows of a file.

    Attributes
    ----------
    first
        Number of the first of them in the file, from 0.
    columns
        The requested columns in the requested order, of whatever type the file has.
    fault
        What is wrong with each row (string), null where nothing is; None where no row has a
        fault.
    """

    first: int
    columns: pa.RecordBatch
    fault: pa.Array | None = None


class Table(ABC):
    """A table in a file, streamed. Only its head is read before ``batches`` is iterated.

    A format implements ``stored_types`` and ``stored_batches``, the columns as the file stores
    them. ``types`` and ``batches`` are what everybody else uses: there mask columns are gone
    and what they mask is null.

    Attributes
    ----------
    path
        The file.
    kind
        The name of the format.
    rows
        Number of rows; None where only reading the whole file tells.
    units
        The units that the file states, by column.
    unread
        What the file holds besides, in words, that is not read.
    """

    path: File
    kind: str
    units: Mapping[str, str]
    unread: tuple[str, ...] = ()

    if TYPE_CHECKING:  # at run time a dataclass would take the property for a default

        @property
        def rows(self) -> int | None: ...

    @property
    @abstractmethod
    def stored_types(self) -> Mapping[str, pa.DataType]:
        """Types of all columns of the file; text formats give ``binary``."""

    @abstractmethod
    def stored_batches(
        self, names: Sequence[str], *, batch_rows: int, first: int = 0, stop: int | None = None
    ) -> Iterator[Rows]:
        """Yield rows with columns of the file, mask columns included; see :meth:`batches`."""

    @cached_property
    def masks(self) -> Mapping[str, str]:
        """The column that masks each masked column."""
        return mask_columns(self.stored_types)

    @cached_property
    def types(self) -> Mapping[str, pa.DataType]:
        """Types of the columns of the table, without its mask columns."""
        hidden = set(self.masks.values())
        return {name: kind for name, kind in self.stored_types.items() if name not in hidden}

    def batches(
        self, names: Sequence[str], *, batch_rows: int, first: int = 0, stop: int | None = None
    ) -> Iterator[Rows]:
        """Yield rows in the file's order.

        Parameters
        ----------
        names
            The columns, of those in ``types``.
        batch_rows
            Largest number of rows at a time.
        first, stop
            Number of the first row to read and of the first row not to read, from 0.

        Raises
        ------
        InputError
            The file is damaged.
        """
        stored = list(dict.fromkeys([*names, *(self.masks[n] for n in names if n in self.masks)]))
        for part in self.stored_batches(stored, batch_rows=batch_rows, first=first, stop=stop):
            yield part if len(stored) == len(names) else self._without_masks(part, names)

    def _without_masks(self, part: Rows, names: Sequence[str]) -> Rows:
        held = dict(zip(part.columns.schema.names, part.columns.columns, strict=True))
        with reading(self.path, self.kind):
            columns = [
                masked(held[name], held[self.masks[name]]) if name in self.masks else held[name]
                for name in names
            ]
        return Rows(part.first, pa.RecordBatch.from_arrays(columns, names=list(names)), part.fault)


@contextmanager
def reading(path: File, kind: str) -> Iterator[None]:
    """Turn any exception that a library raises on a broken file into an InputError.

    Corrupt bytes make pyarrow, astropy, zlib, expat and struct raise dozens of kinds of
    exceptions, so that no list of kinds would be complete: all are caught here, and kept as the
    cause.

    Parameters
    ----------
    path
        The file, for the message.
    kind
        The name of the format, for the message.
    """
    try:
        yield
    except CatalogprocError:
        raise
    except Exception as error:
        message = " ".join(str(error).split())[:300]
        raise InputError(
            f"the file cannot be read as {kind}",
            wanted=f"a whole {kind} file",
            found=f"{type(error).__name__}: {message}" if message else type(error).__name__,
            where=path,
            advice="fetch the file again, or leave it out",
        ) from error


def unique_names(names: Sequence[str], path: File) -> tuple[str, ...]:
    """Return the column names as a tuple. Raises InputError where a name is used twice."""
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise InputError(
                "two columns have the same name", wanted="each name once", found=name, where=path
            )
        seen.add(name)
    return tuple(names)


def check_regular(path: File) -> None:
    """Raise InputError unless the path is a regular file that is not empty."""
    try:
        if path.is_dir():
            raise InputError("a folder, not a file", wanted="a file", found="a folder", where=path)
        if not path.is_file():
            found = "something that is not a regular file" if path.exists() else "nothing"
            raise InputError("the file is not there", wanted="a file", found=found, where=path)
        if path.stat().st_size == 0:
            raise InputError(
                "the file is empty", wanted="a table", found="0 bytes", where=path,
                advice="fetch the file again, or leave it out",
            )  # fmt: skip
    except OSError as error:
        raise InputError("the file cannot be reached", found=error, where=path) from error
