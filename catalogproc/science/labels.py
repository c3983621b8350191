"""Masses and ages of DistMass, found for the spectra of another table.

DistMass has a row a spectrum, as APOGEE's allStar has, and its mass follows from that
spectrum. A star with several spectra has several masses: each spectrum gets its own, told by
its temperature, for the name is the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from catalogproc.errors import InputError
from catalogproc.sources.surveys import DistMassColumns, read_distmass

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
        for wanted, ours in (
            (apogee_id, self.apogee_id),
            (designation, self.designation),
            (source_id, self.source_id),
        ):
            if wanted is None:
                continue
            left = np.flatnonzero(found < 0)
            found[left] = self._nearest(wanted.take(pa.array(left)), ours, teff[left])
        return found

    def take(self, rows: Rows) -> dict[str, NDArray[np.generic]]:
        """Masses, ages and errors of rows (N,), NaN where -1, and ``distmass_bitmask``, 0 there."""
        known = rows >= 0
        taken = {name: np.where(known, self.columns[name][rows], np.nan) for name in COLUMNS}
        bits = np.where(known, self.columns["bitmask"][rows], 0)
        return {**taken, "distmass_bitmask": bits.astype(np.int32)}

    def _nearest(self, wanted: pa.Array, ours: pa.Array, teff: Float) -> Rows:
        """The row (N,) of each key, -1 where there is none; see :meth:`find`."""
        codes = pc.fill_null(pc.index_in(ours, value_set=ours.unique()), -1).to_numpy()
        order = np.argsort(codes, kind="stable")
        known = pc.and_(pc.is_valid(wanted), pc.is_in(wanted, value_set=ours.drop_null()))
        asked = pc.index_in(wanted, value_set=ours.unique())
        code = np.where(np.asarray(known), pc.fill_null(asked, -2).to_numpy(), -2)
        first = np.searchsorted(codes[order], code, side="left")
        count = np.searchsorted(codes[order], code, side="right") - first
        # Each spectrum beside each of the rows of its name, and of these the best one first.
        spectrum = np.repeat(np.arange(len(code)), count)
        nth = np.arange(len(spectrum)) - np.repeat(np.cumsum(count) - count, count)
        row = order[np.repeat(first, count) + nth]
        distance = np.nan_to_num(np.abs(self.teff[row] - teff[spectrum]), nan=np.inf)
        lacking = np.isnan(self.columns["mass"][row].astype(np.float64))
        best = np.lexsort((row, lacking, distance, spectrum))
        found = np.full(len(code), -1, dtype=np.int64)
        ranked, at = np.unique(spectrum[best], return_index=True)
        found[ranked] = row[best[at]]
        return found
