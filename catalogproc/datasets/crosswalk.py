"""Identifiers of the same stars in two Gaia releases: the table dr3_neighbourhood."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from catalogproc.datasets.table_io import read_table
from catalogproc.errors import InputError, plural

Ids = NDArray[np.int64]

COLUMNS = ("dr3_source_id", "source_id")
"""Identifiers in the older and in the newer release."""
YES = ("true", "t", "1")


@dataclass(frozen=True, eq=False)
class Crosswalk:
    """Pairs of identifiers, each of them in one pair.

    Attributes
    ----------
    older, newer
        Identifiers in the two releases (M,).
    rows
        Number of rows of the table.
    """

    older: Ids
    newer: Ids
    rows: int

    def to_newer(self, ids: Ids) -> Ids:
        """Return identifiers in the newer release (N,); 0 where the table has none.

        Parameters
        ----------
        ids
            Identifiers in the older release (N,).
        """
        return _translated(ids, self.older, self.newer)

    def to_older(self, ids: Ids) -> Ids:
        """Return identifiers in the older release (N,); 0 where the table has none.

        Parameters
        ----------
        ids
            Identifiers in the newer release (N,).
        """
        return _translated(ids, self.newer, self.older)

    def line(self) -> str:
        """Return the counts for the user."""
        return f"crosswalk: {plural(self.rows, 'row')}, {plural(len(self.older), 'star')} of both"


def read_crosswalk(path: Path) -> Crosswalk:
    """Read a crosswalk: of several candidates the probable match is taken, then the nearest.

    Parameters
    ----------
    path
        A table with COLUMNS, and ``probable_match`` and ``angular_distance`` if it has them.

    Raises
    ------
    InputError
        The table cannot be read, lacks a column, or has identifiers that are no integers.
    """
    table = read_table(path)
    names = {name.lower(): name for name in table.column_names}
    if missing := [name for name in COLUMNS if name not in names]:
        raise InputError(
            "the crosswalk lacks a column", wanted=", ".join(COLUMNS),
            found=", ".join(table.column_names), where=path,
            advice=f"no {', '.join(missing)}: give the table dr3_neighbourhood",
        )  # fmt: skip
    rows = len(table)
    for name in COLUMNS:
        kind = table.schema.field(names[name]).type
        if not pa.types.is_integer(kind):
            raise InputError("identifiers of the crosswalk are no integers", wanted="int64",
                             found=kind, where=f"{path}, column {names[name]}")  # fmt: skip
        table = table.filter(pc.is_valid(table[names[name]]))
    order: list[tuple[str, str]] = []
    if "probable_match" in names:
        flag = pc.utf8_lower(table[names["probable_match"]].cast(pa.string()))
        yes = pc.fill_null(pc.is_in(flag, pa.array(YES)), False)
        table = table.append_column("_match", pc.cast(yes, pa.int8()))
        order.append(("_match", "descending"))
    order += [(names[name], "ascending") for name in ("angular_distance",) if name in names]
    table = table.sort_by(order) if order else table
    older, newer = (table[names[name]].to_numpy().astype(np.int64) for name in COLUMNS)
    for turn in (0, 1):  # the best of each older star, then of each newer one
        first = np.sort(np.unique((older, newer)[turn], return_index=True)[1])
        older, newer = older[first], newer[first]
    return Crosswalk(older, newer, rows)


def _translated(ids: Ids, known: Ids, others: Ids) -> Ids:
    order = np.argsort(known)
    place = np.minimum(np.searchsorted(known, ids, sorter=order), max(len(known) - 1, 0))
    if not len(known):
        return np.zeros(len(ids), np.int64)
    row = order[place]
    return np.where(known[row] == ids, others[row], 0)
