"""The canvas of the report's figures: style, colours, alternative texts, grids and ranges.

pyplot and its global state are not used. Colour maps are viridis, categories have the colours
of Okabe & Ito (2008): both are safe for colour-blind readers.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from functools import wraps
from html import escape
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import numpy as np
from numpy.typing import NDArray

from catalogproc.io.atomic import write_atomic
from catalogproc.report.histograms import Axis

Float = NDArray[np.float64]

INK, LINE, ACCENT = "#1c2330", "#dde1e8", "#0072b2"
"""Text, lines and data in light mode. A page has other colours in their place in dark mode."""
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
R = TypeVar("R")


def with_style(draw: Callable[P, R]) -> Callable[P, R]:
    """Decorate a function that draws: it runs with the settings of the report.

    Parameters
    ----------
    draw
        A function that draws.
    """

    @wraps(draw)
    def draw_with_style(*args: P.args, **named: P.kwargs) -> R:
        import matplotlib

        with matplotlib.rc_context(_STYLE):
            return draw(*args, **named)

    return draw_with_style


class Canvas:
    """A figure, drawn without pyplot.

    Parameters
    ----------
    name
        Beginning of the ids in its SVG.
    height
        Inches; of each row of panels.
    panels
        Rows and columns of panels.

    Attributes
    ----------
    axes, panels
        The first pair of axes of matplotlib, and all of them, row by row.
    alt
        What the picture shows, for readers who do not see it; by default the quantities of the
        axes and their ranges.
    """

    def __init__(self, name: str, height: float = HEIGHT, panels: tuple[int, int] = (1, 1)) -> None:
        from matplotlib.backends.backend_svg import FigureCanvasSVG
        from matplotlib.figure import Figure

        self._name = name
        size = (WIDTH * panels[1], height * panels[0])
        self.figure = Figure(figsize=size, layout="constrained", dpi=144)  # of rasterised layers
        self._svg = FigureCanvasSVG(self.figure)
        self.panels = self.figure.subplots(*panels, squeeze=False).ravel()
        self.axes: Any = self.panels[0]
        self.alt = ""

    @with_style
    def svg(self) -> str:
        """Return the figure as an SVG element; its ids start with the figure's name."""
        file = io.BytesIO()
        # savefig would lay the figure out and draw it twice.
        self._svg.print_svg(file, metadata={"Date": None})
        text = file.getvalue().decode()
        text = text[text.index("<svg") :]
        text = re.sub(r'\s(width|height)="[\d.]+pt"', "", text, count=2)
        text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
        text = re.sub(r'(\sid="|url\(#|href="#)', rf"\g<1>{self._name}-", text)
        for colour, name in ((INK, "ink"), (LINE, "line"), (ACCENT, "accent")):
            text = text.replace(colour, f"var(--{name})")
        alt = escape(self.alt or _alternative_text(self.axes))
        return text.replace("<svg", f'<svg role="img" aria-label="{alt}"', 1)

    @with_style
    def write_png(self, path: Path) -> None:
        """Write the figure as PNG on white: one panel twice as fine as on a page, several less.

        Parameters
        ----------
        path
            The file.
        """
        file = io.BytesIO()
        dpi = 144 if len(self.panels) == 1 else 96
        self.figure.savefig(file, format="png", dpi=dpi, facecolor="white")
        write_atomic(path, file.getvalue())


def _alternative_text(axes: Any) -> str:
    """Return which quantities a picture shows, over which ranges."""
    x, y = axes.get_xlabel(), axes.get_ylabel()
    ends = [f"{min(pair):.4g} to {max(pair):.4g}" for pair in (axes.get_xlim(), axes.get_ylim())]
    if not y:
        rows = ", ".join(label.get_text() for label in reversed(axes.get_yticklabels()))
        return f"{x}: {rows}"
    return f"{y}, {ends[1]}, against {x}, {ends[0]}"


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
