"""Errors of canonical coefficients from the errors of sampled flux.

The errors of sampled flux are strongly correlated from pixel to pixel, and how is not
published: taken for independent, they give errors of coefficients that are 200 to 10,000 times
too large. They are predicted instead, band by band: the logarithms of the coefficients' errors
are linear in the mean logarithm of the flux errors (coefficient 1, plus a small correction) and
in the first principal components of the flux errors' shape. The weights are fitted to real
spectra whose correlations are published, and with a smaller weight to fainter real spectra under
the mean correlations (canonical_build.py).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from catalogproc.features import spectra
from catalogproc.features.canonical_tables import designs, read_arrays

Float = NDArray[np.float64]


def canonical_errors(
    flux_errors: Float, band: str, alone: bool, template: Mapping[str, Float] | None = None
) -> Float:
    """Return the errors of a band's canonical coefficients (N, n).

    Parameters
    ----------
    flux_errors
        Errors of the flux (N, L) at the 343 wavelengths of GaiaXPy's default sampling; those of
        the band's own pixels are read. NaN, 0 and less are unknown: errors of that star are NaN.
    band
        "bp" or "rp".
    alone
        The star has this band only.
    template
        The arrays that canonical_build.py fits; by default the shipped ones.
    """
    table = read_arrays() if template is None else template
    level, shape = level_and_shape(flux_errors, band)
    components = spectra.project(
        shape - table[f"template_{band}_mean"], table[f"template_{band}_components"]
    )
    scores = np.column_stack([components, level - table[f"template_{band}_level"]])
    scores = np.clip(scores, table[f"template_{band}_low"], table[f"template_{band}_high"])
    kind = band if alone else "both"
    log_errors = spectra.project(scores, table[f"template_{band}_weights_{kind}"].T)
    offset = table[f"template_{band}_offset_{kind}"]
    return np.asarray(np.exp(log_errors + offset + level[:, None]))


def level_and_shape(flux_errors: Float, band: str) -> tuple[Float, Float]:
    """Return the mean log error of a band's own pixels (N,) and the rest (N, pixels).

    Parameters
    ----------
    flux_errors
        Errors of the flux (N, L); NaN, 0 and less are unknown.
    band
        "bp" or "rp".
    """
    errors = np.asarray(flux_errors, dtype=np.float64)
    errors = np.ascontiguousarray(errors[:, designs()[band][1]])
    logs = np.log(np.where(errors > 0, errors, np.nan))
    level = logs.mean(axis=1)
    return level, logs - level[:, None]
