"""Figures 8 to 12: spectra from labels, and one band from the other, against what was seen."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from catalogproc.evaluation.metrics import QUANTITIES
from catalogproc.paper import plotting
from catalogproc.paper.base import (
    LABELS,
    Floats,
    Number,
    Outcome,
    Setting,
    Spectra,
    at_least,
    at_most,
    in_order,
    middle,
)
from catalogproc.spectra.inpaint import JOINED, RANGE, Question

PERCENTILES = (5, 25, 50, 75, 95, 99)

HALF = 0.5
"""A spectrum is reconstructed where its RMSE is at most so much of the mean spectrum's."""

INPAINTED = 2.0
"""A band is inpainted where the mean spectrum's RMSE is at least so many times as large."""

VIOLET, MIDDLE = (336.0, 450.0), (450.0, 950.0)
BIASED = 2.0
"""Per cent by which the median residual may be off between 450 and 950 nm."""

CELLS = ("teff", 3600.0, 5800.0, 11), ("logg", 0.3, 3.7, 11), ("m_h", -2.0, 0.5, 10)
"""Of figure 11: a label, its range, and how many cells."""

FEWEST = 5


def mean_spectrum(seen: Spectra) -> Spectra:
    """The mean of the spectra over G, for each of them: what is known of a star's spectrum before
    anything is known of the star, and nearly the best that one spectrum for all can do."""
    flux = np.broadcast_to(seen.flux.mean(axis=0), seen.flux.shape)
    return Spectra(seen.wavelengths, flux, np.zeros_like(flux))


def noise(seen: Spectra) -> Floats:
    """RMSE (N,) in per cent that the errors of what was seen make alone."""
    rms = np.sqrt(np.mean(seen.error**2, axis=1))
    return np.asarray(100.0 * rms / np.abs(seen.flux.mean(axis=1)))


def from_labels(setting: Setting) -> Outcome:
    """Figure 8."""
    made, seen = setting.from_labels
    rmse = made.rmse(seen)
    mean = mean_spectrum(seen).rmse(seen)
    few = setting.few
    said = setting.one(setting.known(few, LABELS), "g_fakemag")[0]
    true = few.truth[:, setting.vocabulary.column("g_fakemag")].astype(float)
    far = QUANTITIES["dist"].residual(said, true)
    far = far[np.isfinite(far)]
    numbers = [
        *_percentiles("RMSE from labels", rmse, mean),
        at_most("median RMSE over that of the mean spectrum", np.median(rmse) / np.median(mean),
                HALF),
        Number("median RMSE that the observed errors make alone", np.median(noise(seen)), "%"),
        Number("distance from labels: scatter", 1.4826 * np.median(np.abs(far - np.median(far)))
               if len(far) else np.nan, "%"),
        Number("distance from labels: median difference", np.median(far) if len(far) else np.nan,
               "%"),
    ]  # fmt: skip

    def draw(figure: Any) -> None:
        places = figure.subplots(2, 3).ravel()
        for axes, p in zip(places, PERCENTILES, strict=True):
            star = int(np.argsort(rmse)[round((len(rmse) - 1) * p / 100)])
            _compare(axes, made, seen, star)
            axes.set_title(f"{p} % of stars are better: RMSE {rmse[star]:.3g} %")
        places[0].legend()
        places[3].set(xlabel="wavelength [nm]", ylabel="flux over mean")

    return Outcome(tuple(numbers), draw)


def _percentiles(words: str, rmse: Floats, mean: Floats) -> list[Number]:
    return [
        Number(f"{words}, percentile {p}", float(np.percentile(rmse, p)), "%",
               float(np.percentile(mean, p)), "the mean spectrum")
        for p in PERCENTILES
    ]  # fmt: skip


def _compare(axes: Any, made: Spectra, seen: Spectra, star: int) -> None:
    level = seen.flux[star].mean()
    for spectra, colour, words in (
        (seen, plotting.BLUE, "observed"), (made, plotting.ORANGE, "the model"),
    ):  # fmt: skip
        flux, error = spectra.flux[star] / level, spectra.error[star] / level
        axes.fill_between(spectra.wavelengths, flux - error, flux + error, color=colour,
                          alpha=0.2, linewidth=0)  # fmt: skip
        axes.plot(spectra.wavelengths, flux, color=colour, label=words, linewidth=1)


def by_wavelength(setting: Setting) -> Outcome:
    """Figure 9."""
    made, seen = setting.from_labels
    good = np.where(seen.flux > 0, seen.flux, np.nan)
    relative = 100.0 * (made.flux - seen.flux) / good
    low, middle, high = np.nanpercentile(relative, (16, 50, 84), axis=0)
    wide = 0.5 * (high - low)

    def within(values: Floats, edges: tuple[float, float]) -> Floats:
        return values[(seen.wavelengths >= edges[0]) & (seen.wavelengths <= edges[1])]

    numbers = (
        at_most("largest median residual, 450 to 950 nm", np.abs(within(middle, MIDDLE)).max(),
                BIASED, "%"),
        Number("largest median residual, below 450 nm", np.abs(within(middle, VIOLET)).max(), "%"),
        Number("half the 16 to 84 % range, median over 450 to 950 nm",
               np.median(within(wide, MIDDLE)), "%"),
        at_least("that range below 450 nm over that of 450 to 950 nm",
                 np.median(within(wide, VIOLET)) / np.median(within(wide, MIDDLE)), 1.5),
    )  # fmt: skip

    def draw(figure: Any) -> None:
        axes = figure.subplots()
        axes.fill_between(seen.wavelengths, low, high, color=plotting.BLUE, alpha=0.2, linewidth=0,
                          label="16 to 84 % of stars")  # fmt: skip
        axes.plot(seen.wavelengths, middle, color=plotting.BLUE, label="median")
        axes.axhline(0, color=plotting.INK, linewidth=0.7)
        edge = 1.3 * float(np.percentile(np.abs(np.r_[low, high]), 95))
        axes.set(xlabel="wavelength [nm]", ylabel="(predicted − observed) / observed [%]",
                 xlim=RANGE, ylim=(-edge, edge))  # fmt: skip
        axes.legend()

    curves = {"wavelength_nm": seen.wavelengths, "p16": low, "p50": middle, "p84": high}
    return Outcome(numbers, draw, curves)


def by_distance(setting: Setting) -> Outcome:
    """Figure 10."""
    made, seen = setting.from_labels
    rmse, few = made.rmse(seen), setting.few
    nan = np.full(len(few), np.nan)
    distance = few.beside.get("dist", nan)
    signal = few.beside.get("parallax_over_error", nan)
    signal = np.where(signal > 0, signal, np.nan)
    near = rmse[distance < np.nanpercentile(distance, 25)] if np.isfinite(distance).any() else nan
    dust = setting.known(few, ("logebv",))[:, setting.vocabulary.column("logebv")]
    numbers = (
        at_least("rank correlation of RMSE with distance", in_order(distance, rmse), 0.0),
        at_most("rank correlation of RMSE with parallax S/N", in_order(signal, rmse), 0.0),
        Number("rank correlation of RMSE with E(B-V)", in_order(dust, rmse)),
        Number("rank correlation of RMSE with what the observed errors make of it",
               in_order(noise(seen), rmse)),
        Number("median RMSE of the nearest quarter", float(np.median(near)), "%"),
        Number("median RMSE of all", float(np.median(rmse)), "%"),
    )  # fmt: skip

    def draw(figure: Any) -> None:
        for axes, x, words in zip(
            figure.subplots(1, 2), (distance, signal), ("distance [kpc]", "parallax S/N"),
            strict=True,
        ):  # fmt: skip
            if not np.isfinite(x).any():
                plotting.nothing(axes, f"no {words}")
                continue
            axes.plot(x, rmse, ".", color=plotting.BLUE, alpha=0.3, markersize=3, markeredgewidth=0)
            centre, (p16, p50, p84) = plotting.running(x, rmse)
            axes.fill_between(centre, p16, p84, color=plotting.ORANGE, alpha=0.25, linewidth=0)
            axes.plot(centre, p50, color=plotting.ORANGE)
            axes.set(xscale="log", yscale="log", xlabel=words, ylabel="RMSE [%]")
            axes.set_xlim(*np.nanpercentile(x, (0.2, 99.8)))
            plotting.plain_ticks(axes)

    return Outcome(numbers, draw)


def over_labels(setting: Setting) -> Outcome:
    """Figure 11."""
    made, seen = setting.from_labels
    rmse, v = made.rmse(seen), setting.vocabulary
    labels = {name: setting.few.truth[:, v.column(name)].astype(float) for name, *_ in CELLS}
    pairs = (("teff", "logg"), ("teff", "m_h"), ("m_h", "logg"))
    cells = {pair: _cells(labels, rmse, pair) for pair in pairs}
    known = [cell[np.isfinite(cell)] / np.median(rmse) for cell in cells.values()]
    ratio = np.concatenate(known)
    inner = [cell[1:-1, 1:-1] for cell in cells.values()]
    middle = np.concatenate([cell[np.isfinite(cell)] / np.median(rmse) for cell in inner])
    numbers = (
        at_least("share of cells whose median RMSE is within a factor of 2 of that of all",
                 100 * np.mean((ratio > 0.5) & (ratio < 2)) if len(ratio) else np.nan, 80.0, "%"),
        Number("worst cell over the median of all", ratio.max() if len(ratio) else np.nan),
        Number("worst cell that is not at an edge, over the median of all",
               middle.max() if len(middle) else np.nan),
    )  # fmt: skip

    def draw(figure: Any) -> None:
        axis = {name: (low, high) for name, low, high, _ in CELLS}
        words = {"teff": "Teff [K]", "logg": "log g [dex]", "m_h": "[M/H] [dex]"}
        top = float(np.percentile(ratio, 95)) if len(ratio) else 1.0
        for axes, pair in zip(figure.subplots(1, 3), pairs, strict=True):
            extent = (*axis[pair[0]], *axis[pair[1]])
            plotting.image(figure, axes, cells[pair].T / np.median(rmse), extent,
                          "median RMSE over that of all", vmin=0, vmax=top)  # fmt: skip
            axes.set(xlabel=words[pair[0]], ylabel=words[pair[1]])
            if pair[0] == "teff":
                axes.invert_xaxis()
            if pair[1] == "logg":
                axes.invert_yaxis()

    return Outcome(numbers, draw)


def _cells(labels: dict[str, Floats], rmse: Floats, pair: tuple[str, str]) -> Floats:
    """Median RMSE (X, Y) by cells of two labels; NaN where there are few stars."""
    edges = {name: np.linspace(low, high, n + 1) for name, low, high, n in CELLS}
    x, y = (np.digitize(labels[name], edges[name]) - 1 for name in pair)
    made = np.full([len(edges[name]) - 1 for name in pair], np.nan)
    for i, j in np.ndindex(*made.shape):
        there = (x == i) & (y == j)
        if there.sum() >= FEWEST:
            made[i, j] = np.median(rmse[there])
    return made


def one_band_from_the_other(setting: Setting) -> Outcome:
    """Figure 12."""
    few, v = setting.few, setting.vocabulary
    both = np.asarray(np.isfinite(few.values[:, v.columns(("bp0", "rp0"))]).all(axis=1))
    few = few.rows(both)
    told = np.isfinite(setting.known(few, LABELS)).any(axis=1)
    labels = setting.from_labels[0]
    labels = Spectra(labels.wavelengths, labels.flux[both], labels.error[both])
    seen = setting.observed(few)
    mean = mean_spectrum(seen)
    numbers: list[Number] = []
    drawn = {}
    for band, other, edges in (
        ("bp", "rp", (RANGE[0], JOINED)), ("rp", "bp", (JOINED, RANGE[1])),
    ):  # fmt: skip
        given = Question(other, band).read(few.values.astype(np.float64), v)
        made = setting.spectra(given, (band,)).within(*edges)
        target = seen.within(*edges)
        rmse, plain = made.rmse(target), mean.within(*edges).rmse(target)
        words = f"{band.upper()} from {other.upper()}"
        numbers += _percentiles(f"RMSE, {words}", rmse, plain)
        numbers += [
            at_least(f"{words}: median RMSE of the mean spectrum over the model's",
                     np.median(plain) / np.median(rmse), INPAINTED),
            Number(f"{words}: median RMSE over that from labels", middle(rmse[told])
                   / middle(labels.within(*edges).rmse(target)[told])),
        ]  # fmt: skip
        drawn[words] = (made, target, rmse)
    return Outcome(tuple(numbers), partial(_draw_bands, drawn))


def _draw_bands(drawn: dict[str, tuple[Spectra, Spectra, Floats]], figure: Any) -> None:
    for row, (words, (made, target, rmse)) in zip(
        figure.subplots(2, 3), drawn.items(), strict=True
    ):
        for axes, p in zip(row, (25, 50, 75), strict=True):
            star = int(np.argsort(rmse)[round((len(rmse) - 1) * p / 100)])
            _compare(axes, made, target, star)
            axes.set_title(f"{words}, {p} % are better: RMSE {rmse[star]:.3g} %", fontsize=8)
        row[0].set_ylabel("flux over mean")
        row[0].legend()
    row[0].set_xlabel("wavelength [nm]")
