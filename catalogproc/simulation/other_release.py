"""Simulated spectra of another Gaia release than that of the simulated instrument.

The design matrices of both releases give the same flux: a star's coefficients c become M c
(features/canonical_tables.py), its noise too. So the size of the noise is that of the simulated
instrument; how much smaller that of the other release is, is not known from matrices.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from catalogproc.errors import ReleaseError
from catalogproc.features.canonical_signal import TAIL_RMS
from catalogproc.features.canonical_tables import carried_over, columns, mean_factor
from catalogproc.release import Release, load_release
from catalogproc.vocabulary import CANONICAL_RELEASE

BLOCK = 4096
"""Number of stars whose errors are carried over at a time."""


def spectra_of(
    values: Mapping[str, Tensor], errors: Mapping[str, Tensor], release: Release
) -> dict[str, Tensor]:
    """Return simulated spectra as another release has them.

    Parameters
    ----------
    values, errors
        By band: coefficients of the simulated instrument and their errors (N, n), electrons per
        second.
    release
        The other release, with design matrices.

    Returns
    -------
    dict
        ``coefficients`` and ``coefficient_errors`` (N, m_bp + m_rp), ``n_bp_relevant`` and
        ``n_rp_relevant`` (N,).

    Raises
    ------
    ReleaseError
        Its design matrices are not known.
    """
    if release.design is None:
        raise ReleaseError(
            f"the simulated instrument is that of {load_release(CANONICAL_RELEASE).title}",
            wanted=f"design matrices of {release.title}, to carry its spectra over",
            found=release.spectra_text(),
            advice="write them: catalogproc release add --design FILE; or train on real spectra "
            f"of {release.title}, or on canonical coefficients",
        )
    made: list[tuple[Tensor, Tensor]] = []
    numbers = {}
    for band, matrix in carried_over(release).items():
        value = values[band].double()
        change = torch.as_tensor(matrix, dtype=torch.float64, device=value.device)
        blocks = torch.split(errors[band].double(), BLOCK)
        error = torch.cat([_errors(block, change, band) for block in blocks])
        value = value @ change.T
        numbers[f"n_{band}_relevant"] = _end_of_signal(value / error)
        made.append((value, error))
    kind = values["bp"].dtype
    joined = (torch.cat(parts, dim=1).to(kind) for parts in zip(*made, strict=True))
    return numbers | dict(zip(("coefficients", "coefficient_errors"), joined, strict=True))


def _errors(errors: Tensor, change: Tensor, band: str) -> Tensor:
    """Return the errors (N, m) of M c from those of c (N, n), under the mean correlations."""
    factor = torch.as_tensor(mean_factor(), device=errors.device)[columns(band), columns(band)]
    correlations = factor @ factor.T
    # Of row i of M the variance is e^T (M_i M_i^T * C) e.
    weights = change[:, :, None] * change[:, None, :] * correlations  # (m, n, n)
    return torch.einsum("nj,ijk,nk->ni", errors, weights, errors).clamp(min=0.0).sqrt()


def _end_of_signal(ratio: Tensor) -> Tensor:
    """Return the smallest number of coefficients past which the rest is noise (N,)."""
    count = ratio.shape[1]
    left = torch.arange(count, 0, -1, device=ratio.device)
    tail = ratio.square().flip(1).cumsum(1).flip(1)
    quiet = tail < TAIL_RMS**2 * left
    number = torch.where(quiet.any(1), quiet.double().argmax(1), count)
    return number.to(torch.int64)
