"""Sampled spectra in tables of one row per wavelength, as tables of one row per star.

So the archive's DataLink service writes XP_SAMPLED in the structure INDIVIDUAL, one file a star
with its identifier in the file's name, and ``generate --flux`` the spectra of a model, with a
column source_id.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from catalogproc.contract import load_contract
from catalogproc.errors import InputError
from catalogproc.io.remote_file import File
from catalogproc.readers import coerce
from catalogproc.readers.column_lookup import check_identifier, find_column, named
from catalogproc.readers.formats import Rows, Table, open_table

_VALUES = ("wavelength", "flux", "flux_error")
_PIECE = 1 << 16
# Gaia's identifiers in file names: XP_SAMPLED-Gaia DR3 5853498713190525696.csv
_IDENTIFIER = re.compile(r"(?<!\d)\d{9,19}(?!\d)")


def open_spectra(path: File) -> Table:
    """Open a file of spectra as a table of one row per star.

    Parameters
    ----------
    path
        The file.

    Raises
    ------
    InputError
        The file cannot be read; or a star is not named.
    """
    table = open_table(path)
    columns = tuple(named(table, name) for name in _VALUES)
    if None in columns or not _is_long(table, str(columns[1])):
        return table
    ids = find_column(table, load_contract("xp_continuous")["source_id"])
    if ids is not None:
        check_identifier(table, ids)
    return StarRows(table, tuple(str(name) for name in columns), ids)


@dataclass(frozen=True)
class StarRows(Table):
    """A table of one row per star, from one of consecutive rows per star.

    Attributes
    ----------
    table
        The table of the file.
    columns
        Its columns of wavelength, flux and flux_error.
    identifier
        Its column of the star; None: the file's name has it.
    """

    table: Table
    columns: tuple[str, ...]
    identifier: str | None

    @property
    def path(self) -> File:  # type: ignore[override]
        return self.table.path

    @property
    def kind(self) -> str:  # type: ignore[override]
        return self.table.kind

    @property
    def rows(self) -> int | None:
        return 1 if self.identifier is None else None

    @cached_property
    def units(self) -> Mapping[str, str]:  # type: ignore[override]
        return {
            name: self.table.units.get(held, "")
            for name, held in zip(_VALUES, self.columns, strict=True)
        }

    @cached_property
    def stored_types(self) -> Mapping[str, pa.DataType]:
        lists = dict.fromkeys(_VALUES, pa.list_(pa.float64()))
        return {"source_id": pa.int64(), **lists}

    def stored_batches(
        self, names: Sequence[str], *, batch_rows: int, first: int = 0, stop: int | None = None
    ) -> Iterator[Rows]:
        held: list[tuple[int | None, NDArray[np.float64]]] = []
        row = 0
        for star in self._stars():
            if row >= first and (stop is None or row < stop):
                held.append(star)
            row += 1
            if len(held) == batch_rows:
                yield self._rows(names, row - len(held), held)
                held = []
            if stop is not None and row >= stop:
                break
        if held:
            yield self._rows(names, row - len(held), held)

    def _stars(self) -> Iterator[tuple[int | None, NDArray[np.float64]]]:
        """Yield the identifier and the values (3, L) of each star."""
        wanted = [*self.columns, *([] if self.identifier is None else [self.identifier])]
        alone = self._named_by_file() if self.identifier is None else None
        last: tuple[int | None, list[NDArray[np.float64]]] | None = None
        for part in self.table.batches(wanted, batch_rows=_PIECE):
            values = np.array(
                [
                    coerce.numbers(part.columns.column(i), pa.float64())[0].to_numpy(
                        zero_copy_only=False
                    )
                    for i in range(len(_VALUES))
                ],
                dtype=np.float64,
            )
            if not values.shape[1]:
                continue
            ids = np.zeros(values.shape[1], dtype=np.int64)
            if self.identifier is not None:
                found = coerce.identifiers(part.columns.column(len(_VALUES)))[0].fill_null(0)
                ids = found.to_numpy(zero_copy_only=False)
            edges = np.flatnonzero(np.diff(ids)) + 1
            for piece in np.split(np.arange(len(ids)), edges):
                star = alone if self.identifier is None else int(ids[piece[0]]) or None
                if last is not None and last[0] == star:
                    last[1].append(values[:, piece])
                    continue
                if last is not None:
                    yield last[0], np.concatenate(last[1], axis=1)
                last = (star, [values[:, piece]])
        if last is not None:
            yield last[0], np.concatenate(last[1], axis=1)

    def _named_by_file(self) -> int:
        found = _IDENTIFIER.findall(self.path.name)
        if len(found) != 1:
            raise InputError(
                "a sampled spectrum without the identifier of its star",
                wanted="a column source_id, or one identifier in the file's name",
                found=self.path.name, where=self.path,
            )  # fmt: skip
        return int(found[0])

    def _rows(
        self,
        names: Sequence[str],
        first: int,
        stars: list[tuple[int | None, NDArray[np.float64]]],
    ) -> Rows:
        content = {"source_id": pa.array([star for star, _ in stars], pa.int64())}
        for place, name in enumerate(_VALUES):
            lists = [values[place] for _, values in stars]
            content[name] = pa.array(lists, pa.list_(pa.float64()))
        arrays = [content[name] for name in names]
        return Rows(first, pa.RecordBatch.from_arrays(arrays, names=list(names)))


def _is_long(table: Table, flux: str) -> bool:
    """Return whether a column holds one number a row; text is looked at."""
    kind = coerce.stored_type(table.types[flux])
    if coerce.is_list(kind):
        return False
    if not coerce.is_text(kind):
        return coerce.is_number(kind)
    for part in table.batches([flux], batch_rows=16, stop=16):
        return not coerce.numbers(part.columns.column(0), pa.float64())[1].any()
    return False
