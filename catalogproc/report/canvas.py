"""The canvas of the report's figures: style, colours, grids, ranges and colour bars.

pyplot and its global state are not used. Colour maps are viridis, categories have the colours
of Okabe & Ito (2008): both are safe for colour-blind readers.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec

import numpy as np
from numpy.typing import NDArray

from catalogproc.report.histograms import Axis

Float = NDArray[np.float64]

INK, LINE, ACCENT = "#010203", "#040506", "#070809"
"""Placeholders of the page's colours of text, lines and data, which differ in dark mode."""
BLUE, ORANGE, SKY = "#0072B2", "#D55E00", "#56B4E9"
GREY = "#999999"
MAP, OTHERS = "viridis", "Greys"
"""Colour maps, of good stars and of others."""
WIDTH, HEIGHT, LOW_HEIGHT = 4.4, 3.5, 2.5
"""Inches, at 72 points: the width suits a phone."""

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


def show_grid(axes: Any, values: Float, x: Axis, y: Axis, colours: str = MAP) -> Any:
    """Draw values on a grid as an image, and return it.

    Parameters
    ----------
    axes
        Axes of matplotlib.
    values
        Values (x.bins, y.bins); NaN is left blank.
    x, y
        The bins.
    colours
        Name of the colour map.
    """
    return axes.imshow(
        np.ma.masked_invalid(values.T), extent=(x.low, x.high, y.low, y.high), origin="lower",
        aspect="auto", cmap=colours, interpolation="nearest",
    )  # fmt: skip


def positive_or_nan(values: NDArray[Any]) -> Float:
    """Return the values with NaN in place of zeros.

    Parameters
    ----------
    values
        Numbers of any shape, such as counts.
    """
    with np.errstate(invalid="ignore"):
        return np.where(values > 0, values, np.nan)


def log_norm(values: NDArray[np.int64]) -> Any:
    """Return a logarithmic colour scale from 1 to the largest value.

    Parameters
    ----------
    values
        Counts of any shape.
    """
    from matplotlib.colors import LogNorm

    return LogNorm(1, max(int(values.max(initial=0)), 2))


def crop(axes: Any, counts: NDArray[np.int64], x: Axis, y: Axis) -> None:
    """Limit both axes to :func:`populated_range`; do nothing without stars.

    Parameters
    ----------
    axes
        Axes of matplotlib.
    counts
        Stars (x.bins, y.bins).
    x, y
        The bins.
    """
    if counts.any():
        axes.set_xlim(*populated_range(counts.sum(axis=1), x))
        axes.set_ylim(*populated_range(counts.sum(axis=0), y))


def populated_range(counts: NDArray[np.int64], axis: Axis) -> tuple[float, float]:
    """Return the range of an axis without the outermost 0.1 % of the stars on each side.

    Parameters
    ----------
    counts
        Stars (axis.bins,); some are needed.
    axis
        The bins.
    """
    share = np.cumsum(counts) / counts.sum()
    first = int(np.searchsorted(share, 0.001))
    last = int(np.searchsorted(share, 0.999))
    edges = axis.edges
    return float(edges[max(first - 1, 0)]), float(edges[min(last + 2, axis.bins)])


def finite_range(values: Float, tail: float, padding: float = 0.0) -> tuple[float, float]:
    """Return quantiles of the finite values as a range; (0, 1) without any.

    Parameters
    ----------
    values
        Numbers of any shape.
    tail
        The quantiles are those of tail and 1 - tail.
    padding
        Fraction by which the range is widened on each side.
    """
    known = values[np.isfinite(values)]
    if not len(known):
        return 0.0, 1.0
    low, high = np.quantile(known, [tail, 1 - tail])
    margin = padding * (high - low) or 1e-3
    return float(low - margin), float(high + margin)


def add_colour_bar(canvas: Canvas, drawn: Any, label: str, **options: Any) -> None:
    """Add a colour bar.

    Parameters
    ----------
    canvas
        The figure.
    drawn
        What is coloured: an image or points.
    label
        Quantity and unit.
    options
        Options of matplotlib's colorbar, for one that is not vertical.
    """
    from matplotlib.colors import LogNorm

    bar = canvas.figure.colorbar(drawn, ax=canvas.axes, **({"pad": 0.02, "aspect": 30} | options))
    bar.outline.set_visible(False)
    bar.set_label(label)
    bar.ax.grid(False)
    if isinstance(drawn.norm, LogNorm):
        plain_log_ticks(bar.ax.xaxis if options else bar.ax.yaxis)


def plain_log_ticks(axis: Any) -> None:
    """Label a logarithmic axis with plain numbers.

    Parameters
    ----------
    axis
        The x or y axis of matplotlib.
    """
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0), numticks=6))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())
