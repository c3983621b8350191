"""How far a model's answers may be off, found on stars that it was not trained on.

A sigma that a network states is scaled until 68.27 % of stars lie within it, whatever the
stars' stated sigma, magnitude, reddening, gravity and metallicity: ln(true sigma / stated
sigma) is a sum of piecewise linear functions of these, found as the conditional quantile of
ln|true - mean| (Koenker & Bassett 1978), monotone in the stated sigma. What the residuals
over this sigma look like then gives the percentiles (Kuleshov, Fenner & Ermon 2018).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from catalogproc.catalog.columns import CONTEXT, LABEL_COLUMNS, POSITIVE
from catalogproc.catalog.consistency import beyond_box, checkable, spectrum_chi2
from catalogproc.features.dust import ln_ebv
from catalogproc.features.uncertainty import FLUX_ERROR, error_factor
from catalogproc.job import Job
from catalogproc.network.predictor import Predictor
from catalogproc.network.reliability import LEVELS, SIGMA, Calibration, Latent, Reliability, Term
from catalogproc.network.sampling import Table
from catalogproc.science.simulate import Simulator
from catalogproc.vocabulary import BANDS, Vocabulary

Floats = NDArray[np.float64]

WITHIN = 0.682689
"""Share of stars within one sigma."""

KNOTS = (0.01, 0.05, 0.15, 0.35, 0.65, 0.85, 0.95, 0.99)
"""Where the functions' knots lie, as quantiles of the stars."""

SMOOTHNESS, SOFTNESS = 2e-4, 0.05
"""Weight of the functions' second differences, and width of the corner of the quantile's loss."""

COMMON_LATENT, COMMON_BOX, COMMON_CHI2 = 0.99, 0.995, 0.995
"""Shares of stars that lie within the limits of what is usual. Spectra that are not of giants
mostly lie far beyond any of them (tests/test_strangers.py); together they cost 2 % of giants."""

RIDGE = 1e-3
"""Of the mean latent variance, added to each direction's: some hardly vary."""

FEWEST = 500
"""Stars without which nothing is found of a model."""

ALONE, OTHERWISE = 0.35, 0.25
"""Shares of stars that are shown as a run without a companion table shows them, and with
another number of coefficients than usual: a job may ask for that."""


@dataclass(frozen=True, eq=False)
class Held:
    """N stars that the network was not trained on.

    ``values`` and ``errors`` (N, V) is what a run reads, errors inflated as it does;
    ``truth`` and ``truth_errors`` (N, V) what is true of the labels, NaN where it is not
    known; ``g_mag`` (N,), NaN where not known; ``usual`` (N,) are stars that are read as the
    default job reads them.
    """

    values: Floats
    errors: Floats
    truth: Floats
    truth_errors: Floats
    g_mag: Floats
    usual: NDArray[np.bool_]


def simulated_held(simulator: Simulator, vocabulary: Vocabulary, n: int, seed: int) -> Held:
    """Simulated giants as the default job reads them, some as it does without a companion."""
    stars = simulator.draw(n, seed)
    seen, errors = (x.cpu().double().numpy() for x in stars.tokens(vocabulary))
    column = {name: stars[name].cpu().double().numpy() for name in ("ebv", "mg", "g_mag")}
    truth = np.full_like(seen, np.nan)
    for label in ("teff", "logg", "m_h", "mass", "log_age"):
        truth[:, vocabulary.column(label)] = stars[label].cpu().double().numpy()
    truth[:, vocabulary.column("logebv")] = ln_ebv(column["ebv"])
    truth[:, vocabulary.column("g_fakemag")] = 10.0 ** (0.2 * column["mg"] + 2.0)
    return _held(seen, errors, truth, np.zeros_like(truth), column["g_mag"], vocabulary, seed)


def real_held(table: Table, vocabulary: Vocabulary, seed: int) -> Held:
    """Real stars of a training's dataset; nothing is true of what they are shown with."""
    seen, errors = table.values.astype(np.float64), table.errors.astype(np.float64)
    truth = np.full_like(seen, np.nan)
    labels = vocabulary.columns(vocabulary.named("label"))
    truth[:, labels] = seen[:, labels]
    shown = vocabulary.columns([name for name in Job("default").inputs if name in vocabulary])
    truth[:, shown] = np.nan
    g_mag = np.full(len(seen), np.nan)
    return _held(seen, errors, truth, np.nan_to_num(errors), g_mag, vocabulary, seed)


def _held(
    seen: Floats,
    errors: Floats,
    truth: Floats,
    truth_errors: Floats,
    g_mag: Floats,
    vocabulary: Vocabulary,
    seed: int,
) -> Held:
    """Stars as jobs read them, most of them as the default one does."""
    random = np.random.default_rng(seed)
    job, size = Job("default"), len(seen)
    errors = errors.copy()
    counts = np.full((size, 2), job.coefficients)
    otherwise = random.random(size) < OTHERWISE
    most = max(vocabulary.coefficients(band) for band in BANDS)
    counts[otherwise] = random.integers(5, most + 1, (int(otherwise.sum()), 1))
    read = np.zeros(seen.shape, dtype=bool)
    for place, band in enumerate(BANDS):
        at = vocabulary.coefficient_columns(band)
        read[:, at] = np.arange(len(at)) < counts[:, place : place + 1]
        errors[:, at] = np.hypot(errors[:, at] * error_factor(band, g_mag)[:, None],
                                 FLUX_ERROR * seen[:, at])  # fmt: skip
    read[:, vocabulary.columns([name for name in job.inputs if name in vocabulary])] = True
    alone = random.random(size) < ALONE
    beside = vocabulary.columns([n for n in ("jh", "jk", "logebv") if n in vocabulary])
    read[np.ix_(alone, beside)] = False
    values = np.where(read, seen, np.nan)
    return Held(values, errors, truth, truth_errors, g_mag, ~otherwise)


def fit_reliability(
    predictor: Predictor, held: Held, trained_on: NDArray[np.int64] | None = None
) -> Reliability:
    """All that a bundle can know of how far its answers are to be trusted, from held-out stars.

    Nothing but ``trained_on`` from fewer than 500 stars.
    """
    if held.usual.sum() < FEWEST:
        return Reliability(trained_on=trained_on)
    bundle = predictor.bundle
    labels = [label for label in LABEL_COLUMNS if label in bundle.requestable]
    prediction = predictor.predict(held.values, labels)
    context = {"phot_g_mean_mag": held.g_mag} | {
        LABEL_COLUMNS[label]: prediction.mean[:, k].astype(np.float64)
        for k, label in enumerate(labels)
    }
    context = {name: context[name] for name in CONTEXT if name in context}
    at = bundle.vocabulary.columns(labels)
    calibration = {}
    for k, label in enumerate(labels):
        mean, stated = (x[:, k].astype(np.float64) for x in (prediction.mean, prediction.sigma))
        truth, error = held.truth[:, at[k]], held.truth_errors[:, at[k]]
        truth = np.where(held.usual, truth, np.nan)
        found = fit_calibration(mean, stated, truth, error, context, label in POSITIVE)
        if found is not None:
            calibration[label] = found
    usual = held.values[held.usual]
    chi2 = 0.0
    if checkable(bundle):
        of_stars = spectrum_chi2(predictor, usual, held.errors[held.usual])
        chi2 = float(np.nanquantile(of_stars, COMMON_CHI2))
    beyond = beyond_box(bundle, usual, Job("default").coefficients).max(axis=1)
    return Reliability(
        calibration,
        fit_latent(predictor.summaries(held.values), np.isfinite(held.values)),
        float(np.quantile(beyond, COMMON_BOX)),
        chi2,
        trained_on,
    )


def fit_calibration(
    mean: Floats,
    stated: Floats,
    truth: Floats,
    error: Floats,
    context: Mapping[str, Floats],
    logarithmic: bool = False,
) -> Calibration | None:
    """The calibration of one label from its answers for N stars; None from too few.

    All (N,). Where the truth is a measurement its ``error`` is taken out of the residual, in
    the proportion in which it adds to the stated sigma.
    """
    known = np.isfinite(mean) & np.isfinite(truth) & (stated > 0)
    if logarithmic:
        known &= (mean > 0) & (truth > 0)
    if known.sum() < FEWEST:
        return None
    mean, stated, truth, error = (x[known] for x in (mean, stated, truth, error))
    residual = (truth - mean) * stated / np.hypot(stated, error)
    measured = {SIGMA: np.log(stated)} | {
        name: x[known] for name, x in context.items() if np.isfinite(x[known]).all()
    }
    terms = _terms(np.log(np.maximum(np.abs(residual), 1e-9 * stated) / stated), measured)
    scaled = Calibration(terms).sigma(stated, measured)
    if logarithmic:
        z = np.log1p(np.maximum(residual / mean, 1e-6 - 1.0)) / (scaled / mean)
    else:
        z = residual / scaled
    quantiles = np.quantile(z, LEVELS)
    return Calibration(terms, np.array(LEVELS), quantiles, logarithmic)


def _terms(log_ratio: Floats, measured: Mapping[str, Floats]) -> tuple[Term, ...]:
    """The functions whose sum is the conditional quantile of ln(|residual| / stated sigma)."""
    from scipy.optimize import minimize

    knots = {name: np.unique(np.quantile(x, KNOTS)) for name, x in measured.items()}
    designs = [_hats(x, knots[name]) for name, x in measured.items()]
    # The function of the stated sigma by its first value and its steps, so that a bound on
    # each step keeps sigma times its exponential rising.
    steps = np.tril(np.ones((len(knots[SIGMA]), len(knots[SIGMA]))))
    design = np.hstack([designs[0] @ steps, *designs[1:]])
    sizes = [len(item) for item in knots.values()]
    starts = np.cumsum([0, *sizes])
    bounds: list[tuple[float | None, float | None]] = [(None, None)]
    bounds += [(-gap, None) for gap in np.diff(knots[SIGMA])]
    bounds += [(-3.0, 3.0)] * (design.shape[1] - len(bounds))
    rough = _roughness(sizes, steps)

    def loss(values: Floats) -> tuple[float, Floats]:
        off = (log_ratio - design @ values) / SOFTNESS
        # Pinball loss with a rounded corner: tau u + s ln(1 + exp(-u / s)).
        soft = np.logaddexp(0.0, -off)
        slope = WITHIN - 1.0 / (1.0 + np.exp(np.clip(off, -50, 50)))
        value = SOFTNESS * float(np.mean(WITHIN * off + soft))
        bent = rough @ values
        gradient = -design.T @ slope / len(off) + 2.0 * SMOOTHNESS * rough.T @ bent
        return value + SMOOTHNESS * float(bent @ bent), gradient

    begin = np.zeros(design.shape[1])
    begin[0] = np.quantile(log_ratio, WITHIN)
    found = minimize(loss, begin, jac=True, method="L-BFGS-B", bounds=bounds,
                     options={"maxiter": 1000, "ftol": 1e-12}).x  # fmt: skip
    values = [found[a:b] for a, b in pairwise(starts)]
    values[0] = steps @ values[0]
    return tuple(Term(name, knots[name], v) for name, v in zip(measured, values, strict=True))


def _hats(x: Floats, knots: Floats) -> Floats:
    """(N, M): how much each knot weighs in the piecewise linear function at x."""
    return np.stack([np.interp(x, knots, unit) for unit in np.eye(len(knots))], axis=1)


def _roughness(sizes: Sequence[int], steps: Floats) -> Floats:
    """The matrix of what is kept small: second differences, and a little all but the first."""
    blocks = []
    for place, size in enumerate(sizes):
        rows = np.vstack([np.diff(np.eye(size), 2, axis=0), 0.1 * np.eye(size)[:, :]])
        if place == 0:
            rows = np.diff(np.eye(size), 2, axis=0) @ steps
        blocks.append(rows)
    matrix = np.zeros((sum(len(b) for b in blocks), sum(sizes)))
    row = column = 0
    for block in blocks:
        matrix[row : row + len(block), column : column + block.shape[1]] = block
        row, column = row + len(block), column + block.shape[1]
    return matrix


def fit_latent(summaries: NDArray[np.float32], present: NDArray[np.bool_]) -> Latent:
    """What is expected of training stars' summaries (N, D) with tokens (N, V), and how far from
    it common ones lie."""
    s = summaries.astype(np.float64)
    design = np.column_stack([np.ones(len(s)), present])
    # A little of the unit matrix: tokens that all stars have, or none, have no shift of their own.
    normal = design.T @ design + np.diag([0.0] + [0.1] * present.shape[1])
    expected = np.linalg.solve(normal, design.T @ s)
    off = s - design @ expected
    covariance = off.T @ off / len(s)
    covariance += RIDGE * np.trace(covariance) / len(covariance) * np.eye(len(covariance))
    factor = np.linalg.inv(np.linalg.cholesky(covariance))
    distance = np.linalg.norm(off @ factor.T, axis=1)
    limit = float(np.quantile(distance, COMMON_LATENT))
    return Latent(expected[0], expected[1:], factor, limit)
