"""Where in (Teff, log g, [M/H], [alpha/M]) a network was taught masses and ages."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

INPUTS = ("teff", "logg", "m_h", "alpha_m")
"""Labels of a star, in K and dex, that decide whether it is in the domain."""


@dataclass(frozen=True, eq=False)
class TeacherDomain:
    """Cells of the space of INPUTS in which training stars have a mass.

    Attributes
    ----------
    low, step
        (4,) lowest corner of the cells, and their size, in K and dex.
    cells
        (n, n, n, n) whether each is in the domain.
    """

    low: Floats
    step: Floats
    cells: NDArray[np.bool_]

    def covers(self, labels: Floats) -> NDArray[np.bool_]:
        """Return which stars are in the domain; False where a label is NaN.

        Parameters
        ----------
        labels
            INPUTS of N stars (N, 4), K and dex.
        """
        at = np.floor((np.asarray(labels, dtype=np.float64) - self.low) / self.step)
        with np.errstate(invalid="ignore"):
            within = ((at >= 0) & (at < self.cells.shape)).all(axis=1)
        found = np.zeros(len(labels), dtype=bool)
        found[within] = self.cells[tuple(at[within].astype(np.intp).T)]
        return found
