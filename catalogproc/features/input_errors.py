"""The errors of what the model reads, as they are handed on to its answers.

Published errors of XP coefficients are too small. How much, GaiaXPy's own table tells for
photometry made from them (Montegriffo et al. 2023), by band and magnitude; and no flux is
calibrated better than to half a percent (Zhang, Green & Rix 2023). So coefficient i of a
band has

    sigma_i^2 = (k_band(G) e_i)^2 + (f c_i)^2,   f = 0.005,

and correlations, where they are at hand, between the first parts alone.
"""

from __future__ import annotations

import csv
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from catalogproc.errors import CatalogprocError
from catalogproc.features.photometry import SYSTEM
from catalogproc.features.tokens import Tokens
from catalogproc.job import Job
from catalogproc.network.input_covariance import Correlated, InputNoise
from catalogproc.vocabulary import BANDS, Vocabulary

Float = NDArray[np.float64]

FLUX_ERROR = 0.005
"""f: the calibration's own relative error (Zhang, Green & Rix 2023)."""


def input_noise(tokens: Tokens, vocabulary: Vocabulary, job: Job) -> InputNoise:
    """Errors of the tokens of N stars, and which of them go together.

    As published, or inflated where ``job.inflate_errors``. Coefficients of a band are
    correlated for stars whose correlations were read; J - H and J - Ks by the J they share.
    The G flux by which coefficients are divided is taken for exact, as in training.
    """
    # A coefficient may be absurd, and its error with it: its own star fails, and no other.
    with np.errstate(over="ignore", invalid="ignore"):
        return _input_noise(tokens, vocabulary, job)


def _input_noise(tokens: Tokens, vocabulary: Vocabulary, job: Job) -> InputNoise:
    formal, errors = tokens.errors, tokens.errors
    if job.inflate_errors:
        formal, errors = inflated(tokens.values, tokens.errors, tokens.g_mag, vocabulary)
    groups = []
    for band in BANDS:
        columns = vocabulary.coefficient_columns(band)[: job.coefficients]
        packed = tokens.correlations.get(band)
        if packed is not None and len(columns):
            share = np.nan_to_num(formal[:, columns] / errors[:, columns])
            groups.append(Correlated(columns, correlation(packed, share)))
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


def inflated(
    values: Float, errors: Float, g_mag: Float, vocabulary: Vocabulary
) -> tuple[Float, Float]:
    """Errors (N, V) of dense tokens, those of coefficients larger than published.

    Returned are the first part of them alone, k e, and the whole.
    """
    formal, whole = errors.copy(), errors.copy()
    for band in BANDS:
        at = vocabulary.coefficient_columns(band)
        formal[:, at] *= error_factor(band, g_mag)[:, None]
        whole[:, at] = np.hypot(formal[:, at], FLUX_ERROR * values[:, at])
    return formal, whole


def correlation(packed: NDArray[np.floating], share: Float) -> NDArray[np.float32]:
    """Correlation matrices (N, n, n) of a band's first n coefficients.

    ``packed`` are the published ones, strict lower triangle row by row: of the first n
    coefficients they are the first n(n-1)/2. A row of NaN is a star whose correlations are
    not known: none. ``share`` (N, n) is that part of a coefficient's error that they are of.
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


def error_factor(band: str, g_mag: ArrayLike) -> Float:
    """k_band(G) (N,): by how much the published errors of a band are too small.

    GaiaXPy's rule: constant over the bright half of a bin of one magnitude, then linear to
    the next bin's value at its edge; that of the first or last bin beyond the table, and of
    the last where G is not known.
    """
    edges, factors = _table()[band]
    width = np.diff(edges, append=edges[-1] + 1.0)
    nodes = np.column_stack([edges, edges + width / 2]).ravel()
    g = np.nan_to_num(np.asarray(g_mag, dtype=np.float64), nan=np.inf)
    return np.interp(g, nodes, np.repeat(factors, 2))


@cache
def _table() -> dict[str, tuple[Float, Float]]:
    """For each band the bright edges of the bins in G, and their factors.

    Raises
    ------
    CatalogprocError
        The installed GaiaXPy has no such table.
    """
    package = find_spec("gaiaxpy")
    folder = Path(next(iter((package and package.submodule_search_locations) or ("",))))
    name = f"DIDREQ-465-{SYSTEM}-correction-factors.csv"
    path = folder / "config" / "correction_tables" / name
    if not path.is_file():
        raise CatalogprocError(
            "GaiaXPy's table of error corrections is not there",
            wanted=path,
            todo="install GaiaXPy 2.1.5, or set inflate_errors = false in the job",
        )
    with path.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    edges = np.array([float(row["min_Gmag_bin"]) for row in rows])
    return {
        band: (edges, np.array([float(row[f"factor_{band.upper()}"]) for row in rows]))
        for band in BANDS
    }
