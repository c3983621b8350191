"""Figures 8 to 12: spectra predicted from labels, and one band from the other."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from catalogproc.datasets.benchmark_stars import Benchmark
from catalogproc.evaluation.quantities import QUANTITIES
from catalogproc.features.one_band import OTHER
from catalogproc.paper import plotting
from catalogproc.paper.context import LABELS, ExperimentContext, Floats, Spectra
from catalogproc.paper.experiment import (
    Check,
    Outcome,
    at_least,
    at_most,
    finite_median,
    rank_correlation,
    robust_scatter,
)
from catalogproc.spectra.inpaint import EDGES, RANGE, InpaintRequest

PERCENTILES = (5, 25, 50, 75, 95, 99)

MAX_RATIO = 0.5
"""Largest accepted ratio of the RMSE from labels to that of the mean spectrum."""

MIN_GAIN = 2.0
"""Smallest accepted ratio of the mean spectrum's RMSE to that of the inpainted band."""

VIOLET, MIDDLE = (336.0, 450.0), (450.0, 950.0)
MAX_BIAS = 2.0
"""Largest accepted median residual between 450 and 950 nm, in per cent."""

CELLS = ("teff", 3600.0, 5800.0, 11), ("logg", 0.3, 3.7, 11), ("m_h", -2.0, 0.5, 10)
"""Cells of figure 11: label, range, number."""

MIN_STARS = 5
"""Cells of fewer stars are left out."""


def mean_spectrum(observed: Spectra) -> Spectra:
    """Return the mean of spectra over G, repeated for each star: a prediction without any input.

    Parameters
    ----------
    observed
        Spectra of N stars.
    """
    flux = np.broadcast_to(observed.flux.mean(axis=0), observed.flux.shape)
    return Spectra(observed.wavelengths, flux, np.zeros_like(flux))


def noise_rmse(observed: Spectra) -> Floats:
    """Return the RMSE (N,) in per cent due to the errors of the observed spectra alone.

    Parameters
    ----------
    observed
        Spectra of N stars.
    """
    rms = np.sqrt(np.mean(observed.error**2, axis=1))
    return np.asarray(100.0 * rms / np.abs(observed.flux.mean(axis=1)))


def spectra_from_labels(context: ExperimentContext) -> Outcome:
    """Return figure 8: spectra predicted from labels.

    Parameters
    ----------
    context
        Model and stars.
    """
    made, observed = context.spectra_from_labels
    rmse = made.rmse(observed)
    mean = mean_spectrum(observed).rmse(observed)
    sample = context.spectra_sample
    predicted = context.predict_one(context.inputs(sample, LABELS), "g_fakemag")[0]
    true = sample.truth[:, context.vocabulary.column("g_fakemag")].astype(float)
    distance_error = QUANTITIES["dist"].residual(predicted, true)
    checks = [
        *_percentiles("RMSE from labels", rmse, mean),
        at_most("median RMSE over that of the mean spectrum", np.median(rmse) / np.median(mean),
                MAX_RATIO),
        Check("median RMSE due to the observed errors alone", np.median(noise_rmse(observed)), "%"),
        Check("distance from labels: scatter", robust_scatter(distance_error), "%"),
        Check("distance from labels: median difference", finite_median(distance_error), "%"),
    ]  # fmt: skip

    def draw(figure: Any) -> None:
        places = figure.subplots(2, 3).ravel()
        for axes, p in zip(places, PERCENTILES, strict=True):
            star = int(np.argsort(rmse)[round((len(rmse) - 1) * p / 100)])
            _compare(axes, made, observed, star, context.measured)
            axes.set_title(f"percentile {p}: RMSE {rmse[star]:.3g} %")
        places[0].legend()
        places[3].set(xlabel="wavelength [nm]", ylabel="flux over mean")

    return Outcome(tuple(checks), draw, stars=_stars(context))


def _stars(context: ExperimentContext) -> str:
    """How many stars there are, and how many of them have a mass and an age."""
    sample = context.spectra_sample
    masses = np.isfinite(sample.truth[:, context.vocabulary.columns(("mass", "log_age"))])
    return f"Stars: {len(sample):,}, {masses.all(axis=1).sum():,} with a mass and an age"


def _percentiles(words: str, rmse: Floats, mean: Floats) -> list[Check]:
    return [
        Check(f"{words}, percentile {p}", float(np.percentile(rmse, p)), "%",
              float(np.percentile(mean, p)), "the mean spectrum")
        for p in PERCENTILES
    ]  # fmt: skip


def _compare(axes: Any, made: Spectra, observed: Spectra, star: int, measured: str) -> None:
    level = observed.flux[star].mean()
    for spectra, colour, words in (
        (observed, plotting.BLUE, measured), (made, plotting.ORANGE, "model"),
    ):  # fmt: skip
        flux, error = spectra.flux[star] / level, spectra.error[star] / level
        axes.fill_between(spectra.wavelengths, flux - error, flux + error, color=colour,
                          alpha=0.2, linewidth=0)  # fmt: skip
        axes.plot(spectra.wavelengths, flux, color=colour, label=words, linewidth=1)


def residuals_by_wavelength(context: ExperimentContext) -> Outcome:
    """Return figure 9: residuals of the same stars by wavelength.

    Parameters
    ----------
    context
        Model and stars.
    """
    made, observed = context.spectra_from_labels
    good = np.where(observed.flux > 0, observed.flux, np.nan)
    relative = 100.0 * (made.flux - observed.flux) / good
    low, middle, high = np.nanpercentile(relative, (16, 50, 84), axis=0)
    wide = 0.5 * (high - low)

    def within(values: Floats, edges: tuple[float, float]) -> Floats:
        return values[(observed.wavelengths >= edges[0]) & (observed.wavelengths <= edges[1])]

    checks = (
        at_most("largest median residual, 450 to 950 nm", np.abs(within(middle, MIDDLE)).max(),
                MAX_BIAS, "%"),
        Check("largest median residual, below 450 nm", np.abs(within(middle, VIOLET)).max(), "%"),
        Check("half the 16 to 84 % range, median over 450 to 950 nm",
              np.median(within(wide, MIDDLE)), "%"),
        at_least("that range below 450 nm over that of 450 to 950 nm",
                 np.median(within(wide, VIOLET)) / np.median(within(wide, MIDDLE)), 1.5),
    )  # fmt: skip

    def draw(figure: Any) -> None:
        axes = figure.subplots()
        axes.fill_between(observed.wavelengths, low, high, color=plotting.BLUE, alpha=0.2,
                          linewidth=0, label="16 to 84 % of stars")  # fmt: skip
        axes.plot(observed.wavelengths, middle, color=plotting.BLUE, label="median")
        axes.axhline(0, color=plotting.INK, linewidth=0.7)
        bottom, top = float(np.percentile(low, 5)), float(np.percentile(high, 90))
        axes.set(xlabel="wavelength [nm]", ylabel="(predicted − observed) / observed [%]",
                 xlim=RANGE, ylim=(1.3 * bottom, 1.3 * top))  # fmt: skip
        axes.legend()

    curves = {"wavelength_nm": observed.wavelengths, "p16": low, "p50": middle, "p84": high}
    return Outcome(checks, draw, curves, _stars(context))


def rmse_by_distance(context: ExperimentContext) -> Outcome:
    """Return figure 10: RMSE against distance and parallax.

    Parameters
    ----------
    context
        Model and stars.
    """
    made, observed = context.spectra_from_labels
    rmse, sample = made.rmse(observed), context.spectra_sample
    nan = np.full(len(sample), np.nan)
    distance = sample.extra.get("dist", nan)
    signal = sample.extra.get("parallax_over_error", nan)
    signal = np.where(signal > 0, signal, np.nan)
    near = rmse[distance < np.nanpercentile(distance, 25)] if np.isfinite(distance).any() else nan
    dust = context.inputs(sample, ("logebv",)).values[:, context.vocabulary.column("logebv")]
    checks = (
        at_least("rank correlation of RMSE with distance", rank_correlation(distance, rmse), 0.0),
        at_most("rank correlation of RMSE with parallax S/N", rank_correlation(signal, rmse), 0.0),
        Check("rank correlation of RMSE with E(B-V)", rank_correlation(dust, rmse)),
        Check("rank correlation of RMSE with that due to the observed errors",
              rank_correlation(noise_rmse(observed), rmse)),
        Check("median RMSE of the nearest quarter", float(np.median(near)), "%"),
        Check("median RMSE of all", float(np.median(rmse)), "%"),
    )  # fmt: skip

    def draw(figure: Any) -> None:
        for axes, x, words in zip(
            figure.subplots(1, 2), (distance, signal), ("distance [kpc]", "parallax S/N"),
            strict=True,
        ):  # fmt: skip
            if not np.isfinite(x).any():
                plotting.empty_panel(axes, f"no {words}")
                continue
            axes.plot(x, rmse, ".", color=plotting.BLUE, alpha=0.3, markersize=3, markeredgewidth=0)
            centre, (p16, p50, p84) = plotting.running_percentiles(x, rmse)
            axes.fill_between(centre, p16, p84, color=plotting.ORANGE, alpha=0.25, linewidth=0)
            axes.plot(centre, p50, color=plotting.ORANGE)
            axes.set(xscale="log", yscale="log", xlabel=words, ylabel="RMSE [%]")
            axes.set_xlim(*np.nanpercentile(x, (0.2, 99.8)))
            plotting.plain_ticks(axes)

    near = (
        f"Stars: {len(sample):,}, {np.isfinite(distance).sum():,} with a distance, "
        f"{np.isfinite(signal).sum():,} with a positive parallax"
    )
    return Outcome(checks, draw, stars=near)


def rmse_over_labels(context: ExperimentContext) -> Outcome:
    """Return figure 11: RMSE over the labels.

    Parameters
    ----------
    context
        Model and stars.
    """
    made, observed = context.spectra_from_labels
    rmse, v = made.rmse(observed), context.vocabulary
    labels = {
        name: context.spectra_sample.truth[:, v.column(name)].astype(float) for name, *_ in CELLS
    }
    pairs = (("teff", "logg"), ("teff", "m_h"), ("m_h", "logg"))
    cells = {pair: _cells(labels, rmse, pair) for pair in pairs}
    known = [cell[np.isfinite(cell)] / np.median(rmse) for cell in cells.values()]
    ratio = np.concatenate(known)
    inner = [cell[1:-1, 1:-1] for cell in cells.values()]
    middle = np.concatenate([cell[np.isfinite(cell)] / np.median(rmse) for cell in inner])
    checks = (
        at_least("share of cells whose median RMSE is within a factor of 2 of that of all",
                 100 * np.mean((ratio > 0.5) & (ratio < 2)) if len(ratio) else np.nan, 80.0, "%"),
        Check("worst cell over the median of all", ratio.max() if len(ratio) else np.nan),
        Check("worst cell that is not at an edge, over the median of all",
              middle.max() if len(middle) else np.nan),
    )  # fmt: skip

    def draw(figure: Any) -> None:
        axis = {name: (low, high) for name, low, high, _ in CELLS}
        words = {"teff": "Teff [K]", "logg": "log g [dex]", "m_h": "[M/H] [dex]"}
        top = float(np.percentile(ratio, 95)) if len(ratio) else 1.0
        for axes, pair in zip(figure.subplots(1, 3), pairs, strict=True):
            extent = (*axis[pair[0]], *axis[pair[1]])
            plotting.plot_map(axes, cells[pair].T / np.median(rmse), extent,
                          "median RMSE over that of all", vmin=0, vmax=top)  # fmt: skip
            axes.set(xlabel=words[pair[0]], ylabel=words[pair[1]])
            if pair[0] == "teff":
                axes.invert_xaxis()
            if pair[1] == "logg":
                axes.invert_yaxis()

    return Outcome(checks, draw, stars=_stars(context))


def _cells(labels: dict[str, Floats], rmse: Floats, pair: tuple[str, str]) -> Floats:
    """Median RMSE (X, Y) by cells of two labels; NaN where there are few stars."""
    edges = {name: np.linspace(low, high, n + 1) for name, low, high, n in CELLS}
    x, y = (np.digitize(labels[name], edges[name]) - 1 for name in pair)
    made = np.full([len(edges[name]) - 1 for name in pair], np.nan)
    for i, j in np.ndindex(*made.shape):
        in_cell = (x == i) & (y == j)
        if in_cell.sum() >= MIN_STARS:
            made[i, j] = np.median(rmse[in_cell])
    return made


def band_inpainting(context: ExperimentContext) -> Outcome:
    """Return figure 12: one band predicted from the other.

    Parameters
    ----------
    context
        Model and stars.
    """
    sample, v = context.spectra_sample, context.vocabulary
    both = np.asarray(np.isfinite(sample.values[:, v.columns(("bp0", "rp0"))]).all(axis=1))
    sample = sample.rows(both)
    with_labels = context.inputs(sample, LABELS).present.any(axis=1)
    labels = context.spectra_from_labels[0]
    labels = Spectra(labels.wavelengths, labels.flux[both], labels.error[both])
    observed = context.observed_spectra(sample)
    mean = mean_spectrum(observed)
    checks: list[Check] = []
    drawn = {}
    for band, edges in EDGES.items():
        other = OTHER[band]
        made = inpainted(context, sample, band).within(*edges)
        target = observed.within(*edges)
        rmse, plain = made.rmse(target), mean.within(*edges).rmse(target)
        words = f"{band.upper()} from {other.upper()}"
        checks += _percentiles(f"RMSE, {words}", rmse, plain)
        checks += [
            at_least(f"{words}: median RMSE of the mean spectrum over the model's",
                     np.median(plain) / np.median(rmse), MIN_GAIN),
            Check(f"{words}: median RMSE over that from labels", finite_median(rmse[with_labels])
                  / finite_median(labels.within(*edges).rmse(target)[with_labels])),
        ]  # fmt: skip
        drawn[words] = (made, target, rmse)
    stars = f"Stars: {len(sample):,} with both bands"
    return Outcome(tuple(checks), partial(_draw_bands, drawn, context.measured), stars=stars)


def inpainted(context: ExperimentContext, stars: Benchmark, band: str) -> Spectra:
    """Return spectra of which a band is predicted from the other.

    Nothing of the predicted band is read: canonical coefficients of the other are of that band
    alone.

    Parameters
    ----------
    context
        The model.
    stars
        Stars with both bands.
    band
        The band that is predicted.
    """
    request = InpaintRequest(OTHER[band], band)
    given = request.read(stars.without_band(request.hidden), context.vocabulary)
    return context.predicted_spectra(given, (band,))


def _draw_bands(
    drawn: dict[str, tuple[Spectra, Spectra, Floats]], measured: str, figure: Any
) -> None:
    for row, (words, (made, target, rmse)) in zip(
        figure.subplots(2, 3), drawn.items(), strict=True
    ):
        for axes, p in zip(row, (25, 50, 75), strict=True):
            star = int(np.argsort(rmse)[round((len(rmse) - 1) * p / 100)])
            _compare(axes, made, target, star, measured)
            axes.set_title(f"{words}, percentile {p}: RMSE {rmse[star]:.3g} %", fontsize=8)
        row[0].set_ylabel("flux over mean")
        row[0].legend()
    row[0].set_xlabel("wavelength [nm]")
