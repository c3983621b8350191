"""Figures of an evaluation, as PNG bytes. Matplotlib's global settings are not changed."""

from __future__ import annotations

import io
from collections.abc import Callable
from functools import wraps
from typing import Any

import numpy as np

from catalogproc.evaluation.benchmark import BenchmarkResult
from catalogproc.evaluation.literature import PUBLISHED
from catalogproc.evaluation.panel_scores import (
    KEPLER,
    KEPLER_PANEL,
    LIMIT,
    MODEL,
    PANELS,
    TREES,
    Panel,
)
from catalogproc.evaluation.quantities import QUANTITIES

SHOWN = ("teff", "logg", "m_h", "mass", "age", "ebv", "dist")
"""Quantities in the figures, one a column."""

PUBLISHED_REAL = "published, real stars"

COLOURS = {MODEL: "#0b6e99", TREES: "#d98200", LIMIT: "#3a3a3a", PUBLISHED_REAL: "#8a5fbf"}
MARKERS = {MODEL: "o", TREES: "s", LIMIT: "_", PUBLISHED_REAL: "D"}
INK, FAINT = "#222222", "#d9d9d9"
LOGARITHMIC_FROM = 3.0
"""Scatters that differ by less than this factor have a linear axis, for its labels."""
DPI = 130
PALETTE = 160
"""Number of colours of a small PNG."""


def _without_latex(draw: Callable[[BenchmarkResult], bytes]) -> Callable[[BenchmarkResult], bytes]:
    """Turn LaTeX off: importing GaiaXPy turns it on for all of matplotlib."""

    @wraps(draw)
    def drawn(result: BenchmarkResult) -> bytes:
        from matplotlib import rc_context

        with rc_context({"text.usetex": False}):
            return draw(result)

    return drawn


@_without_latex
def scatter_chart(result: BenchmarkResult) -> bytes:
    """Return the scatter of each method by panel, one chart a quantity.

    Panels with true labels among the inputs are left out: their scatter is on another scale.

    Parameters
    ----------
    result
        The evaluation.
    """
    panels = [p.key for p in result.panels if p.key in PANELS and TREES in p.predictions]
    computed = {found.method for found in result.scores}
    methods = [m for m in (PUBLISHED_REAL, TREES, MODEL, LIMIT) if m in {PUBLISHED_REAL, *computed}]
    figure = new_figure(9.4, 5.4)
    places = figure.subplots(2, 4).ravel()
    for axes, quantity in zip(places, SHOWN, strict=False):
        for method in methods:
            heights = [_height(result, panel, method, quantity) for panel in panels]
            wide = method == LIMIT
            axes.plot(
                range(len(panels)), heights, MARKERS[method], color=COLOURS[method], label=method,
                markersize=19 if wide else 6.5, markeredgewidth=2.2 if wide else 0.9,
                markeredgecolor="white" if method in (MODEL, TREES) else COLOURS[method],
                markerfacecolor="none" if method == PUBLISHED_REAL else COLOURS[method],
            )  # fmt: skip
        low, high = axes.get_ylim()
        if high > LOGARITHMIC_FROM * max(low, 0.0):
            axes.set_yscale("log")
            for kind in (axes.yaxis.set_major_formatter, axes.yaxis.set_minor_formatter):
                kind(_few_labels(axes))
        axes.set_xticks(range(len(panels)), panels)
        axes.set_xlim(-0.6, len(panels) - 0.4)
        plain_axes(axes, f"{QUANTITIES[quantity].text} [{QUANTITIES[quantity].unit}]")
    key = places[len(SHOWN)]
    key.axis("off")
    handles, names = places[0].get_legend_handles_labels()
    key.legend(handles, names, loc="upper left", frameon=False, fontsize=8.5, labelspacing=0.9)
    inputs = "\n".join(f"{p}  {_wrapped(PANELS[p], 30)}" for p in panels)
    key.text(0.02, 0.42, inputs, fontsize=7.2, color=INK, va="top", transform=key.transAxes)
    figure.suptitle(_title(result, "scatter (1.4826 MAD) by inputs"), fontsize=11, color=INK)
    return png(figure)


def _height(result: BenchmarkResult, panel: str, method: str, quantity: str) -> float:
    """A scatter, NaN where it is unknown."""
    if method == PUBLISHED_REAL:
        return PUBLISHED.get((panel, quantity), ("", float("nan")))[1]
    found = result.find(panel, method, quantity)
    return float("nan") if found is None else found.score.scatter


@_without_latex
def residual_panels(result: BenchmarkResult) -> bytes:
    """Return the model's predictions against true values, a row a panel, a column a quantity.

    The lines are the median and 16 to 84 % in bins of equal numbers of stars.

    Parameters
    ----------
    result
        The evaluation.
    """
    panels = result.panels
    figure = new_figure(1.95 * len(SHOWN) + 0.4, 1.95 * len(panels) + 0.6)
    places = figure.subplots(len(panels), len(SHOWN), squeeze=False)
    for row, panel in zip(places, panels, strict=True):
        shown = [_against_truth(axes, result, panel, q) for axes, q in zip(row, SHOWN, strict=True)]
        first = row[shown.index(True)] if any(shown) else row[0]
        first.set_ylabel("predicted", fontsize=8, color=INK)
        title = KEPLER_PANEL if panel.key == KEPLER else PANELS[panel.key]
        row[0].set_title(" ", fontsize=9)  # room for the name
        name = row[0].text(0.0, 1.05, f"{panel.key}   {title}", transform=row[0].transAxes,
                           fontsize=8.5, fontweight="bold", color=INK)  # fmt: skip
        name.set_in_layout(False)  # wider than its axes
    for column, quantity in zip(places.T, SHOWN, strict=True):
        item = QUANTITIES[quantity]
        label = "distance, G = 10 [kpc]" if quantity == "dist" else f"{item.text} [{item.unit}]"
        visible = [axes for axes in column if axes.axison]
        if visible:
            visible[-1].set_xlabel(f"true {label}", fontsize=8, color=INK)
    figure.suptitle(_title(result, "predictions of the model"), fontsize=11, color=INK)
    return png(figure)


def _against_truth(axes: Any, result: BenchmarkResult, panel: Panel, quantity: str) -> bool:
    """Draw one quantity; return False, with nothing drawn, where it was not predicted."""
    item, predictions = QUANTITIES[quantity], panel.predictions[MODEL]
    column = panel.truth.values[:, result.vocabulary.column(item.token)]
    found = result.find(panel.key, MODEL, quantity)
    if item.token not in predictions.labels or found is None:
        axes.axis("off")
        return False
    mean = predictions.mean[:, predictions.labels.index(item.token)]
    true, predicted = item.from_token(column), item.from_token(mean)
    if quantity == "dist":
        true, predicted = 100.0 * true, 100.0 * predicted  # times 10^(0.2 G) for G = 10, in kpc
    known = np.isfinite(true) & np.isfinite(predicted)
    true, predicted = true[known], predicted[known]
    low, high = np.percentile(true, (0.5, 99.5))
    spread = 0.04 * (high - low) + 1e-9
    low, high = low - spread, high + spread
    if len(true) > 2000:
        axes.hexbin(
            true, predicted, gridsize=42, extent=(low, high, low, high), mincnt=1, bins="log",
            cmap="Blues", linewidths=0.1,
        )  # fmt: skip
    else:
        axes.plot(
            true, predicted, ".", color=COLOURS[MODEL], alpha=0.35, markersize=3, markeredgewidth=0
        )
    axes.plot((low, high), (low, high), color=INK, linewidth=0.7, linestyle=(0, (4, 3)))
    centre, (p16, p50, p84) = _binned(true, predicted)
    axes.fill_between(centre, p16, p84, color=COLOURS[TREES], alpha=0.22, linewidth=0)
    axes.plot(centre, p50, color=COLOURS[TREES], linewidth=1.3)
    axes.set_xlim(low, high)
    axes.set_ylim(low, high)
    scatter = f"{found.score.scatter:.3g} {item.unit}"
    axes.text(0.05, 0.93, scatter, transform=axes.transAxes, fontsize=7.5, va="top", color=INK)
    plain_axes(axes, "")
    return True


def _binned(true: Any, predicted: Any) -> tuple[Any, Any]:
    """Centres of bins of equal numbers of stars (B,), and percentiles 16, 50, 84 (3, B)."""
    bins = int(np.clip(len(true) // 60, 4, 20))
    groups = np.array_split(np.argsort(true, kind="stable"), bins)
    centre = np.array([np.median(true[g]) for g in groups])
    return centre, np.array([np.percentile(predicted[g], (16, 50, 84)) for g in groups]).T


def _few_labels(axes: Any) -> Any:
    """Tick labels at 1, 2, 3 and 5 times powers of ten; more where the axis range is small."""
    from matplotlib.ticker import FuncFormatter

    def label(value: float, _: int) -> str:
        low, high = axes.get_ylim()
        leading = value / 10.0 ** np.floor(np.log10(value))
        labelled = (1, 2, 3, 5) if high / low > 4 else (1, 1.5, 2, 3, 4, 5, 6, 8)
        return f"{value:g}" if any(abs(leading - one) < 1e-6 for one in labelled) else ""

    return FuncFormatter(label)


def _title(result: BenchmarkResult, content: str) -> str:
    return f"{result.model} on {result.stars}: {content}"


def _wrapped(text: str, width: int) -> str:
    import textwrap

    return "\n    ".join(textwrap.wrap(text, width))


def new_figure(width: float, height: float) -> Any:
    """Return an empty figure.

    Parameters
    ----------
    width, height
        In inches.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def plain_axes(axes: Any, title: str) -> None:
    """Give axes a title, a grid and no frame.

    Parameters
    ----------
    axes, title
        Where, and the title; "" for none.
    """
    if title:
        axes.set_title(title, fontsize=9, color=INK)
    axes.tick_params(labelsize=7, colors=INK, length=2.5, which="both")
    axes.grid(visible=True, color=FAINT, linewidth=0.4, zorder=0)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color("#888888")


def small_png(figure: Any) -> bytes:
    """Return a figure of few colours as a PNG with a palette.

    Parameters
    ----------
    figure
        Of :func:`new_figure`.
    """
    from PIL import Image

    image, out = Image.open(io.BytesIO(png(figure))).convert("RGB"), io.BytesIO()
    few = image.quantize(PALETTE, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    few.save(out, format="png", optimize=True)
    return out.getvalue()


def png(figure: Any) -> bytes:
    """Return a figure as a PNG.

    Parameters
    ----------
    figure
        Of :func:`new_figure`.
    """
    out = io.BytesIO()
    figure.savefig(out, format="png", facecolor="white", metadata={"Software": "catalogproc"})
    return out.getvalue()
