"""One star, one fold, under whatever name.

The fold of a star follows from its Gaia source_id: SHA-256 of its digits, the first 32 bits, modulo
five. Fold 0 is the test fold. Stars without a source_id take the fold of the same star in another
table, else that of their 2MASS designation, else that of their name (KIC, EPIC, CoRoT).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

FOLDS, TEST_FOLD = 5, 0
SAME_PLACE = 2.0
"""Positions that are closer than this, in arcsec, are those of one star."""

_DESIGNATION = (
    r"(?P<h>\d\d)(?P<m>\d\d)(?P<s>\d\d)(?P<cs>\d\d)"
    r"(?P<sign>[+-])(?P<d>\d\d)(?P<am>\d\d)(?P<sec>\d\d)(?P<tenth>\d)$"
)

Mask = NDArray[np.bool_]
Rows = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class StarNames:
    """Names of N rows, of one table or of several.

    Attributes
    ----------
    source_id
        (N,) Gaia source_id, 0 where unknown.
    designation
        (N,) strings, 2MASS designation or APOGEE_ID, null where unknown. It states the position.
    name
        (N,) strings, name in another catalog, null where unknown.
    test
        (N,) True where the table itself says that the star is for the test.
    """

    source_id: NDArray[np.int64]
    designation: pa.Array
    name: pa.Array
    test: Mask

    def __len__(self) -> int:
        return len(self.source_id)

    @classmethod
    def concatenate(cls, parts: Sequence[StarNames]) -> StarNames:
        """Return the rows of several tables, one below the other.

        Parameters
        ----------
        parts
            Names of each table.
        """
        return cls(
            np.concatenate([part.source_id for part in parts]),
            pa.concat_arrays([part.designation for part in parts]),
            pa.concat_arrays([part.name for part in parts]),
            np.concatenate([part.test for part in parts]),
        )

    def take(self, rows: Rows) -> StarNames:
        """Return some of the rows.

        Parameters
        ----------
        rows
            Their numbers.
        """
        at = pa.array(rows)
        return StarNames(
            self.source_id[rows], self.designation.take(at), self.name.take(at), self.test[rows]
        )

    def stars(self) -> Rows:
        """Return the number of the star (N,) of each row, from 0.

        Rows belong to one star if they share a source_id, a designation or a name, or if their
        positions are within SAME_PLACE and at least one of them has no source_id (two sources of
        Gaia are two stars).
        """
        from scipy.sparse import coo_matrix
        from scipy.sparse.csgraph import connected_components

        size = len(self)
        ids = pa.array(self.source_id, mask=self.source_id <= 0)
        first, second = [], []
        nodes = size
        for keys in (ids, self.designation, self.name):
            codes = pc.fill_null(keys.dictionary_encode().indices, -1).to_numpy()
            rows = np.flatnonzero(codes >= 0)
            first.append(rows)
            second.append(codes[rows].astype(np.int64) + nodes)
            nodes += int(codes.max(initial=-1)) + 1
        one, other = self._close_pairs()
        edges = np.concatenate([*first, one]), np.concatenate([*second, other])
        graph = coo_matrix((np.ones(len(edges[0]), dtype=np.int8), edges), shape=(nodes, nodes))
        return np.asarray(connected_components(graph, directed=False)[1][:size], dtype=np.int64)

    def folds(self, stars: Rows) -> NDArray[np.int8]:
        """Return the fold (N,) of each row, the same for all rows of a star.

        A star that any table marks as one for the test is in TEST_FOLD.

        Parameters
        ----------
        stars
            (N,) numbers of the stars, by :meth:`stars`.
        """
        keys = (
            np.where(self.source_id > 0, self.source_id.astype(str), "").astype(object),
            _strings(self.designation),
            _strings(self.name),
        )
        fold = np.full(int(stars.max(initial=-1)) + 1, -1, dtype=np.int8)
        for key in keys:
            known = np.flatnonzero((key != "") & (fold[stars] < 0))
            # The smallest key, so that the order of the rows does not matter.
            known = known[np.argsort(key[known], kind="stable")]
            star, first = np.unique(stars[known], return_index=True)
            fold[star] = [fold_of(str(text)) for text in key[known][first]]
        fold[stars[self.test]] = TEST_FOLD
        return fold[stars]

    def _close_pairs(self) -> tuple[Rows, Rows]:
        """Return pairs of rows with close positions, at least one of them without a source_id."""
        from scipy.spatial import cKDTree

        direction = positions(self.designation)
        known = np.flatnonzero(np.isfinite(direction[:, 0]))
        if not known.size:
            return np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64)
        # One row a designation: rows of the same are linked by it.
        text = _strings(self.designation)[known]
        known = known[np.unique(text, return_index=True)[1]]
        radius = np.radians(SAME_PLACE / 3600.0)
        pairs = cKDTree(direction[known]).query_pairs(radius, output_type="ndarray")
        one, other = known[pairs[:, 0]], known[pairs[:, 1]]
        nameless = (self.source_id[one] <= 0) | (self.source_id[other] <= 0)
        return one[nameless], other[nameless]


def fold_of(key: str) -> int:
    """Return the fold of a star, 0 to FOLDS - 1.

    Parameters
    ----------
    key
        Digits of the source_id, else another name.
    """
    return int(hashlib.sha256(key.encode()).hexdigest()[:8], 16) % FOLDS


def hashed(names: StarNames) -> Rows:
    """Return a positive number (N,) for each row, from its designation or else its name.

    Parameters
    ----------
    names
        Names of the rows.
    """
    keys = pc.coalesce(names.designation, names.name, pa.scalar("")).to_pylist()
    digests = (hashlib.sha256(key.encode()).hexdigest()[:15] for key in keys)
    return np.array([int(digest, 16) + 1 for digest in digests], dtype=np.int64)


def positions(designations: pa.Array) -> NDArray[np.float64]:
    """Return unit vectors (N, 3) of the positions in 2MASS designations, NaN where there is none.

    Parameters
    ----------
    designations
        (N,) strings such as 2M14300843-6315371: 14 h 30 min 8.43 s, -63 deg 15 arcmin 37.1 arcsec.
    """
    parts = pc.extract_regex(designations.cast(pa.string()), _DESIGNATION)
    h, m, s, cs, d, am, sec, tenth = (
        pc.struct_field(parts, name).cast(pa.float64()).to_numpy(zero_copy_only=False)
        for name in ("h", "m", "s", "cs", "d", "am", "sec", "tenth")
    )
    south = pc.equal(pc.struct_field(parts, "sign"), "-")
    sign = np.where(pc.fill_null(south, False).to_numpy(zero_copy_only=False), -1.0, 1.0)
    ra = np.radians(15.0 * (h + m / 60 + (s + cs / 100) / 3600))
    dec = np.radians(sign * (d + am / 60 + (sec + tenth / 10) / 3600))
    return np.stack([np.cos(dec) * np.cos(ra), np.cos(dec) * np.sin(ra), np.sin(dec)], axis=1)


def _strings(column: pa.Array) -> NDArray[np.object_]:
    """Return strings (N,), "" where null."""
    return np.asarray(pc.fill_null(column.cast(pa.string()), "").to_pylist(), dtype=object)
