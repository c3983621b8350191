"""Figures 13 to 15: Teff, luminosity, mass and age over log g and [M/H] alone."""

from __future__ import annotations

from typing import Any

import numpy as np

from catalogproc.features.extinction import LN_EBV_FLOOR, g_extinction
from catalogproc.paper import plotting
from catalogproc.paper.base import (
    G_SUN,
    NO_DUST,
    Floats,
    Number,
    Outcome,
    Setting,
    absolute_g,
    at_least,
    at_most,
    giant_branch,
    in_order,
)

GRID_LOGG, GRID_M_H = np.linspace(0.5, 3.6, 63), np.linspace(-2.0, 0.5, 51)
STEP = 0.2
"""Half a cell in log g and [M/H] within which the test stars are averaged, to stand beside."""

FEWEST = 5
"""Stars in a cell below which its mean says nothing."""


def _grid(setting: Setting, **more: Any) -> tuple[Floats, tuple[int, int]]:
    """Tokens of the grid's stars (N, V), and its shape ([M/H], log g)."""
    m_h, logg = np.meshgrid(GRID_M_H, GRID_LOGG, indexing="ij")
    return setting.table(logg=logg.ravel(), m_h=m_h.ravel(), **more), m_h.shape


def beside(setting: Setting, name: str) -> tuple[Floats, Floats]:
    """Mean (log g, [M/H] cells) of a true label of the test stars, and the cells' middles (C, 2).

    Cells of few stars are left out.
    """
    v, truth = setting.vocabulary, setting.stars.truth
    logg, m_h, label = (truth[:, v.column(n)].astype(float) for n in ("logg", "m_h", name))
    middles, means = [], []
    for g in np.arange(GRID_LOGG[0], GRID_LOGG[-1], 2 * STEP):
        for metal in np.arange(GRID_M_H[0], GRID_M_H[-1], 2 * STEP):
            there = (np.abs(logg - g) < STEP) & (np.abs(m_h - metal) < STEP) & np.isfinite(label)
            if there.sum() >= FEWEST:
                middles.append((logg[there].mean(), m_h[there].mean()))
                means.append(label[there].mean())
    return np.array(means), np.array(middles).reshape(-1, 2)


def _off(setting: Setting, name: str, **more: Any) -> float:
    """Root mean square difference of the model's answer from the mean of the test stars."""
    means, middles = beside(setting, name)
    if not len(means):
        return float("nan")
    said, _ = setting.one(setting.table(logg=middles[:, 0], m_h=middles[:, 1], **more), name)
    return float(np.sqrt(np.mean((said - means) ** 2)))


def temperature_and_luminosity(setting: Setting) -> Outcome:
    """Figure 13: Teff, and luminosity without dust, over log g and [M/H]."""
    given, shape = _grid(setting)
    teff = setting.one(given, "teff")[0].reshape(shape)
    given, _ = _grid(setting, logebv=NO_DUST)
    m_g = absolute_g(setting.one(given, "g_fakemag")[0]).reshape(shape)
    m_g -= g_extinction(np.exp(LN_EBV_FLOOR), teff)
    log_l = 0.4 * (G_SUN - m_g)
    solar = int(np.argmin(np.abs(GRID_M_H)))
    branch = (GRID_LOGG > 1.0) & (GRID_LOGG < 3.2)
    line = giant_branch(GRID_LOGG)
    good = branch & np.isfinite(log_l[solar])
    slope = np.polyfit(GRID_LOGG[good], log_l[solar][good], 1)[0] if good.any() else np.nan
    steps = np.diff(teff[:, branch], axis=0)
    numbers = (
        at_least("Teff falls with [M/H] at fixed log g: share of the grid, log g 1 to 3.2",
                 100 * np.mean(steps < 0), 90.0, "%"),
        Number("Teff: mean slope with [M/H]",
               float((teff[-1, branch] - teff[0, branch]).mean() / np.ptp(GRID_M_H)), "K/dex",
               _slope(setting), "the test stars, by cells"),
        at_most("Teff: rms difference from Teff = 5200 - 441 (3.65 - log g), [M/H] 0",
                np.sqrt(np.mean((teff[solar] - line)[branch] ** 2)), 150.0, "K"),
        at_most("Teff: rms difference from the mean of the test stars, by cells",
                _off(setting, "teff"), 100.0, "K"),
        at_least("luminosity rises as log g falls, [M/H] 0: rank correlation",
                 in_order(-GRID_LOGG[branch], log_l[solar][branch]), 0.95),
        Number("log L: slope with log g, [M/H] 0", float(slope)),
    )  # fmt: skip

    def draw(figure: Any) -> None:
        left, middle, right = figure.subplots(1, 3)
        extent = (GRID_LOGG[0], GRID_LOGG[-1], GRID_M_H[0], GRID_M_H[-1])
        plotting.image(figure, left, teff, extent, "Teff [K]")
        plotting.image(figure, middle, log_l, extent, "log L_G [Sun]")
        for axes in (left, middle):
            axes.invert_xaxis()
            axes.set(xlabel="log g [dex]", ylabel="[M/H] [dex]")
        for metal, colour in (
            (-1.5, plotting.BLUE),
            (-0.5, plotting.GREEN),
            (0.0, plotting.ORANGE),
        ):
            row = int(np.argmin(np.abs(GRID_M_H - metal)))
            right.plot(teff[row], GRID_LOGG, color=colour, label=f"[M/H] {metal:+.1f}")
        right.plot(line, GRID_LOGG, "--", color=plotting.INK, linewidth=0.9, label="giant branch")
        right.invert_xaxis()
        right.invert_yaxis()
        right.set(xlabel="Teff [K]", ylabel="log g [dex]")
        right.legend()

    return Outcome(numbers, draw)


def _slope(setting: Setting) -> float:
    """dTeff/d[M/H] of the test stars' cells with log g 1 to 3.2, by least squares with log g."""
    means, middles = beside(setting, "teff")
    if len(means) < 6:
        return float("nan")
    chosen = (middles[:, 0] > 1.0) & (middles[:, 0] < 3.2)
    terms = np.column_stack([np.ones(chosen.sum()), middles[chosen], middles[chosen, 0] ** 2])
    return float(np.linalg.lstsq(terms, means[chosen], rcond=None)[0][2])


def with_and_without_teff(setting: Setting) -> Outcome:
    """Figure 14: mass and log age over log g and [M/H], before and after Teff is told too."""
    given, shape = _grid(setting)
    teff = setting.one(given, "teff")[0]
    told, _ = _grid(setting, teff=teff)
    maps = {
        name: [[m.reshape(shape) for m in setting.one(g, name)] for g in (given, told)]
        for name in ("mass", "log_age")
    }
    numbers = []
    for name, words, unit in (("mass", "mass", "Msun"), ("log_age", "log age", "dex")):
        (before, wide), (after, narrow) = maps[name]
        numbers += [
            at_most(f"{words}: median sigma with Teff over that without",
                    np.median(narrow / wide), 1.0),
            Number(f"{words}: share of the grid where Teff makes sigma smaller",
                   100 * float(np.mean(narrow < wide)), "%"),
            at_most(f"{words}: median difference of the two means, in sigmas",
                    np.median(np.abs(after - before) / wide), 0.5),
            Number(f"{words}: rms difference from the mean of the test stars, by cells",
                   _off(setting, name), unit),
        ]  # fmt: skip
    solar = int(np.argmin(np.abs(GRID_M_H)))
    mass = maps["mass"][0][0][solar]
    clump, above = (mass[np.abs(GRID_LOGG - g) < 0.1].mean() for g in (2.4, 1.6))
    numbers.append(Number("mass at the red clump, log g 2.4, over that at log g 1.6, [M/H] 0",
                          clump / above))  # fmt: skip

    def draw(figure: Any) -> None:
        extent = (GRID_LOGG[0], GRID_LOGG[-1], GRID_M_H[0], GRID_M_H[-1])
        rows = figure.subplots(2, 4)
        for row, (name, words) in zip(
            rows, (("mass", "mass [Msun]"), ("log_age", "log age [yr]")), strict=True
        ):
            shown = [maps[name][0][0], maps[name][1][0], maps[name][0][1], maps[name][1][1]]
            titles = ("without Teff", "with Teff", "sigma without", "sigma with")
            for pair in (slice(0, 2), slice(2, 4)):
                low, high = np.percentile(np.stack(shown[pair]), (1, 99))
                for axes, values, title in zip(row[pair], shown[pair], titles[pair], strict=True):
                    plotting.image(figure, axes, values, extent, words, vmin=low, vmax=high)
                    axes.invert_xaxis()
                    axes.set(title=title, xlabel="log g [dex]")
            row[0].set_ylabel("[M/H] [dex]")

    return Outcome(tuple(numbers), draw)


AGE_LOGG = (1.5, 2.5)
"""Of the curves of age against [M/H]."""

LABELS_END = -0.5
"""[M/H] below which DistMass has no ages (SCIENCE.md 1)."""


def age_and_metallicity(setting: Setting) -> Outcome:
    """Figure 15: age from log g and [M/H] alone, along [M/H]."""
    curves: dict[str, Floats] = {"m_h": GRID_M_H}
    numbers = []
    for logg in AGE_LOGG:
        mean, sigma = setting.one(setting.table(logg=logg, m_h=GRID_M_H), "log_age")
        low, age, high = (10 ** (mean + k * sigma - 9) for k in (-1, 0, 1))
        for name, curve in (("age_16", low), ("age", age), ("age_84", high), ("e_log_age", sigma)):
            curves[f"{name}, log g {logg}"] = curve
        poor, solar = np.interp([-1.5, 0.0], GRID_M_H, age)
        numbers += [
            at_least(f"age at [M/H] -1.5 over that at 0, log g {logg}", poor / solar, 1.5),
            Number(f"age at [M/H] -1.5, log g {logg}", poor, "Gyr", 12.0, "the seed paper, real"),
            Number(f"age at [M/H] 0, log g {logg}", solar, "Gyr", 4.5,
                   "the seed paper, 4 to 5, real"),
        ]  # fmt: skip
    truth, centre = _ages(setting)
    if len(centre):
        at = setting.table(logg=AGE_LOGG[1], m_h=centre)
        mean, sigma = setting.one(at, "log_age")
        inside = np.abs(truth[1] - mean) < sigma
        numbers.append(at_least("share of [M/H] bins whose median star lies in the band, log g 2.5",
                                100 * np.mean(inside), 68.0, "%"))  # fmt: skip

    def draw(figure: Any) -> None:
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
        axes.axvspan(GRID_M_H[0], LABELS_END, color="#888888", alpha=0.1, linewidth=0)
        axes.text(GRID_M_H[0] + 0.03, 0.3, "no DistMass ages here", fontsize=7)
        axes.set(xlabel="[M/H] [dex]", ylabel="age [Gyr]", ylim=(0, 17), xlim=(-2, 0.5))
        axes.legend(ncols=3, loc="upper left")

    return Outcome(tuple(numbers), draw, curves)


def _ages(setting: Setting) -> tuple[Floats, Floats]:
    """Of the test stars with log g 2.3 to 2.7: percentiles 16, 50, 84 of the true log age (3, B)
    in bins of [M/H], and the bins' middles (B,)."""
    v, truth = setting.vocabulary, setting.stars.truth
    logg, m_h, log_age = (truth[:, v.column(n)].astype(float) for n in ("logg", "m_h", "log_age"))
    near = (np.abs(logg - AGE_LOGG[1]) < STEP) & np.isfinite(log_age) & np.isfinite(m_h)
    if near.sum() < 4 * FEWEST:
        return np.empty((3, 0)), np.empty(0)
    centre, percentiles = plotting.running(m_h[near], log_age[near], bins=10)
    return percentiles, centre
