"""Masses and ages of DistMass, found for the spectra of another table.

DistMass has a row a spectrum, as APOGEE's allStar has, and its mass follows from that
spectrum. A star with several spectra has several masses: each spectrum gets its own, told by
its temperature, for the name is the same.
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
    """DistMass, whole: (M,) each.

    ``columns`` holds masses, ages and their errors, NaN where not known, and ``bitmask``.
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
        """Raises InputError for a file that cannot be read, or that is empty."""
        batches = list(read_distmass(path, names))
        if not batches:
            raise InputError("the table has no rows", where=path)
        table = pa.Table.from_batches(batches).combine_chunks()
        name, short, star = (
            table[key].combine_chunks() for key in ("apogee_id", "designation", "source_id")
        )
        numbers = {key: table[key].to_numpy() for key in (*COLUMNS, "bitmask")}
        return cls(name, short, star, table["teff"].to_numpy(), numbers)

    def find(
        self,
        teff: Float,
        *,
        apogee_id: pa.Array | None = None,
        designation: pa.Array | None = None,
        source_id: pa.Array | None = None,
    ) -> Rows:
        """The row (N,) of each spectrum, -1 where there is none.

        By APOGEE_ID, or by designation, where given; for those not found so by source_id, if
        DistMass has one. Of several rows of a star the one whose temperature is nearest, of
        equals one with a mass.

        Parameters
        ----------
        teff
            Temperature of each spectrum in K (N,), NaN where unknown.
        apogee_id, designation, source_id
            What it is called (N,), null where unknown.
        """
        if apogee_id is not None and apogee_id.equals(self.apogee_id):
            return np.arange(len(teff))  # as published: row by row the same spectra
        found = np.full(len(teff), -1, dtype=np.int64)
        for wanted, index in zip((apogee_id, designation, source_id), self._indices, strict=True):
            if wanted is not None:
                left = np.flatnonzero(found < 0)
                found[left] = self._nearest(wanted.take(pa.array(left)), index, teff[left])
        return found

    def take(self, rows: Rows) -> dict[str, NDArray[np.generic]]:
        """Masses, ages and errors of rows (N,), NaN where -1, and ``distmass_bitmask``, 0 there."""
        known = rows >= 0
        taken = {name: np.where(known, self.columns[name][rows], np.nan) for name in COLUMNS}
        bits = np.where(known, self.columns["bitmask"][rows], 0)
        return {**taken, "distmass_bitmask": bits.astype(np.int32)}

    @cached_property
    def _indices(self) -> tuple[_Index, ...]:
        return tuple(map(_Index.of, (self.apogee_id, self.designation, self.source_id)))

    def _nearest(self, wanted: pa.Array, index: _Index, teff: Float) -> Rows:
        """The row (N,) of each key, -1 where there is none; see :meth:`find`."""
        first, count = index.places(wanted)
        # Each spectrum beside each of the rows of its name, and of these the best one first.
        spectrum = np.repeat(np.arange(len(first)), count)
        nth = np.arange(len(spectrum)) - np.repeat(np.cumsum(count) - count, count)
        row = index.order[np.repeat(first, count) + nth]
        distance = np.nan_to_num(np.abs(self.teff[row] - teff[spectrum]), nan=np.inf)
        lacking = np.isnan(self.columns["mass"][row].astype(np.float64))
        best = np.lexsort((row, lacking, distance, spectrum))
        found = np.full(len(first), -1, dtype=np.int64)
        ranked, at = np.unique(spectrum[best], return_index=True)
        found[ranked] = row[best[at]]
        return found


@dataclass(frozen=True)
class _Index:
    """Where each of some keys stands: ``codes`` (M,), ascending, of the rows ``order`` (M,)."""

    keys: pa.Array
    codes: Rows
    order: Rows

    @classmethod
    def of(cls, column: pa.Array) -> _Index:
        keys = column.drop_null().unique()
        codes = pc.fill_null(pc.index_in(column, value_set=keys), -1).to_numpy()
        order = np.argsort(codes, kind="stable")
        return cls(keys, codes[order], order)

    def places(self, wanted: pa.Array) -> tuple[Rows, Rows]:
        """The first place of each key (N,) in the order, and how many there are; null has none."""
        code = pc.fill_null(pc.index_in(wanted, value_set=self.keys, skip_nulls=True), -2)
        first = np.searchsorted(self.codes, code.to_numpy(), side="left")
        return first, np.searchsorted(self.codes, code.to_numpy(), side="right") - first
