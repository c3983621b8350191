"""Plotting functions of the experiments. Matplotlib's global settings are not changed."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray

from catalogproc.paper.experiment import Experiment, Outcome

Floats = NDArray[np.floating]

BLUE, ORANGE, GREEN, PURPLE, INK, FAINT = (
    "#0072B2", "#D55E00", "#009E73", "#8a5fbf", "#222222", "#d9d9d9",
)  # fmt: skip
MAP = "viridis"
DPI = 100
COLOURS = 160
"""Number of colours in a PNG's palette, which keeps the file small."""

STYLE = {
    "text.usetex": False,  # importing GaiaXPy turns LaTeX on
    "font.family": "sans-serif", "font.size": 8.5, "axes.titlesize": 9, "axes.labelsize": 8.5,
    "axes.edgecolor": "#888888", "axes.labelcolor": INK, "axes.spines.top": False,
    "axes.spines.right": False, "axes.axisbelow": True, "axes.grid": True, "grid.color": FAINT,
    "grid.linewidth": 0.4, "text.color": INK, "xtick.color": INK, "ytick.color": INK,
    "xtick.labelsize": 7.5, "ytick.labelsize": 7.5, "legend.fontsize": 7.5,
    "legend.frameon": False, "lines.linewidth": 1.3,
}  # fmt: skip


def render_png(experiment: Experiment, outcome: Outcome) -> bytes:
    """Return the experiment's figure as a PNG with a palette.

    Parameters
    ----------
    experiment
        Has the size.
    outcome
        Has the drawing function.
    """
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from PIL import Image

    with rc_context(STYLE):
        figure = Figure(figsize=experiment.size, dpi=DPI, layout="constrained", facecolor="white")
        canvas = FigureCanvasAgg(figure)
        outcome.draw(figure)
        canvas.draw()
        pixels = np.asarray(canvas.buffer_rgba())[..., :3]
    image = Image.fromarray(np.ascontiguousarray(pixels))
    image = image.quantize(COLOURS, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    out = io.BytesIO()
    image.save(out, format="png", optimize=True)
    return out.getvalue()


def density(axes: Any, x: Floats, y: Floats, limits: tuple[float, float, float, float]) -> None:
    """Plot stars as counts in cells; as points where there are few.

    Parameters
    ----------
    axes
        Where.
    x, y
        Coordinates (N,).
    limits
        Range of x and of y.
    """
    good = np.isfinite(x) & np.isfinite(y)
    low_x, high_x, low_y, high_y = limits
    if good.sum() > 1500:
        axes.hexbin(
            x[good], y[good], gridsize=36, extent=limits, mincnt=1, bins="log", cmap="Blues",
            linewidths=0.1,
        )  # fmt: skip
    else:
        axes.plot(x[good], y[good], ".", color=BLUE, alpha=0.4, markersize=3, markeredgewidth=0)
    axes.set(xlim=(low_x, high_x), ylim=(low_y, high_y))


def plot_identity(axes: Any, true: Floats, predicted: Floats, words: str = "") -> None:
    """Plot predicted against true values, the identity, and percentiles along it.

    Parameters
    ----------
    axes
        Where.
    true, predicted
        Values (N,).
    words
        Text in the corner.
    """
    good = np.isfinite(true) & np.isfinite(predicted)
    if not good.any():
        empty_panel(axes, "no stars with both values")
        return
    low, high = (float(edge) for edge in np.percentile(true[good], (0.5, 99.5)))
    margin = 0.04 * (high - low) + 1e-9
    low, high = low - margin, high + margin
    density(axes, true, predicted, (low, high, low, high))
    axes.plot((low, high), (low, high), color=INK, linewidth=0.7, linestyle=(0, (4, 3)))
    centre, residual = running_percentiles(true, predicted - true, bins=20)
    p16, p50, p84 = centre + residual
    axes.fill_between(centre, p16, p84, color=ORANGE, alpha=0.2, linewidth=0)
    axes.plot(centre, p50, color=ORANGE)
    axes.text(0.05, 0.95, words, transform=axes.transAxes, va="top", fontsize=7.5)


def running_percentiles(x: Floats, y: Floats, bins: int = 14) -> tuple[Floats, Floats]:
    """Return medians of x (B,) and percentiles 16, 50, 84 of y (3, B) in bins of equal numbers.

    Parameters
    ----------
    x, y
        Values (N,).
    bins
        Largest number of bins.
    """
    good = np.isfinite(x) & np.isfinite(y)
    order = np.flatnonzero(good)[np.argsort(x[good], kind="stable")]
    groups = np.array_split(order, int(np.clip(len(order) // 25, 1, bins)))
    centre = np.array([np.median(x[group]) for group in groups])
    return centre, np.array([np.percentile(y[group], (16, 50, 84)) for group in groups]).T


def plot_map(axes: Any, values: Floats, extent: Any, label: str, **more: Any) -> None:
    """Plot a map with its colour bar.

    Parameters
    ----------
    axes
        Where.
    values
        The map (Y, X).
    extent
        Range of x and of y.
    label
        Label of the colour bar.
    more
        Passed to matplotlib's ``imshow``.
    """
    shown = axes.imshow(
        np.ma.masked_invalid(values), origin="lower", extent=extent, aspect="auto",
        interpolation="nearest", **({"cmap": MAP} | more),
    )  # fmt: skip
    axes.grid(visible=False)
    bar = axes.figure.colorbar(shown, ax=axes, pad=0.02, aspect=24)
    bar.outline.set_visible(False)
    bar.set_label(label)


def plain_ticks(axes: Any) -> None:
    """Label logarithmic axes with plain numbers: 1, 2, 5, 10.

    Parameters
    ----------
    axes
        Where.
    """
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    for axis in (axes.xaxis, axes.yaxis):
        if axis.get_scale() == "log":
            low, high = axis.get_view_interval()
            subs = (1.0, 2.0, 5.0) if high < 300 * low else (1.0,)
            axis.set_major_locator(LogLocator(subs=subs, numticks=12))
            axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            axis.set_minor_formatter(NullFormatter())


def empty_panel(axes: Any, words: str) -> None:
    """Leave axes empty, with the reason.

    Parameters
    ----------
    axes
        Where.
    words
        The reason.
    """
    axes.text(0.5, 0.5, words, ha="center", va="center", transform=axes.transAxes)
    axes.set_axis_off()
