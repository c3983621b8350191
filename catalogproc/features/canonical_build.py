"""Make the operators of canonical coefficients and the error template of sampled spectra.

To write grids/xp_canonical.npz again, in a few seconds:

    python -m catalogproc.features.canonical_build grids/xp_canonical.npz \\
        tests/data/gaia_xp_correlated/xp_continuous_30.parquet \\
        tests/data/archive_formats/XP_CONTINUOUS_RAW.csv examples/gaia_xp/*.parquet

The prior factor, from the second moments of real coefficients, is taken from the file that is
there already.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from catalogproc.features import spectra
from catalogproc.features.canonical_tables import RANK, columns, designs, inverse_of
from catalogproc.features.design_functions import functions_of_gaiaxpy
from catalogproc.features.sampled_errors import level_and_shape
from catalogproc.readers.xp import read_spectra
from catalogproc.vocabulary import BANDS

Float = NDArray[np.float64]

COMPONENTS = 8
"""Principal components of the flux errors' shape in a band."""

FAINT_WEIGHT = 0.02
"""Weight of a spectrum without published correlations, of which there are 50 times as many."""

RIDGE = 0.1
"""Added to the squares of the components: they are few stars."""

MARGIN = 0.25
"""Components are clipped to the range of the fit and this fraction of it beyond."""


@dataclass(frozen=True)
class RealErrors:
    """Errors of N real spectra.

    Attributes
    ----------
    published
        Errors of the coefficients (N, C) as published.
    flux
        Errors of the flux (N, L) in W m-2 nm-1.
    canonical
        By operator ("both", "bp", "rp"): errors of its canonical coefficients (N, n).
    weight
        Weight of the spectrum in the fit (N,).
    """

    published: Float
    flux: Float
    canonical: Mapping[str, Float]
    weight: Float

    def without(self, row: int) -> RealErrors:
        """Return the same spectra without one."""
        keep = np.arange(len(self.weight)) != row
        canonical = {name: value[keep] for name, value in self.canonical.items()}
        return RealErrors(self.published[keep], self.flux[keep], canonical, self.weight[keep])


def fit(stars: RealErrors) -> dict[str, Float]:
    """Fit the template.

    Parameters
    ----------
    stars
        Real spectra.

    Returns
    -------
    dict
        For each band b of P pixels and n coefficients: ``template_<b>_mean`` (P,) and
        ``template_<b>_components`` (K, P) of the logarithm of the flux error over its mean
        level; ``template_<b>_level``, the typical level; ``template_<b>_low`` and ``_high``
        (K + 1,), the range of components and level; ``template_<b>_weights_<o>`` (K + 1, n) and
        ``template_<b>_offset_<o>`` (n,) with o "both" or the band alone.
    """
    found: dict[str, Float] = {}
    for band in BANDS:
        level, shape = level_and_shape(stars.flux, band)
        mean = np.average(shape, axis=0, weights=stars.weight)
        moments = (shape - mean).T @ ((shape - mean) * stars.weight[:, None])
        components = np.linalg.eigh(moments)[1][:, ::-1].T[:COMPONENTS]
        typical = np.average(level, weights=stars.weight)
        scores = np.column_stack([(shape - mean) @ components.T, level - typical])
        low, high = scores.min(axis=0), scores.max(axis=0)
        found |= {
            f"template_{band}_mean": mean,
            f"template_{band}_components": components,
            f"template_{band}_level": np.asarray(typical),
            f"template_{band}_low": low - MARGIN * (high - low),
            f"template_{band}_high": high + MARGIN * (high - low),
        }
        for kind in ("both", band):
            errors = stars.canonical[kind]
            target = np.log(errors[:, columns(band)] if kind == "both" else errors)
            target = target - level[:, None]
            offset = np.average(target, axis=0, weights=stars.weight)
            weighted = (scores * stars.weight[:, None]).T
            normal = weighted @ scores + RIDGE * np.eye(scores.shape[1])
            found[f"template_{band}_offset_{kind}"] = offset
            found[f"template_{band}_weights_{kind}"] = np.linalg.solve(
                normal, weighted @ (target - offset)
            )
    return found


def real_errors(
    correlated: Sequence[Path], others: Sequence[Path], inverses: Mapping[str, Float]
) -> RealErrors:
    """Return the errors of real spectra, as coefficients and as flux.

    Parameters
    ----------
    correlated
        Files of spectra with correlations.
    others
        Files of spectra without; they get those of the faintest star of ``correlated``, which
        predict the errors of a star left out better than mean ones do.
    inverses
        ``inverse_<o>`` (n, pixels) of each operator o.
    """
    parts, known = [], []
    for path in correlated:
        errors, correlations = _published(path, correlations=True)
        assert correlations is not None
        parts.append(_projected(errors, correlations, inverses, 1.0))
        known.append(correlations)
    level = np.concatenate([part.flux.mean(axis=1) for part in parts])
    faintest = np.concatenate(known)[[np.argmin(level)]]
    for path in others:
        faint, _ = _published(path, correlations=False)
        parts.append(_projected(faint, faintest, inverses, FAINT_WEIGHT))
    return RealErrors(
        np.concatenate([part.published for part in parts]),
        np.concatenate([part.flux for part in parts]),
        {
            name: np.concatenate([part.canonical[name] for part in parts])
            for name in parts[0].canonical
        },
        np.concatenate([part.weight for part in parts]),
    )


def _published(path: Path, *, correlations: bool) -> tuple[Float, Float | None]:
    """Return errors (N, C) and correlations (N, C, C) of the spectra of a file."""
    table = pa.Table.from_batches(list(read_spectra(path, correlations=correlations)))
    errors = []
    for band in BANDS:
        name = f"{band}_coefficient_errors"
        errors.append(spectra.matrix(table[name], columns(band).stop - columns(band).start))
    both = np.concatenate(errors, axis=1).astype(np.float64)
    if not correlations:
        return both, None
    full = np.zeros((len(both), both.shape[1], both.shape[1]))
    for band, error in zip(BANDS, errors, strict=True):
        size = error.shape[1]
        packed = spectra.matrix(table[f"{band}_coefficient_correlations"], size * (size - 1) // 2)
        full[:, columns(band), columns(band)] = spectra.correlation_matrix(packed)
    return both, full


def _projected(
    errors: Float, correlations: Float, inverses: Mapping[str, Float], weight: float
) -> RealErrors:
    design, _ = designs()["both"]
    canonical = {}
    for name, (own, _) in designs().items():
        part = columns(name)
        projection = inverses[f"inverse_{name}"] @ own
        canonical[name] = _deviations(projection, errors[:, part], correlations[:, part, part])
    flux = _deviations(design, errors, correlations)
    return RealErrors(errors, flux, canonical, np.full(len(errors), weight))


def _deviations(operator: Float, errors: Float, correlations: Float) -> Float:
    """Return the errors (N, m) of an operator (m, n) times coefficients (N, n)."""
    found = np.empty((len(errors), len(operator)))
    for row, error in enumerate(errors):
        scaled = operator * error
        correlation = correlations[min(row, len(correlations) - 1)]
        found[row] = np.einsum("mn,mn->m", scaled @ correlation, scaled)
    return np.sqrt(found)


def inverses(prior_factor: Float) -> dict[str, Float]:
    """Return the inverse (n, pixels) of each operator.

    Parameters
    ----------
    prior_factor
        The Cholesky factor (C, C) of the prior second moments of all coefficients.
    """
    moments = prior_factor @ prior_factor.T
    found = {}
    for name, (design, _) in designs().items():
        part = columns(name)
        factor = np.asarray(np.linalg.cholesky(moments[part, part]), dtype=np.float64)
        found[name] = inverse_of(design, factor, RANK[name])
    return found


def write_tables(path: Path, correlated: Sequence[Path], others: Sequence[Path]) -> None:
    """Write the operators and the error template.

    Parameters
    ----------
    path
        The ``.npz`` file, which is replaced; its ``prior_factor`` is kept.
    correlated, others
        As of :func:`real_errors`.
    """
    with np.load(path, allow_pickle=False) as old:
        prior = old["prior_factor"]
    arrays = {"prior_factor": prior} | dict(functions_of_gaiaxpy())
    arrays |= {f"inverse_{name}": value for name, value in inverses(prior).items()}
    stars = real_errors(correlated, others, arrays)
    arrays["error_shape"] = np.exp(np.mean(np.log(stars.published), axis=0))
    np.savez_compressed(path, allow_pickle=False, **arrays, **fit(stars))


if __name__ == "__main__":
    place, one, two, *rest = map(Path, sys.argv[1:])
    write_tables(place, [one, two], rest)
