"""Figures of the report, drawn by matplotlib on the canvas of the page.

Dense layers are rasterised inside of the SVG, so that its size does not grow with the number of
stars.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from catalogproc.report import histograms
from catalogproc.report.canvas import (
    ACCENT,
    BLUE,
    GREY,
    LINE,
    LOW_HEIGHT,
    MAP,
    ORANGE,
    OTHERS,
    SKY,
    Canvas,
    Float,
    add_colour_bar,
    crop,
    finite_range,
    log_norm,
    plain_log_ticks,
    populated_range,
    positive_or_nan,
    show_grid,
    with_style,
)
from catalogproc.report.histograms import Axis, Histograms, Throughput
from catalogproc.report.trust import MIN_GOOD_STARS, RangeRow


@with_style
def kiel(stars: Histograms) -> Canvas:
    """Draw log g against Teff of stars with good_params, coloured by mean [M/H].

    If they are fewer than MIN_GOOD_STARS, the other stars are drawn too, in grey.

    Parameters
    ----------
    stars
        The histograms of the catalog.
    """
    canvas, few = Canvas("kiel"), stars.good_params < MIN_GOOD_STARS
    axes = canvas.axes
    if len(stars.points["teff"]):
        drawn = _points(axes, stars.points, ("teff", "logg", "m_h"), ("good_params", few))
    else:
        if few:
            show_grid(axes, positive_or_nan(stars.kiel), histograms.TEFF, histograms.LOGG, OTHERS)
        number = stars.kiel_good
        mean = np.where(number > 0, stars.kiel_good_m_h / np.maximum(number, 1), np.nan)
        drawn = show_grid(axes, mean, histograms.TEFF, histograms.LOGG)
        drawn.set_clim(*finite_range(mean, 0.02))
        crop(axes, stars.kiel if few else number, histograms.TEFF, histograms.LOGG)
    axes.invert_xaxis()
    axes.invert_yaxis()
    axes.set(xlabel="effective temperature [K]", ylabel="log g [dex]")
    _say_few(axes, few, stars.good_params, "good_params")
    add_colour_bar(canvas, drawn, "[M/H] [dex]")
    return canvas


@with_style
def evolution(stars: Histograms) -> Canvas:
    """Draw log g against Teff of stars with good_params, coloured by the probability of the clump.

    Parameters
    ----------
    stars
        The histograms of the catalog, of which some stars have a probability.
    """
    from matplotlib.colors import LinearSegmentedColormap

    canvas = Canvas("evolution")
    axes = canvas.axes
    if len(stars.points["teff"]):
        known = stars.points["good_params"] & np.isfinite(stars.points["rc_prob"])
        shown = {name: values[known] for name, values in stars.points.items()}
        drawn = _points(axes, shown, ("teff", "logg", "rc_prob"), ("good_params", False))
    else:
        number = stars.kiel_rc
        mean = np.where(number > 0, stars.kiel_rc_prob / np.maximum(number, 1), np.nan)
        drawn = show_grid(axes, mean, histograms.TEFF, histograms.LOGG)
        crop(axes, number, histograms.TEFF, histograms.LOGG)
    drawn.set_cmap(LinearSegmentedColormap.from_list("evolution", (BLUE, "#bbbbbb", ORANGE)))
    drawn.set_clim(0.0, 1.0)
    axes.invert_xaxis()
    axes.invert_yaxis()
    axes.set(xlabel="effective temperature [K]", ylabel="log g [dex]")
    add_colour_bar(canvas, drawn, "probability of the red clump")
    return canvas


def _points(
    axes: Any, points: Mapping[str, NDArray[Any]], names: tuple[str, ...], sample: tuple[str, bool]
) -> Any:
    """Draw stars of a sample, coloured by the third name, and the others in grey if asked."""
    good, others = points[sample[0]].astype(bool), sample[1]
    shown = np.ones(len(good), dtype=bool) if others else good
    x, y = points[names[0]], points[names[1]]
    if others:
        axes.scatter(x[~good], y[~good], s=6, c=GREY, alpha=0.6, linewidths=0, rasterized=True)
    colour: dict[str, Any] = {"c": BLUE, "alpha": 0.7}
    if len(names) > 2:
        low, high = finite_range(points[names[2]][good], 0.02)
        colour = {"c": points[names[2]][good], "cmap": MAP, "vmin": low, "vmax": high}
    drawn = axes.scatter(
        x[good], y[good], s=14 if others else 8, linewidths=0, rasterized=True, **colour
    )
    axes.set_xlim(*finite_range(x[shown], 0.002, 0.05))
    axes.set_ylim(*finite_range(y[shown], 0.002, 0.05))
    return drawn


def _say_few(axes: Any, few: bool, number: int, sample: str) -> None:
    """Write above a picture that most of its stars are not good ones, where that is so."""
    if few:
        words = f"grey: without {sample}; {number:,} stars have it"
        axes.set_title(words, fontsize=9, color=ORANGE, loc="left")


@with_style
def masses(stars: Histograms) -> Canvas:
    """Draw the histogram of masses.

    Parameters
    ----------
    stars
        The histograms of the catalog.
    """
    return _histogram("mass", stars.mass, stars.mass_good, histograms.MASS, "mass [solar masses]")


@with_style
def ages(stars: Histograms) -> Canvas:
    """Draw the histogram of ages.

    Parameters
    ----------
    stars
        The histograms of the catalog.
    """
    return _histogram("age", stars.age, stars.age_good, histograms.AGE, "age [Gyr]")


@with_style
def age_metallicity(stars: Histograms) -> Canvas:
    """Draw [M/H] against age of stars with good_mass_age, coloured by [alpha/M] where predicted.

    If they are fewer than MIN_GOOD_STARS, the other stars are drawn too, in grey.

    Parameters
    ----------
    stars
        The histograms of the catalog.
    """
    canvas, few = Canvas("agemh"), stars.good_mass_age < MIN_GOOD_STARS
    axes, place = canvas.axes, (histograms.AGE, histograms.METALLICITY)
    if len(stars.points["age"]):
        coloured = np.isfinite(stars.points["alpha_m"][stars.points["good_mass_age"]]).any()
        names = ("age", "m_h", "alpha_m") if coloured else ("age", "m_h")
        drawn = _points(axes, stars.points, names, ("good_mass_age", few))
        if coloured:
            add_colour_bar(canvas, drawn, "[alpha/M] [dex]")
    else:
        if few:
            show_grid(axes, positive_or_nan(stars.age_m_h), *place, OTHERS)
        grid = stars.age_m_h_good
        drawn = show_grid(axes, positive_or_nan(grid), *place)
        drawn.set_norm(log_norm(grid))
        crop(axes, stars.age_m_h if few else grid, *place)
        add_colour_bar(canvas, drawn, "stars per cell")
    axes.set(xlabel="age [Gyr]", ylabel="[M/H] [dex]")
    _say_few(axes, few, stars.good_mass_age, "good_mass_age")
    return canvas


@with_style
def training_ranges(rows: Sequence[RangeRow]) -> Canvas:
    """Draw where the run's stars lie in the range of the training stars, a bar a quantity.

    Parameters
    ----------
    rows
        The quantities; those without a range of the training are left out.
    """
    shown = [row for row in rows if np.isfinite(row.scaled).all()][::-1]
    canvas = Canvas("ranges", 0.42 * max(len(shown), 2) + 0.6)
    axes = canvas.axes
    axes.axvspan(0.0, 1.0, color=SKY, alpha=0.3, linewidth=0)
    for place, row in enumerate(shown):
        p1, p16, p50, p84, p99 = np.clip(row.scaled, -0.75, 1.75)
        axes.plot((p1, p99), (place, place), color=ACCENT, linewidth=1.2)
        axes.plot((p16, p84), (place, place), color=ACCENT, linewidth=5, solid_capstyle="butt")
        axes.plot(p50, place, "o", color=ORANGE, markersize=5)
    axes.set_yticks(range(len(shown)), [row.name for row in shown])
    axes.set(xlim=(-0.8, 1.8), ylim=(-0.6, max(len(shown), 1) - 0.4))
    axes.set_xticks((0.0, 1.0), ("lowest", "highest"))
    axes.set_xlabel("value of the training stars")
    return canvas


@with_style
def uncertainty(stars: Histograms, column: str) -> Canvas:
    """Draw the median of an uncertainty against G, and its 16 to 84 % range.

    Parameters
    ----------
    stars
        The histograms of the catalog.
    column
        One of :data:`catalogproc.report.histograms.UNCERTAINTIES`.
    """
    canvas = Canvas(f"error-{column}", LOW_HEIGHT)
    axes = canvas.axes
    counts = stars.uncertainties[column]
    low, median, high = 10.0 ** histograms.percentiles(counts, histograms.LOG_ERROR)
    g = histograms.MAGNITUDE.centres
    known = np.isfinite(median)
    axes.fill_between(g[known], low[known], high[known], color=SKY, alpha=0.4, linewidth=0)
    axes.plot(g[known], median[known], color=ACCENT, marker="o", markersize=2.5, linewidth=1.2)
    axes.set(xlabel="G [mag]", ylabel=histograms.UNCERTAINTIES[column][1])
    if known.any():
        if high[known].max() > 4 * low[known].min():
            axes.set_yscale("log")
            plain_log_ticks(axes.yaxis)
    else:
        axes.text(
            0.5, 0.5, "too few stars per magnitude bin", ha="center", va="center",
            transform=axes.transAxes,
        )  # fmt: skip
    return canvas


@with_style
def magnitudes(stars: Histograms) -> Canvas:
    """Draw the histogram of G of the stars with an uncertainty of Teff.

    Parameters
    ----------
    stars
        The histograms of the catalog.
    """
    canvas = Canvas("g", LOW_HEIGHT)
    counts = stars.uncertainties["e_teff"].sum(axis=1)
    canvas.axes.stairs(counts, histograms.MAGNITUDE.edges, fill=True, color=SKY)
    if counts.any():
        canvas.axes.set_xlim(*populated_range(counts, histograms.MAGNITUDE))
    canvas.axes.set(xlabel="G [mag]", ylabel="stars")
    return canvas


@with_style
def throughput(measured: Throughput) -> Canvas:
    """Draw stars per second against the time in which chunks were processed.

    Parameters
    ----------
    measured
        The speed of the run; its breaks become dashed lines.
    """
    canvas = Canvas("rate", LOW_HEIGHT)
    axes, duration = canvas.axes, measured.seconds[-1]
    unit, name = next(
        (u, n) for u, n in ((3600, "hours"), (60, "minutes"), (1, "seconds"))
        if duration >= 3 * u or u == 1
    )  # fmt: skip
    axes.stairs(measured.rate, measured.seconds / unit, fill=True, color=SKY, alpha=0.5)
    axes.stairs(measured.rate, measured.seconds / unit, color=ACCENT)
    for moment in measured.breaks:
        axes.axvline(moment / unit, color=ORANGE, linestyle="--", linewidth=1)
    axes.set_ylim(0, None)
    axes.set_xlim(0, duration / unit)
    axes.set(xlabel=f"processing time [{name}]", ylabel="stars per second")
    return canvas


@with_style
def sky(stars: Histograms) -> Canvas:
    """Draw the sky map: Galactic coordinates, Mollweide projection, Galactic centre at (0, 0).

    Parameters
    ----------
    stars
        The histograms of the catalog.
    """
    canvas = Canvas("sky", 3.0)
    canvas.alt = f"map of {stars.with_position:,} stars in Galactic coordinates"
    axes = canvas.axes
    # The fewer stars, the larger the pixels.
    order = int(np.clip(np.log2(max(stars.with_position, 1)) / 2 - 3, 2, histograms.SKY_ORDER))
    pixels = stars.sky.reshape(12 << 2 * order, -1).sum(axis=1)
    image = _mollweide(pixels, order)
    drawn = axes.imshow(
        np.ma.masked_invalid(positive_or_nan(image)), extent=(-2, 2, -1, 1), origin="lower",
        cmap=MAP, norm=log_norm(pixels), interpolation="nearest",
    )  # fmt: skip
    _graticule(axes)
    axes.set(xlim=(-2.02, 2.02), ylim=(-1.02, 1.02), aspect="equal")
    axes.axis("off")
    add_colour_bar(canvas, drawn, "stars per pixel", location="bottom", shrink=0.5)
    return canvas


def _mollweide(pixels: NDArray[np.int64], order: int) -> Float:
    """Return a nested HEALPix map in ICRS as an image (n, 2 n) in Galactic coordinates."""
    from catalogproc.features.astrometry import GALACTIC_FROM_ICRS, healpix

    size = 400
    x, y = np.meshgrid(np.linspace(-2, 2, 2 * size), np.linspace(-1, 1, size))
    inside = (x / 2) ** 2 + y**2 < 1
    theta = np.arcsin(y[inside])
    b = np.arcsin((2 * theta + np.sin(2 * theta)) / np.pi)
    l = -np.pi * x[inside] / (2 * np.cos(theta))  # noqa: E741 (increases to the left)
    direction = np.stack([np.cos(b) * np.cos(l), np.cos(b) * np.sin(l), np.sin(b)])
    u, v, w = np.array(GALACTIC_FROM_ICRS).T @ direction
    ra, dec = np.degrees(np.arctan2(v, u)) % 360.0, np.degrees(np.arcsin(np.clip(w, -1, 1)))
    image = np.full(x.shape, np.nan)
    image[inside] = pixels[healpix(ra, dec, order)]
    return image


def _graticule(axes: Any) -> None:
    latitude = np.radians(np.linspace(-90, 90, 181))
    theta = latitude.copy()
    for _ in range(30):  # Mollweide's auxiliary angle, by Newton's method
        slope = 2 + 2 * np.cos(2 * theta)
        theta -= (2 * theta + np.sin(2 * theta) - np.pi * np.sin(latitude)) / np.maximum(slope, 0.1)
    theta = np.clip(theta, -np.pi / 2, np.pi / 2)
    for longitude in np.radians([-180, -90, 0, 90, 180]):
        axes.plot(2 * longitude / np.pi * np.cos(theta), np.sin(theta), color=LINE, linewidth=0.6)
    for index in (60, 90, 120):
        half_width = 2 * np.cos(theta[index])
        axes.plot([-half_width, half_width], [np.sin(theta[index])] * 2, color=LINE, linewidth=0.6)


def _histogram(
    name: str, all_stars: NDArray[np.int64], good: NDArray[np.int64], axis: Axis, label: str
) -> Canvas:
    canvas = Canvas(name, 2.9)
    axes, width = canvas.axes, _merged_bins(all_stars, axis)
    edges = axis.edges[::width]
    all_merged, good_merged = (c.reshape(-1, width).sum(axis=1) for c in (all_stars, good))
    axes.stairs(all_merged, edges, fill=True, color=SKY, alpha=0.5, label="all stars")
    axes.stairs(good_merged, edges, color=ORANGE, linewidth=1.6, label="good_mass_age")
    if all_stars.any():
        axes.set_xlim(*populated_range(all_stars, axis))
        axes.legend()
    axes.set(xlabel=label, ylabel="stars")
    return canvas


def _merged_bins(counts: NDArray[np.int64], axis: Axis) -> int:
    """Return how many bins to draw as one: the fewer stars, the more."""
    if not counts.any():
        return axis.bins // 20
    low, high = populated_range(counts, axis)
    occupied = (high - low) / (axis.high - axis.low) * axis.bins
    wanted = occupied / np.clip(np.sqrt(counts.sum()), 10, 80)
    return max(n for n in range(1, axis.bins // 4) if axis.bins % n == 0 and n <= max(wanted, 1))
