"""From XP coefficients to flux over wavelength: what GaiaXPy's ``calibrate`` does, as matrices.

Read from the installed GaiaXPy as data: to import it silences warnings in the whole process.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from catalogproc.errors import CatalogprocError, ReleaseError
from catalogproc.features.photometry import MODEL
from catalogproc.vocabulary import BANDS

Float = NDArray[np.float64]


@dataclass(frozen=True)
class Calibration:
    """Flux at ``wavelengths`` (L,) nm is the sum over bands of ``weights[band]`` (L, n) times
    the band's coefficients (n,), in W m-2 nm-1."""

    wavelengths: Float
    weights: Mapping[str, Float]

    def flux(self, coefficients: Mapping[str, NDArray[np.floating]]) -> Float:
        """Flux (N, L) of spectra whose coefficients (N, n) are given by band, as published.

        Raises
        ------
        ReleaseError
            Another number of coefficients than GaiaXPy's matrices are for.
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
        """Its standard error (N, L), from those of the coefficients (N, n).

        ``correlations`` (N, C, C) are between all coefficients, BP's before RP's; without
        them, errors are independent.
        """
        if correlations is None:
            variance = sum(
                np.square(errors[band]) @ np.square(self.weights[band]).T for band in BANDS
            )
            return np.asarray(np.sqrt(variance))
        weights = np.concatenate([self.weights[band] for band in BANDS], axis=1)
        each = np.concatenate([errors[band] for band in BANDS], axis=1)
        result = np.empty((len(each), len(weights)))
        for row, (error, correlation) in enumerate(zip(each, correlations, strict=True)):
            moved = weights * error  # (L, C)
            result[row] = np.einsum("lc,lc->l", moved @ correlation, moved)
        return np.sqrt(np.maximum(result, 0.0))


@cache
def calibration() -> Calibration:
    """GaiaXPy's default sampling: 336 to 1020 nm, both bands merged by its weights.

    Raises
    ------
    CatalogprocError
        The installed GaiaXPy has no such file.
    """
    package = find_spec("gaiaxpy")
    folder = Path(next(iter((package and package.submodule_search_locations) or ("",))))
    path = folder / "config" / "filters" / f"XpFilter_{MODEL}.xml"
    if not path.is_file():
        raise CatalogprocError(
            "GaiaXPy's calibration is not there", wanted=path, todo="install GaiaXPy 2.1.5"
        )
    root = ElementTree.parse(path).getroot()

    def numbers(place: str) -> Float:
        return np.array([float(item.text or "nan") for item in root.findall(f"{place}/*")])

    wavelengths = numbers("XpMerge/sampleMeanWavelengths")
    weights = {
        band: numbers(f"XpSampling/{band}SampledBases").reshape(len(wavelengths), -1)
        * numbers(f"XpMerge/{band}Weights")[:, None]
        for band in BANDS
    }
    return Calibration(wavelengths, weights)
