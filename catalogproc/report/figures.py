"""The report's figures: matplotlib's SVG, to stand inside of a page and take its colours.

No figure knows pyplot or its global state. What is dense is drawn as an image inside of the
SVG, so that its size does not grow with the number of stars. Sequences are in viridis,
categories in the colours of Okabe & Ito (2008): both can be told apart by everybody.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any, ParamSpec

import numpy as np
from numpy.typing import NDArray

from catalogproc.report import histograms as counts
from catalogproc.report.histograms import Axis, Tally

Float = NDArray[np.float64]

INK, LINE, ACCENT = "#010203", "#040506", "#070809"
"""Stand for the page's own colours of text, of faint lines and of data, light or dark."""
BLUE, ORANGE, GREEN, SKY = "#0072B2", "#D55E00", "#009E73", "#56B4E9"
MAP = "viridis"
WIDTH, HEIGHT, LOW = 4.4, 3.5, 2.5
"""Inches, at 72 points: a figure is drawn for the width of a phone."""
ENOUGH = 200
"""So many good stars are drawn without the others."""

_STYLE = {
    "text.usetex": False,  # GaiaXPy, where it was imported, asks for LaTeX
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


def styled(draw: Callable[P, str]) -> Callable[P, str]:
    """A function that draws, and matplotlib's settings as they were when it is done."""

    @wraps(draw)
    def drawn(*args: P.args, **named: P.kwargs) -> str:
        import matplotlib

        with matplotlib.rc_context(_STYLE):
            return draw(*args, **named)

    return drawn


class Canvas:
    """A figure with one pair of axes; ``svg()`` when it is drawn."""

    def __init__(self, name: str, height: float = HEIGHT) -> None:
        from matplotlib.backends.backend_svg import FigureCanvasSVG
        from matplotlib.figure import Figure

        self._name = name
        self.figure = Figure(figsize=(WIDTH, height), layout="constrained")
        FigureCanvasSVG(self.figure)
        self.axes = self.figure.add_subplot()

    def svg(self) -> str:
        """The figure as an SVG element; its ids are unlike those of any other figure."""
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


@styled
def kiel(stars: Tally) -> str:
    """log g over Teff, coloured by the mean [M/H]; stars with good_params if there are enough."""
    canvas, good = Canvas("kiel"), stars.good_params >= ENOUGH
    axes = canvas.axes
    if len(stars.points["teff"]):
        shown = {name: stars.points[name] for name in ("teff", "logg", "m_h")}
        if good:
            shown = {name: values[stars.points["good_params"]] for name, values in shown.items()}
        low, high = _range(shown["m_h"], 0.02)
        drawn = axes.scatter(
            shown["teff"], shown["logg"], c=shown["m_h"], s=7, cmap=MAP, vmin=low, vmax=high,
            linewidths=0, alpha=0.85, rasterized=True,
        )  # fmt: skip
        axes.set_xlim(*_range(shown["teff"], 0.002, 0.05))
        axes.set_ylim(*_range(shown["logg"], 0.002, 0.05))
    else:
        grid = stars.kiel_good if good else stars.kiel
        summed = stars.kiel_good_m_h if good else stars.kiel_m_h
        mean = np.where(grid > 0, summed / np.maximum(grid, 1), np.nan)
        drawn = _image(axes, mean, counts.TEFF, counts.LOGG)
        drawn.set_clim(*_range(mean, 0.02))
        _crop(axes, grid, counts.TEFF, counts.LOGG)
    axes.invert_xaxis()
    axes.invert_yaxis()
    axes.set(xlabel="effective temperature [K]", ylabel="log g [dex]")
    _bar(canvas, drawn, "[M/H] [dex]")
    return canvas.svg()


@styled
def masses(stars: Tally) -> str:
    """How many stars have which mass."""
    return _histogram("mass", stars.mass, stars.mass_good, counts.MASS, "mass [solar masses]")


@styled
def ages(stars: Tally) -> str:
    """How many stars have which age."""
    return _histogram("age", stars.age, stars.age_good, counts.AGE, "age [Gyr]")


@styled
def age_metallicity(stars: Tally) -> str:
    """[M/H] over age; stars with good_mass_age if there are enough."""
    canvas, good = Canvas("agemh"), stars.good_mass_age >= ENOUGH
    axes = canvas.axes
    if len(stars.points["age"]):
        chosen = stars.points["good_mass_age"] if good else slice(None)
        age, m_h = (stars.points[name][chosen] for name in ("age", "m_h"))
        axes.scatter(age, m_h, s=7, c=BLUE, alpha=0.5, linewidths=0, rasterized=True)
        axes.set_xlim(*_range(age, 0.002, 0.05))
        axes.set_ylim(*_range(m_h, 0.002, 0.05))
    else:
        grid = stars.age_m_h_good if good else stars.age_m_h
        drawn = _image(axes, _positive(grid), counts.AGE, counts.METALLICITY)
        drawn.set_norm(_logarithmic(grid))
        _crop(axes, grid, counts.AGE, counts.METALLICITY)
        _bar(canvas, drawn, "stars a cell")
    axes.set(xlabel="age [Gyr]", ylabel="[M/H] [dex]")
    return canvas.svg()


@styled
def error(stars: Tally, name: str) -> str:
    """The median of an error over G, and the range of the middle two thirds of the stars."""
    canvas = Canvas(f"error-{name}", LOW)
    axes = canvas.axes
    low, middle, high = 10.0 ** counts.percentiles(stars.errors[name], counts.LOG_ERROR)
    g = counts.MAGNITUDE.middles
    known = np.isfinite(middle)
    axes.fill_between(g[known], low[known], high[known], color=SKY, alpha=0.4, linewidth=0)
    axes.plot(g[known], middle[known], color=ACCENT, marker="o", markersize=2.5, linewidth=1.2)
    axes.set(xlabel="G [mag]", ylabel=counts.ERRORS[name][1])
    if known.any():
        if high[known].max() > 4 * low[known].min():
            axes.set_yscale("log")
            _plain_log(axes.yaxis)
    else:
        _nothing(axes, "too few stars a magnitude")
    return canvas.svg()


@styled
def magnitudes(stars: Tally) -> str:
    """How many stars have which G magnitude: those of which an error of Teff is known."""
    canvas = Canvas("g", LOW)
    seen = stars.errors["e_teff"].sum(axis=1)
    canvas.axes.stairs(seen, counts.MAGNITUDE.edges, fill=True, color=SKY)
    if seen.any():
        canvas.axes.set_xlim(*_span(seen, counts.MAGNITUDE))
    canvas.axes.set(xlabel="G [mag]", ylabel="stars")
    return canvas.svg()


@styled
def throughput(seconds: Float, rate: Float, breaks: Sequence[float]) -> str:
    """Stars a second over the time in which at least one chunk was worked on.

    ``seconds`` (N + 1,) are the edges of the bins, ``rate`` (N,) is that in each; at
    ``breaks`` the run stood still.
    """
    canvas = Canvas("rate", LOW)
    axes = canvas.axes
    unit, word = next(
        (u, w) for u, w in ((3600, "hours"), (60, "minutes"), (1, "seconds"))
        if seconds[-1] >= 3 * u or u == 1
    )  # fmt: skip
    axes.stairs(rate, seconds / unit, fill=True, color=SKY, alpha=0.5)
    axes.stairs(rate, seconds / unit, color=ACCENT)
    for moment in breaks:
        axes.axvline(moment / unit, color=ORANGE, linestyle="--", linewidth=1)
    axes.set_ylim(0, None)
    axes.set_xlim(0, seconds[-1] / unit)
    axes.set(xlabel=f"{word} at work", ylabel="stars a second")
    return canvas.svg()


@styled
def sky(stars: Tally) -> str:
    """Where the stars lie: all sky, galactic, Mollweide's equal areas, the centre amid."""
    canvas = Canvas("sky", 3.0)
    axes = canvas.axes
    # Few stars would be lost in small pixels.
    order = int(np.clip(np.log2(max(stars.placed, 1)) / 2 - 3, 2, counts.SKY_ORDER))
    pixels = stars.sky.reshape(12 << 2 * order, -1).sum(axis=1)
    image = _mollweide(pixels, order)
    drawn = axes.imshow(
        np.ma.masked_invalid(_positive(image)), extent=(-2, 2, -1, 1), origin="lower", cmap=MAP,
        norm=_logarithmic(pixels), interpolation="nearest",
    )  # fmt: skip
    _graticule(axes)
    axes.set(xlim=(-2.02, 2.02), ylim=(-1.02, 1.02), aspect="equal")
    axes.axis("off")
    _bar(canvas, drawn, "stars a pixel", location="bottom", shrink=0.5)
    return canvas.svg()


def _mollweide(pixels: NDArray[np.int64], order: int) -> Float:
    """An image (n, 2 n) of a nested HEALPix map in ICRS, in galactic coordinates; NaN outside."""
    from catalogproc.features.astrometry import GALACTIC_FROM_ICRS, healpix

    size = 400
    x, y = np.meshgrid(np.linspace(-2, 2, 2 * size), np.linspace(-1, 1, size))
    inside = (x / 2) ** 2 + y**2 < 1
    theta = np.arcsin(y[inside])
    b = np.arcsin((2 * theta + np.sin(2 * theta)) / np.pi)
    l = -np.pi * x[inside] / (2 * np.cos(theta))  # noqa: E741 (increases to the left)
    towards = np.stack([np.cos(b) * np.cos(l), np.cos(b) * np.sin(l), np.sin(b)])
    u, v, w = np.array(GALACTIC_FROM_ICRS).T @ towards
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
    for place in (60, 90, 120):
        reach = 2 * np.cos(theta[place])
        axes.plot([-reach, reach], [np.sin(theta[place])] * 2, color=LINE, linewidth=0.6)


def _histogram(
    name: str, all_stars: NDArray[np.int64], good: NDArray[np.int64], axis: Axis, label: str
) -> str:
    canvas = Canvas(name, 2.9)
    axes, merged = canvas.axes, _merge(all_stars, axis)
    edges = axis.edges[::merged]
    everything, chosen = (c.reshape(-1, merged).sum(axis=1) for c in (all_stars, good))
    axes.stairs(everything, edges, fill=True, color=SKY, alpha=0.5, label="all stars")
    axes.stairs(chosen, edges, color=ORANGE, linewidth=1.6, label="good_mass_age")
    if all_stars.any():
        axes.set_xlim(*_span(all_stars, axis))
        axes.legend()
    axes.set(xlabel=label, ylabel="stars")
    return canvas.svg()


def _merge(seen: NDArray[np.int64], axis: Axis) -> int:
    """How many bins to draw as one: the fewer stars there are, the more."""
    if not seen.any():
        return axis.bins // 20
    low, high = _span(seen, axis)
    occupied = (high - low) / (axis.high - axis.low) * axis.bins
    wanted = occupied / np.clip(np.sqrt(seen.sum()), 10, 80)
    return max(n for n in range(1, axis.bins // 4) if axis.bins % n == 0 and n <= max(wanted, 1))


def _image(axes: Any, values: Float, x: Axis, y: Axis) -> Any:
    return axes.imshow(
        np.ma.masked_invalid(values.T), extent=(x.low, x.high, y.low, y.high), origin="lower",
        aspect="auto", cmap=MAP, interpolation="nearest",
    )  # fmt: skip


def _positive(values: NDArray[Any]) -> Float:
    """NaN where there is nothing."""
    with np.errstate(invalid="ignore"):
        return np.where(values > 0, values, np.nan)


def _logarithmic(values: NDArray[np.int64]) -> Any:
    from matplotlib.colors import LogNorm

    return LogNorm(1, max(int(values.max(initial=0)), 2))


def _crop(axes: Any, grid: NDArray[np.int64], x: Axis, y: Axis) -> None:
    if grid.any():
        axes.set_xlim(*_span(grid.sum(axis=1), x))
        axes.set_ylim(*_span(grid.sum(axis=0), y))


def _span(seen: NDArray[np.int64], axis: Axis) -> tuple[float, float]:
    """The range of an axis that holds all but a thousandth of the stars to each side."""
    share = np.cumsum(seen) / seen.sum()
    first = int(np.searchsorted(share, 0.001))
    last = int(np.searchsorted(share, 0.999))
    edges = axis.edges
    return float(edges[max(first - 1, 0)]), float(edges[min(last + 2, axis.bins)])


def _range(values: Float, tail: float, more: float = 0.0) -> tuple[float, float]:
    """Percentiles of the known values, and a little more to each side."""
    known = values[np.isfinite(values)]
    if not len(known):
        return 0.0, 1.0
    low, high = np.quantile(known, [tail, 1 - tail])
    wider = more * (high - low) or 1e-3
    return float(low - wider), float(high + wider)


def _bar(canvas: Canvas, drawn: Any, label: str, **where: Any) -> None:
    from matplotlib.colors import LogNorm

    bar = canvas.figure.colorbar(drawn, ax=canvas.axes, **({"pad": 0.02, "aspect": 30} | where))
    bar.outline.set_visible(False)
    bar.set_label(label)
    bar.ax.grid(False)
    if isinstance(drawn.norm, LogNorm):
        _plain_log(bar.ax.xaxis if where else bar.ax.yaxis)


def _plain_log(axis: Any) -> None:
    """Ticks of a logarithmic axis as plain numbers."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0), numticks=6))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def _nothing(axes: Any, words: str) -> None:
    axes.text(0.5, 0.5, words, ha="center", va="center", transform=axes.transAxes)
