"""How far a model's answers may be off, found on stars that it was not trained on.

A sigma that a network states is scaled until 68.27 % of stars lie within it, whatever the
stars' stated sigma, magnitude, reddening, gravity and metallicity: ln(true sigma / stated
sigma) is a sum of piecewise linear functions of these, found as the conditional quantile of
ln|true - mean| (Koenker & Bassett 1978), monotone in the stated sigma. What the residuals
over this sigma look like then gives the percentiles (Kuleshov, Fenner & Ermon 2018).
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from catalogproc.datasets.holdout import Held, simulated_held
from catalogproc.errors import BundleError
from catalogproc.features.input_errors import inflate_errors
from catalogproc.inference.catalog_columns import CONTEXT, LABEL_COLUMNS, POSITIVE
from catalogproc.inference.domain_checks import beyond_box, checkable, spectrum_chi2
from catalogproc.io.atomic import write_whole
from catalogproc.job import Job
from catalogproc.network.bundle import DECLARATION, WEIGHTS, Bundle, rewritten
from catalogproc.network.error_propagation import differentiate
from catalogproc.network.input_covariance import InputNoise
from catalogproc.network.predictor import Predictor
from catalogproc.network.uncertainty_calibration import (
    LATENT,
    LEVELS,
    SIGMA,
    Calibration,
    Latent,
    Reliability,
    Term,
)
from catalogproc.simulation.simulator import Simulator

Floats = NDArray[np.float64]

WITHIN = 0.682689
"""Share of stars within one sigma."""

KNOTS = (0.005, 0.02, 0.05, 0.1, 0.2, 0.3, 0.42, 0.55, 0.68, 0.8, 0.9, 0.96, 0.99)
"""Where the functions' knots lie, as quantiles of the stars."""

SMOOTHNESS, SOFTNESS = 2e-5, 0.05
"""Weight of the functions' second differences, and width of the corner of the quantile's loss."""

COMMON_LATENT, COMMON_BOX, COMMON_CHI2 = 0.99, 0.995, 0.998
"""Shares of stars that lie within the limits of what is usual. Spectra that are not of giants
mostly lie far beyond any of them (tests/evaluation/test_coverage.py); together they
cost 1 % of clean giants."""

RIDGE = 1e-3
"""Of the mean latent variance, added to each direction's: some hardly vary."""

FEWEST = 500
"""Stars without which nothing is found of a model."""


CARD = "CARD.md"


def calibrated(bundle: Bundle, folder: Path, stars: int, seed: int) -> Bundle:
    """Write a bundle again, with how far it can be trusted found anew on simulated giants.

    The weights stay as they are, and what lies beside them is copied; the card names the new
    hash. ``seed`` draws the ``stars``, and must be none of the training's.

    Raises
    ------
    BundleError
        A bundle in ``folder`` already, or a model of real stars alone: what is true of them
        it was told by its dataset, and simulated ones say nothing of how far it is off.
    """
    if (folder / DECLARATION).exists():
        raise BundleError("the folder holds a bundle already", where=folder)
    if "dataset_sha256" in bundle.training:
        raise BundleError(
            "a model of real stars is calibrated on these, at the end of its training",
            wanted="a model of simulated stars", found=bundle.training["data"], where=bundle.name,
        )  # fmt: skip
    held = simulated_held(Simulator(), bundle.vocabulary, stars, seed)
    found = fit_reliability(Predictor(bundle), held, bundle.reliability.trained_on)
    if not found.calibration:
        raise BundleError("too few stars", wanted=f"some {4 * FEWEST:,} or more", found=stars)
    facts = dict(bundle.training) | {"calibration_stars": stars, "calibration_seed": seed}
    dtype = str(bundle.training.get("weights", "float32"))
    made = rewritten(bundle, folder, reliability=found, dtype=dtype, training=facts)
    for path in bundle.path.iterdir():
        if path.is_file() and path.name not in (DECLARATION, WEIGHTS, LATENT, CARD):
            shutil.copy(path, folder / path.name)
    if (bundle.path / CARD).is_file():
        card = (bundle.path / CARD).read_text(encoding="utf-8")
        write_whole(folder / CARD, card.replace(bundle.hash, made.hash).encode())
    return made


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
    prediction, jacobian = differentiate(predictor, held.values, labels)
    errors = np.where(np.isnan(held.values), np.nan, held.errors)
    inputs = jacobian.propagate(InputNoise(errors)).sigma
    context = {"phot_g_mean_mag": held.g_mag} | {
        LABEL_COLUMNS[label]: prediction.mean[:, k].astype(np.float64)
        for k, label in enumerate(labels)
    }
    context = {name: context[name] for name in CONTEXT if name in context}
    at = bundle.vocabulary.columns(labels)
    calibration = {}
    for k, label in enumerate(labels):
        answers = Answered(
            mean=prediction.mean[:, k].astype(np.float64),
            stated=prediction.sigma[:, k].astype(np.float64),
            inputs=inputs[:, k],
            truth=np.where(held.usual, held.truth[:, at[k]], np.nan),
            error=held.truth_errors[:, at[k]],
        )
        found = fit_calibration(answers, context, label in POSITIVE)
        if found is not None:
            calibration[label] = found
    usual = held.values[held.usual]
    chi2 = 0.0
    if checkable(bundle):
        larger = inflate_errors(held.values, held.errors, held.g_mag, bundle.vocabulary)[1]
        of_stars = spectrum_chi2(predictor, usual, larger[held.usual])
        chi2 = float(np.nanquantile(of_stars, COMMON_CHI2))
    beyond = beyond_box(bundle, usual, Job("default").coefficients).max(axis=1)
    return Reliability(
        calibration,
        fit_latent(predictor.summaries(held.values), np.isfinite(held.values)),
        float(np.quantile(beyond, COMMON_BOX)),
        chi2,
        trained_on,
    )


@dataclass(frozen=True, eq=False)
class Answered:
    """Answers for one label of N stars: mean and stated sigma, what the errors of the tokens
    make of it, the truth, NaN where it is not known, and its error, 0 where it is known."""

    mean: Floats
    stated: Floats
    inputs: Floats
    truth: Floats
    error: Floats

    def rows(self, which: NDArray[np.bool_]) -> Answered:
        return Answered(*(value[which] for value in vars(self).values()))


def fit_calibration(
    answers: Answered, context: Mapping[str, Floats], logarithmic: bool = False
) -> Calibration | None:
    """The calibration of one label from its answers; None from too few.

    The catalog's error is the calibrated sigma, or what the errors of the tokens make, if
    that is more: stars that lie within the latter need none of the former. Where the truth
    is a measurement its error is taken out of the residual, in the proportion in which it
    adds to the stated sigma.
    """
    known = np.isfinite(answers.mean) & np.isfinite(answers.truth) & (answers.stated > 0)
    if logarithmic:
        known &= (answers.mean > 0) & (answers.truth > 0)
    if known.sum() < FEWEST:
        return None
    a = answers.rows(known)
    residual = (a.truth - a.mean) * a.stated / np.hypot(a.stated, a.error)
    measured = {SIGMA: np.log(a.stated)} | {
        name: x[known] for name, x in context.items() if np.isfinite(x[known]).all()
    }
    covered = np.abs(residual) < a.inputs
    size = np.where(covered, 0.0, np.abs(residual)) / a.stated
    terms = _terms(np.log(np.maximum(size, 1e-6)), measured)
    whole = np.maximum(Calibration(terms).sigma(a.stated, measured), a.inputs)
    if logarithmic:
        z = np.log1p(np.maximum(residual / a.mean, 1e-6 - 1.0)) / (whole / a.mean)
    else:
        z = residual / whole
    return Calibration(terms, np.array(LEVELS), np.quantile(z, LEVELS), logarithmic)


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
