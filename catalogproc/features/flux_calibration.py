"""Flux over wavelength from XP coefficients, as matrix products.

The design matrices and merging weights are GaiaXPy's (gaiaxpy_tables.py); the result equals that
of ``gaiaxpy.calibrate`` (Montegriffo et al. 2023, A&A 674, A3) with its default sampling.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np
from numpy.typing import NDArray

from catalogproc.errors import ReleaseError
from catalogproc.features.gaiaxpy_tables import read_tables
from catalogproc.release import Release
from catalogproc.vocabulary import BANDS

Float = NDArray[np.float64]


@dataclass(frozen=True)
class Calibration:
    """Calibrated flux as a linear function of the XP coefficients.

    Attributes
    ----------
    wavelengths
        Wavelengths (L,), nm.
    design
        By band (bp, rp): the flux of the band alone from its coefficients (L, n), W m-2 nm-1
        per electron per second.
    merge
        By band: its weight (L,) in the merged spectrum.
    """

    wavelengths: Float
    design: Mapping[str, Float]
    merge: Mapping[str, Float]

    @cached_property
    def weights(self) -> dict[str, Float]:
        """By band: the contribution of its coefficients to the merged flux (L, n)."""
        return {band: self.design[band] * self.merge[band][:, None] for band in BANDS}

    def flux(self, coefficients: Mapping[str, NDArray[np.floating]]) -> Float:
        """Return the flux (N, L) in W m-2 nm-1.

        Parameters
        ----------
        coefficients
            By band: coefficients as published (N, n), electrons per second.

        Raises
        ------
        ReleaseError
            The number of coefficients is another one.
        """
        total = np.zeros((1, len(self.wavelengths)))
        for band in BANDS:
            values, weights = coefficients[band], self.weights[band]
            if values.shape[-1] != weights.shape[1]:
                raise ReleaseError(
                    "GaiaXPy's calibration is for spectra of another release",
                    wanted=f"{weights.shape[1]} {band.upper()} coefficients",
                    found=values.shape[-1],
                )
            total = total + values @ weights.T
        return np.asarray(total)

    def error(
        self,
        errors: Mapping[str, NDArray[np.floating]],
        correlations: NDArray[np.floating] | None = None,
    ) -> Float:
        """Return the standard error of the flux (N, L) in W m-2 nm-1.

        Parameters
        ----------
        errors
            By band: errors of the coefficients (N, n), electrons per second.
        correlations
            Correlations (N, C, C) between all coefficients, BP before RP; without them errors
            are treated as independent.
        """
        if correlations is None:
            variance = sum(
                np.square(errors[band]) @ np.square(self.weights[band]).T for band in BANDS
            )
            return np.asarray(np.sqrt(variance))
        weights = np.concatenate([self.weights[band] for band in BANDS], axis=1)
        both = np.concatenate([errors[band] for band in BANDS], axis=1)
        result = np.empty((len(both), len(weights)))
        for row, (error, correlation) in enumerate(zip(both, correlations, strict=True)):
            scaled = weights * error  # (L, C)
            result[row] = np.einsum("lc,lc->l", scaled @ correlation, scaled)
        return np.sqrt(np.maximum(result, 0.0))


@cache
def calibration(release: Release) -> Calibration:
    """Read GaiaXPy's default sampling: 343 wavelengths from 336 to 1020 nm.

    Parameters
    ----------
    release
        The release of the spectra.

    Raises
    ------
    ReleaseError
        Its design matrices are not known, or their file is missing.
    """
    tables = read_tables(release)
    design, merge = (
        {band: tables[f"{name}_{band}"] for band in BANDS} for name in ("design", "merge")
    )
    return Calibration(tables["wavelengths"], design, merge)
