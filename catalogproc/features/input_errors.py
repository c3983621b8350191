"""Errors and correlations of the model's inputs, for propagation to its predictions.

Published errors e_i of XP coefficients c_i are underestimated. GaiaXPy gives the factor k by band
and G magnitude, derived from synthetic photometry (Gaia Collaboration, Montegriffo et al. 2023,
A&A 674, A33); the flux calibration adds a relative error f (Zhang, Green & Rix 2023):

    sigma_i^2 = (k_band(G) e_i)^2 + (f c_i)^2,   f = 0.005.

Published correlations apply to the first term only.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike, NDArray

from catalogproc.features.canonical_correlations import correlation_factor
from catalogproc.features.gaiaxpy_tables import tables_for
from catalogproc.features.tokens import Tokens
from catalogproc.job import Job
from catalogproc.network.input_covariance import Correlated, InputNoise
from catalogproc.release import Release, load_release
from catalogproc.vocabulary import BANDS, Vocabulary

Float = NDArray[np.float64]

FLUX_ERROR = 0.005
"""Relative error f of the flux calibration (Zhang, Green & Rix 2023)."""


def input_noise(tokens: Tokens, vocabulary: Vocabulary, job: Job) -> InputNoise:
    """Return the errors and correlations of the tokens of N stars.

    Coefficients are correlated where the archive's correlations were read: within a band, and
    canonical ones between the bands too; J - H and
    J - Ks are correlated because both contain J. The G flux by which coefficients are divided
    is treated as exact, as in training.

    Parameters
    ----------
    tokens
        Values, errors and correlations of the stars.
    vocabulary
        The tokens and their columns.
    job
        ``inflate_errors`` selects inflated or published errors of the coefficients,
        ``coefficients`` how many of each band are read, ``inputs`` the other tokens read.
    """
    # Absurd coefficients or errors overflow: only the star that has them fails.
    with np.errstate(over="ignore", invalid="ignore"):
        return _input_noise(tokens, vocabulary, job)


def _input_noise(tokens: Tokens, vocabulary: Vocabulary, job: Job) -> InputNoise:
    formal, errors = tokens.errors, tokens.errors
    if job.inflate_errors:
        formal, errors = inflate_errors(tokens.values, tokens.errors, tokens.g_mag, vocabulary)
    groups: list[Correlated] = []
    if tokens.correlations:
        of = _canonical_groups if vocabulary.basis == "canonical" else _archive_groups
        groups = of(tokens, vocabulary, job, np.nan_to_num(formal / errors))
    names = [name for name in ("jh", "jk") if name in job.inputs and name in vocabulary]
    if len(names) == 2:
        columns = vocabulary.columns(names)
        product = tokens.errors[:, columns[0]] * tokens.errors[:, columns[1]]
        shared = np.nan_to_num(np.divide(tokens.e_j**2, product, where=product > 0,
                                         out=np.zeros_like(product)))  # fmt: skip
        matrix = np.ones((len(tokens), 2, 2), dtype=np.float32)
        matrix[:, 0, 1] = matrix[:, 1, 0] = np.clip(shared, 0.0, 1.0)
        groups.append(Correlated(columns, matrix))
    return InputNoise(errors.astype(np.float32), tuple(groups))


def _archive_groups(
    tokens: Tokens, vocabulary: Vocabulary, job: Job, share: Float
) -> list[Correlated]:
    """Return the correlated coefficients, band by band."""
    groups = []
    for band in BANDS:
        columns = vocabulary.coefficient_columns(band)[: job.coefficients]
        packed = tokens.correlations.get(band)
        if packed is not None and len(columns):
            groups.append(Correlated(columns, correlation(packed, share[:, columns])))
    return groups


def _canonical_groups(
    tokens: Tokens, vocabulary: Vocabulary, job: Job, share: Float
) -> list[Correlated]:
    """Return the canonical coefficients of both bands as one group, by a factor.

    The covariance is singular and crosses bands.
    """
    every = [vocabulary.coefficient_columns(band) for band in BANDS]
    first = [np.arange(len(columns)) < job.coefficients for columns in every]
    used, columns = np.concatenate(first), np.concatenate(every)
    factor = correlation_factor(tokens.published_errors, tokens.correlations, tokens.release)[
        :, used
    ]
    factor *= share[:, columns[used], None].astype(np.float32)
    return [Correlated.by_factor(columns[used], factor, columns)]


def inflate_errors(
    values: Float, errors: Float, g_mag: Float, vocabulary: Vocabulary
) -> tuple[Float, Float]:
    """Inflate the published errors of coefficients; those of other tokens stay.

    Parameters
    ----------
    values, errors
        Dense tokens (N, V).
    g_mag
        G magnitudes (N,).
    vocabulary
        The tokens and their columns.

    Returns
    -------
    formal, total
        Errors (N, V) of the first term alone, k e, and of both terms.
    """
    formal, total = errors.copy(), errors.copy()
    for band in BANDS:
        columns = vocabulary.coefficient_columns(band)
        formal[:, columns] *= error_factor(band, g_mag, vocabulary.data_release)[:, None]
        total[:, columns] = np.hypot(formal[:, columns], FLUX_ERROR * values[:, columns])
    return formal, total


def correlation(packed: NDArray[np.floating], share: Float) -> NDArray[np.float32]:
    """Return the correlation matrices (N, n, n) of a band's first n coefficients.

    Parameters
    ----------
    packed
        Published correlations (N, m(m-1)/2) of m >= n coefficients, strict lower triangle row
        by row; a row of NaN means unknown, treated as zero.
    share
        Ratio of the correlated error to the total error of each coefficient (N, n).
    """
    count = share.shape[1]
    row, column = np.tril_indices(count, -1)
    values = np.nan_to_num(packed[:, : len(row)].astype(np.float32))
    values *= (share[:, row] * share[:, column]).astype(np.float32)
    matrix = np.zeros((len(share), count, count), dtype=np.float32)
    matrix[:, row, column] = values
    matrix[:, column, row] = values
    matrix[:, np.arange(count), np.arange(count)] = 1.0
    return matrix


def error_factors(release: Release) -> Mapping[str, Float]:
    """Return the tables of a release, which have the factors on its published errors.

    Parameters
    ----------
    release
        The release.

    Raises
    ------
    ReleaseError
        The factors are not known; a job can do without (``inflate_errors = false``). With a
        bridge alone those of the release that it was learned from are taken.
    """
    names = (f"error_factor_{name}" for name in ("g_mag", *BANDS))
    if release.design is None and release.bridge is not None:
        release = load_release(release.bridge.learned_from)
    what = "the factors on its errors (inflate_errors)"
    return tables_for(
        release, what, *names, without="; until it is out: a job with inflate_errors = false"
    )


def error_factor(band: str, g_mag: ArrayLike, release: Release) -> Float:
    """Return the factor k (N,) by which the published errors of a band are multiplied.

    As in GaiaXPy it is constant over the bright half of a bin of one magnitude, then linear to
    the next bin's value at its edge, and constant beyond the table.

    Parameters
    ----------
    band
        "bp" or "rp".
    g_mag
        G magnitudes (N,); where unknown (NaN) the value of the faintest bin is used.
    release
        The release of the spectra.
    """
    tables = error_factors(release)
    edges, factors = tables["error_factor_g_mag"], tables[f"error_factor_{band}"]
    width = np.diff(edges, append=edges[-1] + 1.0)
    nodes = np.column_stack([edges, edges + width / 2]).ravel()
    g = np.nan_to_num(np.asarray(g_mag, dtype=np.float64), nan=np.inf)
    return np.interp(g, nodes, np.repeat(factors, 2))
