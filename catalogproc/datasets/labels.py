"""Masses and ages of DistMass, matched to the spectra of another table.

DistMass has one row per spectrum, as APOGEE's allStar has, and its mass follows from that
spectrum. A star with several spectra has several masses under one name: the effective
temperature tells which row belongs to which spectrum.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from catalogproc.errors import InputError
from catalogproc.readers.surveys import DistMassColumns, read_distmass

Float = NDArray[np.float64]
Rows = NDArray[np.int64]

COLUMNS = ("mass", "e_mass", "log_age", "e_log_age")


@dataclass(frozen=True)
class Masses:
    """All M rows of DistMass.

    Attributes
    ----------
    apogee_id, designation, source_id
        (M,) names of the stars, null where unknown.
    teff
        (M,) effective temperature in K.
    columns
        (M,) masses, ages and their errors by name, NaN where unknown, and ``bitmask``.
    """

    apogee_id: pa.Array
    designation: pa.Array
    source_id: pa.Array
    teff: Float
    columns: Mapping[str, NDArray[np.generic]]

    def __len__(self) -> int:
        return len(self.teff)

    @classmethod
    def read(cls, path: Path | str, names: DistMassColumns | None = None) -> Masses:
        """Read DistMass.

        Parameters
        ----------
        path
            The FITS file.
        names
            Column names of the file; by default those of the published one.

        Raises
        ------
        InputError
            The file cannot be read, or is empty.
        """
        batches = list(read_distmass(path, names))
        if not batches:
            raise InputError("the table has no rows", where=path)
        table = pa.Table.from_batches(batches).combine_chunks()
        apogee_id, designation, source_id = (
            table[name].combine_chunks() for name in ("apogee_id", "designation", "source_id")
        )
        columns = {name: table[name].to_numpy() for name in (*COLUMNS, "bitmask")}
        return cls(apogee_id, designation, source_id, table["teff"].to_numpy(), columns)

    def find(
        self,
        teff: Float,
        *,
        apogee_id: pa.Array | None = None,
        designation: pa.Array | None = None,
        source_id: pa.Array | None = None,
    ) -> Rows:
        """Return the row (N,) of each spectrum, -1 where there is none.

        Rows are matched by APOGEE_ID or designation, where given; the others by source_id, if
        DistMass has it. Of several rows of a star, the one of nearest temperature is taken; of
        equally near ones, one with a mass.

        Parameters
        ----------
        teff
            (N,) effective temperature of each spectrum in K, NaN where unknown.
        apogee_id, designation, source_id
            (N,) names of the star, null where unknown.
        """
        if apogee_id is not None and apogee_id.equals(self.apogee_id):
            return np.arange(len(teff))  # as published: row by row the same spectra
        found = np.full(len(teff), -1, dtype=np.int64)
        for names, index in zip((apogee_id, designation, source_id), self._indices, strict=True):
            if names is not None:
                left = np.flatnonzero(found < 0)
                found[left] = self._nearest(names.take(pa.array(left)), index, teff[left])
        return found

    def take(self, rows: Rows) -> dict[str, NDArray[np.generic]]:
        """Return columns of some rows: masses, ages, their errors and ``distmass_bitmask``.

        Parameters
        ----------
        rows
            (N,) row numbers. Where -1, floats are NaN and the bitmask is 0.
        """
        known = rows >= 0
        taken = {name: np.where(known, self.columns[name][rows], np.nan) for name in COLUMNS}
        bits = np.where(known, self.columns["bitmask"][rows], 0)
        return {**taken, "distmass_bitmask": bits.astype(np.int32)}

    @cached_property
    def _indices(self) -> tuple[_Index, ...]:
        return tuple(map(_Index.of, (self.apogee_id, self.designation, self.source_id)))

    def _nearest(self, names: pa.Array, index: _Index, teff: Float) -> Rows:
        """Return the row (N,) of each name, -1 where there is none; see :meth:`find`."""
        first, count = index.places(names)
        # All pairs of a spectrum and a row of its name, the best pair of each spectrum first.
        spectrum = np.repeat(np.arange(len(first)), count)
        nth = np.arange(len(spectrum)) - np.repeat(np.cumsum(count) - count, count)
        row = index.order[np.repeat(first, count) + nth]
        distance = np.nan_to_num(np.abs(self.teff[row] - teff[spectrum]), nan=np.inf)
        lacking = np.isnan(self.columns["mass"][row].astype(np.float64))
        order = np.lexsort((row, lacking, distance, spectrum))
        found = np.full(len(first), -1, dtype=np.int64)
        matched, best = np.unique(spectrum[order], return_index=True)
        found[matched] = row[order[best]]
        return found


@dataclass(frozen=True)
class _Index:
    """Sorted index of a column: ``codes`` (M,) of its keys, ascending, of rows ``order`` (M,)."""

    keys: pa.Array
    codes: Rows
    order: Rows

    @classmethod
    def of(cls, column: pa.Array) -> _Index:
        keys = column.drop_null().unique()
        codes = pc.fill_null(pc.index_in(column, value_set=keys), -1).to_numpy()
        order = np.argsort(codes, kind="stable")
        return cls(keys, codes[order], order)

    def places(self, names: pa.Array) -> tuple[Rows, Rows]:
        """Return the first place of each name (N,) in the order, and its count; 0 for null."""
        code = pc.fill_null(pc.index_in(names, value_set=self.keys, skip_nulls=True), -2)
        first = np.searchsorted(self.codes, code.to_numpy(), side="left")
        return first, np.searchsorted(self.codes, code.to_numpy(), side="right") - first
