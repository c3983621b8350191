"""Figures 13 to 15: Teff, luminosity, mass and age predicted from log g and [M/H] alone."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from catalogproc.features.extinction import LN_EBV_FLOOR, g_extinction
from catalogproc.network.star_tokens import StarTokens
from catalogproc.paper import plotting
from catalogproc.paper.context import (
    G_SUN,
    NO_DUST,
    ExperimentContext,
    Floats,
    absolute_g,
    giant_branch_teff,
)
from catalogproc.paper.experiment import Check, Outcome, at_least, at_most, rank_correlation

GRID_LOGG, GRID_M_H = np.linspace(0.5, 3.6, 63), np.linspace(-2.0, 0.5, 51)
STEP = 0.2
"""Half the size, in log g and [M/H], of the cells in which test stars are averaged."""

MIN_STARS = 5
"""Cells of fewer stars are left out."""


def _grid(context: ExperimentContext, **more: Any) -> tuple[StarTokens, tuple[int, int]]:
    """Tokens of the grid's stars, and its shape ([M/H], log g)."""
    m_h, logg = np.meshgrid(GRID_M_H, GRID_LOGG, indexing="ij")
    return context.synthetic_inputs(logg=logg.ravel(), m_h=m_h.ravel(), **more), m_h.shape


def mean_by_cell(context: ExperimentContext, name: str) -> tuple[Floats, Floats]:
    """Return the mean of a true label of the test stars by cell.

    Parameters
    ----------
    context
        Has the test stars.
    name
        Name of the label.

    Returns
    -------
    Means (C,), and mean log g and [M/H] (C, 2), of the cells with enough stars.
    """
    v, truth = context.vocabulary, context.stars.truth
    logg, m_h, label = (truth[:, v.column(n)].astype(float) for n in ("logg", "m_h", name))
    middles, means = [], []
    for g in np.arange(GRID_LOGG[0], GRID_LOGG[-1], 2 * STEP):
        for metal in np.arange(GRID_M_H[0], GRID_M_H[-1], 2 * STEP):
            in_cell = (np.abs(logg - g) < STEP) & (np.abs(m_h - metal) < STEP) & np.isfinite(label)
            if in_cell.sum() >= MIN_STARS:
                middles.append((logg[in_cell].mean(), m_h[in_cell].mean()))
                means.append(label[in_cell].mean())
    return np.array(means), np.array(middles).reshape(-1, 2)


def _rms_from_stars(context: ExperimentContext, name: str, **more: Any) -> float:
    """Root mean square difference of the prediction from the mean of the test stars."""
    means, middles = mean_by_cell(context, name)
    if not len(means):
        return float("nan")
    predicted, _ = context.predict_one(
        context.synthetic_inputs(logg=middles[:, 0], m_h=middles[:, 1], **more), name
    )
    return float(np.sqrt(np.mean((predicted - means) ** 2)))


def temperature_and_luminosity(context: ExperimentContext) -> Outcome:
    """Return figure 13: Teff, and luminosity without dust, over log g and [M/H].

    Parameters
    ----------
    context
        Model and stars.
    """
    inputs, shape = _grid(context)
    teff = context.predict_one(inputs, "teff")[0].reshape(shape)
    inputs, _ = _grid(context, logebv=NO_DUST)
    m_g = absolute_g(context.predict_one(inputs, "g_fakemag")[0]).reshape(shape)
    m_g -= g_extinction(np.exp(LN_EBV_FLOOR), teff, context.vocabulary.data_release)
    log_l = 0.4 * (G_SUN - m_g)
    solar = int(np.argmin(np.abs(GRID_M_H)))
    branch = (GRID_LOGG > 1.0) & (GRID_LOGG < 3.2)
    known = branch & np.isfinite(log_l[solar])
    slope = np.polyfit(GRID_LOGG[known], log_l[solar][known], 1)[0] if known.any() else np.nan
    steps = np.diff(teff[:, branch], axis=0)
    difference = (teff[solar] - giant_branch_teff(GRID_LOGG))[branch]
    checks = (
        at_least("Teff falls with [M/H] at fixed log g: share of the grid, log g 1 to 3.2",
                 100 * np.mean(steps < 0), 90.0, "%"),
        Check("Teff: mean slope with [M/H]",
              float((teff[-1, branch] - teff[0, branch]).mean() / np.ptp(GRID_M_H)), "K/dex",
              _slope(context), "the test stars, by cells"),
        at_most("Teff: rms difference from Teff = 5200 - 441 (3.65 - log g), [M/H] 0",
                np.sqrt(np.mean(difference**2)), 150.0, "K"),
        at_most("Teff: rms difference from the mean of the test stars, by cells",
                _rms_from_stars(context, "teff"), 100.0, "K"),
        at_least("luminosity rises as log g falls, [M/H] 0: rank correlation",
                 rank_correlation(-GRID_LOGG[branch], log_l[solar][branch]), 0.95),
        Check("log L: slope with log g, [M/H] 0", float(slope)),
    )  # fmt: skip
    return Outcome(checks, partial(_draw_temperature, teff, log_l))


def _draw_temperature(teff: Floats, log_l: Floats, figure: Any) -> None:
    left, middle, right = figure.subplots(1, 3)
    extent = (GRID_LOGG[0], GRID_LOGG[-1], GRID_M_H[0], GRID_M_H[-1])
    plotting.plot_map(left, teff, extent, "Teff [K]")
    plotting.plot_map(middle, log_l, extent, "log L_G [Sun]")
    for axes in (left, middle):
        axes.invert_xaxis()
        axes.set(xlabel="log g [dex]", ylabel="[M/H] [dex]")
    for metal, colour in ((-1.5, plotting.BLUE), (-0.5, plotting.GREEN), (0.0, plotting.ORANGE)):
        row = int(np.argmin(np.abs(GRID_M_H - metal)))
        right.plot(teff[row], GRID_LOGG, color=colour, label=f"[M/H] {metal:+.1f}")
    right.plot(giant_branch_teff(GRID_LOGG), GRID_LOGG, "--", color=plotting.INK, linewidth=0.9,
               label="giant branch")  # fmt: skip
    right.invert_xaxis()
    right.invert_yaxis()
    right.set(xlabel="Teff [K]", ylabel="log g [dex]")
    right.legend()


def _slope(context: ExperimentContext) -> float:
    """Slope of Teff with [M/H] of the test stars with log g 1 to 3.2: least squares over cells."""
    means, middles = mean_by_cell(context, "teff")
    if len(means) < 6:
        return float("nan")
    chosen = (middles[:, 0] > 1.0) & (middles[:, 0] < 3.2)
    terms = np.column_stack([np.ones(chosen.sum()), middles[chosen], middles[chosen, 0] ** 2])
    return float(np.linalg.lstsq(terms, means[chosen], rcond=None)[0][2])


def with_and_without_teff(context: ExperimentContext) -> Outcome:
    """Return figure 14: mass and log age over log g and [M/H], with and without Teff as an input.

    Parameters
    ----------
    context
        Model and stars.
    """
    inputs, shape = _grid(context)
    with_teff, _ = _grid(context, teff=context.predict_one(inputs, "teff")[0])
    maps = {
        name: [
            [m.reshape(shape) for m in context.predict_one(given, name)]
            for given in (inputs, with_teff)
        ]
        for name in ("mass", "log_age")
    }
    checks = []
    for name, words, unit in (("mass", "mass", "Msun"), ("log_age", "log age", "dex")):
        (before, wide), (after, narrow) = maps[name]
        checks += [
            at_most(f"{words}: median sigma with Teff over that without",
                    np.median(narrow / wide), 1.0),
            Check(f"{words}: share of the grid where Teff makes sigma smaller",
                  100 * float(np.mean(narrow < wide)), "%"),
            at_most(f"{words}: median difference of the two means, in sigmas",
                    np.median(np.abs(after - before) / wide), 0.5),
            Check(f"{words}: rms difference from the mean of the test stars, by cells",
                  _rms_from_stars(context, name), unit),
        ]  # fmt: skip
    solar = int(np.argmin(np.abs(GRID_M_H)))
    mass = maps["mass"][0][0][solar]
    clump, above = (mass[np.abs(GRID_LOGG - g) < 0.1].mean() for g in (2.4, 1.6))
    checks.append(Check("mass at the red clump, log g 2.4, over that at log g 1.6, [M/H] 0",
                        clump / above))  # fmt: skip
    return Outcome(tuple(checks), partial(_draw_with_teff, maps))


def _draw_with_teff(maps: dict[str, list[list[Floats]]], figure: Any) -> None:
    extent = (GRID_LOGG[0], GRID_LOGG[-1], GRID_M_H[0], GRID_M_H[-1])
    for row, (name, label) in zip(
        figure.subplots(2, 4), (("mass", "mass [Msun]"), ("log_age", "log age [yr]")), strict=True
    ):
        (before, wide), (after, narrow) = maps[name]
        shown = [before, after, wide, narrow]
        titles = ("without Teff", "with Teff", "sigma without", "sigma with")
        for pair in (slice(0, 2), slice(2, 4)):
            low, high = np.percentile(np.stack(shown[pair]), (1, 99))
            for axes, values, title in zip(row[pair], shown[pair], titles[pair], strict=True):
                plotting.plot_map(axes, values, extent, label, vmin=low, vmax=high)
                axes.invert_xaxis()
                axes.set(title=title, xlabel="log g [dex]")
        row[0].set_ylabel("[M/H] [dex]")


AGE_LOGG = (1.5, 2.5)
"""log g of the curves of age against [M/H]."""

MIN_DISTMASS_M_H = -0.5
"""[M/H] below which DistMass has no ages."""


def age_and_metallicity(context: ExperimentContext) -> Outcome:
    """Return figure 15: age from log g and [M/H] alone, along [M/H].

    Parameters
    ----------
    context
        Model and stars.
    """
    curves: dict[str, Floats] = {"m_h": GRID_M_H}
    checks = []
    for logg in AGE_LOGG:
        mean, sigma = context.predict_one(
            context.synthetic_inputs(logg=logg, m_h=GRID_M_H), "log_age"
        )
        low, age, high = (10 ** (mean + k * sigma - 9) for k in (-1, 0, 1))
        for name, curve in (("age_16", low), ("age", age), ("age_84", high), ("e_log_age", sigma)):
            curves[f"{name}, log g {logg}"] = curve
        poor, solar = np.interp([-1.5, 0.0], GRID_M_H, age)
        checks += [
            at_least(f"age at [M/H] -1.5 over that at 0, log g {logg}", poor / solar, 1.5),
            Check(f"age at [M/H] -1.5, log g {logg}", poor, "Gyr", 12.0,
                  "Zhang, Bu et al. 2026, real stars"),
            Check(f"age at [M/H] 0, log g {logg}", solar, "Gyr", 4.5,
                  "Zhang, Bu et al. 2026, 4 to 5, real stars"),
        ]  # fmt: skip
    truth, centre = _ages(context)
    if len(centre):
        at = context.synthetic_inputs(logg=AGE_LOGG[1], m_h=centre)
        mean, sigma = context.predict_one(at, "log_age")
        inside = np.abs(truth[1] - mean) < sigma
        checks.append(at_least("share of [M/H] bins whose median star lies in the band, log g 2.5",
                               100 * np.mean(inside), 68.0, "%"))  # fmt: skip
    return Outcome(tuple(checks), partial(_draw_ages, curves, truth, centre), curves)


def _draw_ages(curves: dict[str, Floats], truth: Floats, centre: Floats, figure: Any) -> None:
    axes = figure.subplots()
    for logg, colour in zip(AGE_LOGG, (plotting.BLUE, plotting.ORANGE), strict=True):
        axes.fill_between(
            GRID_M_H, curves[f"age_16, log g {logg}"], curves[f"age_84, log g {logg}"],
            color=colour, alpha=0.18, linewidth=0,
        )  # fmt: skip
        axes.plot(GRID_M_H, curves[f"age, log g {logg}"], color=colour, label=f"log g {logg}")
    if len(centre):
        low, middle, high = (10 ** (t - 9) for t in truth)
        axes.errorbar(
            centre, middle, (middle - low, high - middle), fmt="o", color=plotting.INK,
            markersize=3, linewidth=0.8, label="test stars, log g 2.3 to 2.7",
        )  # fmt: skip
    axes.axvspan(GRID_M_H[0], MIN_DISTMASS_M_H, color="#888888", alpha=0.1, linewidth=0)
    axes.text(GRID_M_H[0] + 0.03, 0.3, "no DistMass ages", fontsize=7)
    axes.set(xlabel="[M/H] [dex]", ylabel="age [Gyr]", ylim=(0, 17), xlim=(-2, 0.5))
    axes.legend(ncols=3, loc="upper left")


def _ages(context: ExperimentContext) -> tuple[Floats, Floats]:
    """Percentiles 16, 50, 84 of the true log age (3, B) in bins of [M/H], and the bins' medians
    (B,), of the test stars with log g 2.3 to 2.7."""
    v, truth = context.vocabulary, context.stars.truth
    logg, m_h, log_age = (truth[:, v.column(n)].astype(float) for n in ("logg", "m_h", "log_age"))
    near = (np.abs(logg - AGE_LOGG[1]) < STEP) & np.isfinite(log_age) & np.isfinite(m_h)
    if near.sum() < 4 * MIN_STARS:
        return np.empty((3, 0)), np.empty(0)
    centre, percentiles = plotting.running_percentiles(m_h[near], log_age[near], bins=10)
    return percentiles, centre
