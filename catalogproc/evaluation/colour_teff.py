"""Comparison of Teff of real giants with a published colour-temperature relation.

Needs no labels: giants with clean flags are compared.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from catalogproc.datasets.star_reader import screened
from catalogproc.inference.engine import Engine
from catalogproc.io.remote_file import File
from catalogproc.job import Job

if TYPE_CHECKING:
    from catalogproc.network.bundle import Bundle

Floats = NDArray[np.float64]

COLOUR_RANGE = (0.33, 1.81)
"""Range of dereddened BP - RP in mag over which the relation was fitted."""

RELATION_SCATTER = 83.0
"""Scatter of the stars about the relation, in K."""

REDDENING = 1.339
"""E(BP - RP) over E(B - V) (Casagrande et al. 2021, MNRAS 507, 2684: R_BP - R_RP)."""

MAX_GIANT_LOGG = 3.5
"""Stars with lower log g are giants."""


def teff_of_colour(bp_rp: Floats, m_h: Floats) -> Floats:
    """Return Teff (N,) in K of giants; NaN outside COLOUR_RANGE.

    Mucciarelli, Bellazzini & Massari (2021, A&A 653, A90), Table 1, giants.

    Parameters
    ----------
    bp_rp
        Dereddened BP - RP in mag (N,).
    m_h
        [M/H] in dex (N,).
    """
    theta = 0.5323 + 0.4775 * bp_rp - 0.0344 * bp_rp**2
    theta += -0.0110 * m_h - 0.0020 * m_h**2 - 0.0009 * m_h * bp_rp
    fitted = (bp_rp > COLOUR_RANGE[0]) & (bp_rp < COLOUR_RANGE[1])
    return np.where(fitted, 5040.0 / theta, np.nan)


@dataclass(frozen=True, eq=False)
class ColourCheck:
    """Teff of N real giants, predicted and from the colour.

    Attributes
    ----------
    source_id
        Identifiers (N,).
    bp_rp0
        Dereddened BP - RP in mag (N,).
    teff, expected
        Teff of the model and of the relation in K (N,).
    """

    source_id: NDArray[np.int64]
    bp_rp0: Floats
    teff: Floats
    expected: Floats

    @property
    def scatter(self) -> float:
        """Scatter of the difference in K: 1.4826 times the median absolute deviation."""
        off = self.teff - self.expected
        return float(1.4826 * np.median(np.abs(off - np.median(off)))) if len(off) else np.nan

    @property
    def bias(self) -> float:
        """Median difference in K."""
        return float(np.median(self.teff - self.expected)) if len(self.teff) else np.nan

    def rows(self, which: NDArray[np.bool_]) -> ColourCheck:
        """Return the check of some of the stars.

        Parameters
        ----------
        which
            Boolean rows (N,).
        """
        return ColourCheck(*(column[which] for column in vars(self).values()))


def colour_check(bundle: Bundle, files: Sequence[File]) -> ColourCheck:
    """Return the check of the real giants with clean flags in files of spectra.

    The colour is dereddened with the model's E(B - V).

    Parameters
    ----------
    bundle
        The model.
    files
        Files of XP spectra.

    Raises
    ------
    InputError
        A file cannot be read.
    """
    engine = Engine(bundle, Job("colours", propagation="none"))
    table = pa.concat_tables(engine.process(good) for good in screened(files, bundle.vocabulary))
    usable = table.filter(table["good_params"]).select(
        ["source_id", "bp_rp", "ebv_true", "m_h", "teff", "logg"]
    )
    column = {name: usable[name].to_numpy() for name in usable.column_names}
    bp_rp0 = column["bp_rp"].astype(np.float64) - REDDENING * column["ebv_true"]
    expected = teff_of_colour(bp_rp0, column["m_h"].astype(np.float64))
    giants = (column["logg"] < MAX_GIANT_LOGG) & np.isfinite(expected)
    found = ColourCheck(column["source_id"], bp_rp0, column["teff"].astype(np.float64), expected)
    return found.rows(giants)
