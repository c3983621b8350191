"""Figures of the report: SVG by matplotlib, embedded in the page and using its colours.

pyplot and its global state are not used. Dense layers are rasterised inside of the SVG, so
that its size does not grow with the number of stars. Colour maps are viridis, categories have
the colours of Okabe & Ito (2008): both are safe for colour-blind readers.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec

import numpy as np
from numpy.typing import NDArray

from catalogproc.report import histograms
from catalogproc.report.histograms import Axis, Histograms, Throughput

Float = NDArray[np.float64]

INK, LINE, ACCENT = "#010203", "#040506", "#070809"
"""Placeholders of the page's colours of text, lines and data, which differ in dark mode."""
BLUE, ORANGE, GREEN, SKY = "#0072B2", "#D55E00", "#009E73", "#56B4E9"
MAP = "viridis"
WIDTH, HEIGHT, LOW_HEIGHT = 4.4, 3.5, 2.5
"""Inches, at 72 points: the width suits a phone."""
MIN_GOOD_STARS = 200
"""With at least so many stars in the good sample, only these are drawn."""

_STYLE = {
    "text.usetex": False,  # GaiaXPy, where it was imported, turns LaTeX on
    "svg.fonttype": "none",
    "svg.hashsalt": "catalogproc",
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.labelsize": 10,
    "axes.edgecolor": LINE,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": LINE,
    "grid.linewidth": 0.5,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "legend.fontsize": 9,
    "legend.frameon": False,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
}


P = ParamSpec("P")


def with_style(draw: Callable[P, str]) -> Callable[P, str]:
    """Decorate a function that draws: it runs with the settings of the report.

    Parameters
    ----------
    draw
        A function that returns an SVG.
    """

    @wraps(draw)
    def draw_with_style(*args: P.args, **named: P.kwargs) -> str:
        import matplotlib

        with matplotlib.rc_context(_STYLE):
            return draw(*args, **named)

    return draw_with_style


class Canvas:
    """A figure with one pair of axes, drawn without pyplot."""

    def __init__(self, name: str, height: float = HEIGHT) -> None:
        from matplotlib.backends.backend_svg import FigureCanvasSVG
        from matplotlib.figure import Figure

        self._name = name
        self.figure = Figure(figsize=(WIDTH, height), layout="constrained")
        FigureCanvasSVG(self.figure)
        self.axes = self.figure.add_subplot()

    def svg(self) -> str:
        """Return the figure as an SVG element; its ids start with the figure's name."""
        file = io.BytesIO()
        self.figure.savefig(file, format="svg", dpi=144, metadata={"Date": None})
        text = file.getvalue().decode()
        text = text[text.index("<svg") :]
        text = re.sub(r'\s(width|height)="[\d.]+pt"', "", text, count=2)
        text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
        text = re.sub(r'(\sid="|url\(#|href="#)', rf"\g<1>{self._name}-", text)
        for colour, name in ((INK, "ink"), (LINE, "line"), (ACCENT, "accent")):
            text = text.replace(colour, f"var(--{name})")
        return text


@with_style
def kiel(stars: Histograms) -> str:
    """Draw log g against Teff, coloured by mean [M/H]; good_params only if there are enough.

    Parameters
    ----------
    stars
        The histograms of the catalog.
    """
    canvas, good = Canvas("kiel"), stars.good_params >= MIN_GOOD_STARS
    axes = canvas.axes
    if len(stars.points["teff"]):
        selected = stars.points["good_params"] if good else slice(None)
        shown = {name: stars.points[name][selected] for name in ("teff", "logg", "m_h")}
        low, high = _range(shown["m_h"], 0.02)
        drawn = axes.scatter(
            shown["teff"], shown["logg"], c=shown["m_h"], s=7, cmap=MAP, vmin=low, vmax=high,
            linewidths=0, alpha=0.85, rasterized=True,
        )  # fmt: skip
        axes.set_xlim(*_range(shown["teff"], 0.002, 0.05))
        axes.set_ylim(*_range(shown["logg"], 0.002, 0.05))
    else:
        number = stars.kiel_good if good else stars.kiel
        total_m_h = stars.kiel_good_m_h if good else stars.kiel_m_h
        mean = np.where(number > 0, total_m_h / np.maximum(number, 1), np.nan)
        drawn = _image(axes, mean, histograms.TEFF, histograms.LOGG)
        drawn.set_clim(*_range(mean, 0.02))
        _crop(axes, number, histograms.TEFF, histograms.LOGG)
    axes.invert_xaxis()
    axes.invert_yaxis()
    axes.set(xlabel="effective temperature [K]", ylabel="log g [dex]")
    _colour_bar(canvas, drawn, "[M/H] [dex]")
    return canvas.svg()


@with_style
def masses(stars: Histograms) -> str:
    """Draw the histogram of masses.

    Parameters
    ----------
    stars
        The histograms of the catalog.
    """
    return _histogram("mass", stars.mass, stars.mass_good, histograms.MASS, "mass [solar masses]")


@with_style
def ages(stars: Histograms) -> str:
    """Draw the histogram of ages.

    Parameters
    ----------
    stars
        The histograms of the catalog.
    """
    return _histogram("age", stars.age, stars.age_good, histograms.AGE, "age [Gyr]")


@with_style
def age_metallicity(stars: Histograms) -> str:
    """Draw [M/H] against age; good_mass_age only if there are enough.

    Parameters
    ----------
    stars
        The histograms of the catalog.
    """
    canvas, good = Canvas("agemh"), stars.good_mass_age >= MIN_GOOD_STARS
    axes = canvas.axes
    if len(stars.points["age"]):
        selected = stars.points["good_mass_age"] if good else slice(None)
        age, m_h = (stars.points[name][selected] for name in ("age", "m_h"))
        axes.scatter(age, m_h, s=7, c=BLUE, alpha=0.5, linewidths=0, rasterized=True)
        axes.set_xlim(*_range(age, 0.002, 0.05))
        axes.set_ylim(*_range(m_h, 0.002, 0.05))
    else:
        grid = stars.age_m_h_good if good else stars.age_m_h
        drawn = _image(axes, _positive(grid), histograms.AGE, histograms.METALLICITY)
        drawn.set_norm(_logarithmic(grid))
        _crop(axes, grid, histograms.AGE, histograms.METALLICITY)
        _colour_bar(canvas, drawn, "stars per cell")
    axes.set(xlabel="age [Gyr]", ylabel="[M/H] [dex]")
    return canvas.svg()


@with_style
def uncertainty(stars: Histograms, column: str) -> str:
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
            _plain_log_ticks(axes.yaxis)
    else:
        _message(axes, "too few stars per magnitude bin")
    return canvas.svg()


@with_style
def magnitudes(stars: Histograms) -> str:
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
        canvas.axes.set_xlim(*_span(counts, histograms.MAGNITUDE))
    canvas.axes.set(xlabel="G [mag]", ylabel="stars")
    return canvas.svg()


@with_style
def throughput(measured: Throughput) -> str:
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
    return canvas.svg()


@with_style
def sky(stars: Histograms) -> str:
    """Draw the sky map: Galactic coordinates, Mollweide projection, Galactic centre at (0, 0).

    Parameters
    ----------
    stars
        The histograms of the catalog.
    """
    canvas = Canvas("sky", 3.0)
    axes = canvas.axes
    # The fewer stars, the larger the pixels.
    order = int(np.clip(np.log2(max(stars.with_position, 1)) / 2 - 3, 2, histograms.SKY_ORDER))
    pixels = stars.sky.reshape(12 << 2 * order, -1).sum(axis=1)
    image = _mollweide(pixels, order)
    drawn = axes.imshow(
        np.ma.masked_invalid(_positive(image)), extent=(-2, 2, -1, 1), origin="lower", cmap=MAP,
        norm=_logarithmic(pixels), interpolation="nearest",
    )  # fmt: skip
    _graticule(axes)
    axes.set(xlim=(-2.02, 2.02), ylim=(-1.02, 1.02), aspect="equal")
    axes.axis("off")
    _colour_bar(canvas, drawn, "stars per pixel", location="bottom", shrink=0.5)
    return canvas.svg()


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
) -> str:
    canvas = Canvas(name, 2.9)
    axes, width = canvas.axes, _merged_bins(all_stars, axis)
    edges = axis.edges[::width]
    all_merged, good_merged = (c.reshape(-1, width).sum(axis=1) for c in (all_stars, good))
    axes.stairs(all_merged, edges, fill=True, color=SKY, alpha=0.5, label="all stars")
    axes.stairs(good_merged, edges, color=ORANGE, linewidth=1.6, label="good_mass_age")
    if all_stars.any():
        axes.set_xlim(*_span(all_stars, axis))
        axes.legend()
    axes.set(xlabel=label, ylabel="stars")
    return canvas.svg()


def _merged_bins(counts: NDArray[np.int64], axis: Axis) -> int:
    """Return how many bins to draw as one: the fewer stars, the more."""
    if not counts.any():
        return axis.bins // 20
    low, high = _span(counts, axis)
    occupied = (high - low) / (axis.high - axis.low) * axis.bins
    wanted = occupied / np.clip(np.sqrt(counts.sum()), 10, 80)
    return max(n for n in range(1, axis.bins // 4) if axis.bins % n == 0 and n <= max(wanted, 1))


def _image(axes: Any, values: Float, x: Axis, y: Axis) -> Any:
    return axes.imshow(
        np.ma.masked_invalid(values.T), extent=(x.low, x.high, y.low, y.high), origin="lower",
        aspect="auto", cmap=MAP, interpolation="nearest",
    )  # fmt: skip


def _positive(values: NDArray[Any]) -> Float:
    """Return the values with NaN in place of zeros."""
    with np.errstate(invalid="ignore"):
        return np.where(values > 0, values, np.nan)


def _logarithmic(values: NDArray[np.int64]) -> Any:
    from matplotlib.colors import LogNorm

    return LogNorm(1, max(int(values.max(initial=0)), 2))


def _crop(axes: Any, grid: NDArray[np.int64], x: Axis, y: Axis) -> None:
    if grid.any():
        axes.set_xlim(*_span(grid.sum(axis=1), x))
        axes.set_ylim(*_span(grid.sum(axis=0), y))


def _span(counts: NDArray[np.int64], axis: Axis) -> tuple[float, float]:
    """Return the range of an axis without the outermost 0.1 % of the stars on each side."""
    share = np.cumsum(counts) / counts.sum()
    first = int(np.searchsorted(share, 0.001))
    last = int(np.searchsorted(share, 0.999))
    edges = axis.edges
    return float(edges[max(first - 1, 0)]), float(edges[min(last + 2, axis.bins)])


def _range(values: Float, tail: float, padding: float = 0.0) -> tuple[float, float]:
    """Return the quantiles tail and 1 - tail of the finite values, widened by a fraction."""
    known = values[np.isfinite(values)]
    if not len(known):
        return 0.0, 1.0
    low, high = np.quantile(known, [tail, 1 - tail])
    margin = padding * (high - low) or 1e-3
    return float(low - margin), float(high + margin)


def _colour_bar(canvas: Canvas, drawn: Any, label: str, **options: Any) -> None:
    from matplotlib.colors import LogNorm

    bar = canvas.figure.colorbar(drawn, ax=canvas.axes, **({"pad": 0.02, "aspect": 30} | options))
    bar.outline.set_visible(False)
    bar.set_label(label)
    bar.ax.grid(False)
    if isinstance(drawn.norm, LogNorm):
        _plain_log_ticks(bar.ax.xaxis if options else bar.ax.yaxis)


def _plain_log_ticks(axis: Any) -> None:
    """Label a logarithmic axis with plain numbers."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0), numticks=6))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def _message(axes: Any, text: str) -> None:
    axes.text(0.5, 0.5, text, ha="center", va="center", transform=axes.transAxes)
