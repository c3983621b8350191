"""Pictures of a judgement, as PNG bytes. Matplotlib is told nothing globally."""

from __future__ import annotations

import io
from collections.abc import Callable
from functools import wraps
from typing import Any

import numpy as np

from catalogproc.evaluation.benchmark import (
    BEST,
    KEPLER,
    KEPLER_PANEL,
    MODEL,
    PANELS,
    TREES,
    Judgement,
    Panel,
)
from catalogproc.evaluation.literature import PUBLISHED
from catalogproc.evaluation.metrics import QUANTITIES

SHOWN = ("teff", "logg", "m_h", "mass", "age", "ebv", "dist")
"""Quantities in the pictures, in columns."""

PUBLISHED_REAL = "published, real stars"

COLOURS = {MODEL: "#0b6e99", TREES: "#d98200", BEST: "#3a3a3a", PUBLISHED_REAL: "#8a5fbf"}
MARKERS = {MODEL: "o", TREES: "s", BEST: "_", PUBLISHED_REAL: "D"}
INK, FAINT = "#222222", "#d9d9d9"
DPI = 130


def _in_plain_text(draw: Callable[[Judgement], bytes]) -> Callable[[Judgement], bytes]:
    """GaiaXPy, where it was imported, asks matplotlib for LaTeX: not for these pictures."""

    @wraps(draw)
    def drawn(judgement: Judgement) -> bytes:
        from matplotlib import rc_context

        with rc_context({"text.usetex": False}):
            return draw(judgement)

    return drawn


@_in_plain_text
def scatter_chart(judgement: Judgement) -> bytes:
    """The scatter of every method by panel, one small chart a quantity.

    Panels that give the truth away are left out: they would take all the room.
    """
    panels = [p.key for p in judgement.panels if p.key in PANELS and TREES in p.answers]
    figure = _figure(9.4, 5.4)
    places = figure.subplots(2, 4).ravel()
    for axes, quantity in zip(places, SHOWN, strict=False):
        for method in (PUBLISHED_REAL, TREES, MODEL, BEST):
            heights = [_height(judgement, panel, method, quantity) for panel in panels]
            wide = method == BEST
            axes.plot(
                range(len(panels)), heights, MARKERS[method], color=COLOURS[method], label=method,
                markersize=19 if wide else 6.5, markeredgewidth=2.2 if wide else 0.9,
                markeredgecolor="white" if method in (MODEL, TREES) else COLOURS[method],
                markerfacecolor="none" if method == PUBLISHED_REAL else COLOURS[method],
            )  # fmt: skip
        axes.set_yscale("log")
        for kind in (axes.yaxis.set_major_formatter, axes.yaxis.set_minor_formatter):
            kind(_few_labels(axes))
        axes.set_xticks(range(len(panels)), panels)
        axes.set_xlim(-0.6, len(panels) - 0.4)
        _plain(axes, f"{QUANTITIES[quantity].text} [{QUANTITIES[quantity].unit}]")
    key = places[len(SHOWN)]
    key.axis("off")
    handles, names = places[0].get_legend_handles_labels()
    key.legend(handles, names, loc="upper left", frameon=False, fontsize=8.5, labelspacing=0.9)
    words = "\n".join(f"{p}  {_wrapped(PANELS[p], 30)}" for p in panels)
    key.text(0.02, 0.42, words, fontsize=7.2, color=INK, va="top", transform=key.transAxes)
    figure.suptitle(_title(judgement, "scatter (1.4826 MAD) by inputs"), fontsize=11, color=INK)
    return _png(figure)


def _height(judgement: Judgement, panel: str, method: str, quantity: str) -> float:
    """A scatter, NaN where it is not known."""
    if method == PUBLISHED_REAL:
        return PUBLISHED.get((panel, quantity), ("", float("nan")))[1]
    line = judgement.find(panel, method, quantity)
    return float("nan") if line is None else line.score.scatter


@_in_plain_text
def residual_panels(judgement: Judgement) -> bytes:
    """Predicted against true: the model's answers, a row a panel, a column a quantity.

    Stars, and on them the median and 16 to 84 % in bins of equal numbers.
    """
    panels = judgement.panels
    figure = _figure(1.95 * len(SHOWN) + 0.4, 1.95 * len(panels) + 0.6)
    places = figure.subplots(len(panels), len(SHOWN), squeeze=False)
    for row, panel in zip(places, panels, strict=True):
        shown = [
            _against_truth(axes, judgement, panel, q) for axes, q in zip(row, SHOWN, strict=True)
        ]
        first = row[shown.index(True)] if any(shown) else row[0]
        first.set_ylabel("predicted", fontsize=8, color=INK)
        words = KEPLER_PANEL if panel.key == KEPLER else PANELS[panel.key]
        row[0].set_title(" ", fontsize=9)  # makes room for the name
        name = row[0].text(0.0, 1.05, f"{panel.key}   {words}", transform=row[0].transAxes,
                           fontsize=8.5, fontweight="bold", color=INK)  # fmt: skip
        name.set_in_layout(False)  # it reaches over its neighbours
    for column, quantity in zip(places.T, SHOWN, strict=True):
        item = QUANTITIES[quantity]
        words = "distance, G = 10 [kpc]" if quantity == "dist" else f"{item.text} [{item.unit}]"
        seen = [axes for axes in column if axes.axison]
        if seen:
            seen[-1].set_xlabel(f"true {words}", fontsize=8, color=INK)
    figure.suptitle(_title(judgement, "answers of the model"), fontsize=11, color=INK)
    return _png(figure)


def _against_truth(axes: Any, judgement: Judgement, panel: Panel, quantity: str) -> bool:
    """Draw one quantity; False, and nothing drawn, where it was not asked."""
    item, answers = QUANTITIES[quantity], panel.answers[MODEL]
    column = panel.truth[:, judgement.vocabulary.column(item.token)]
    line = judgement.find(panel.key, MODEL, quantity)
    if item.token not in answers.labels or line is None:
        axes.axis("off")
        return False
    true, said = item.of(column), item.of(answers.mean[:, answers.labels.index(item.token)])
    if quantity == "dist":
        true, said = 100.0 * true, 100.0 * said  # 10^(0.2 G) of G = 10, in kpc
    known = np.isfinite(true) & np.isfinite(said)
    true, said = true[known], said[known]
    low, high = np.percentile(true, (0.5, 99.5))
    spread = 0.04 * (high - low) + 1e-9
    low, high = low - spread, high + spread
    if len(true) > 2000:
        axes.hexbin(
            true, said, gridsize=42, extent=(low, high, low, high), mincnt=1, bins="log",
            cmap="Blues", linewidths=0.1,
        )  # fmt: skip
    else:
        axes.plot(
            true, said, ".", color=COLOURS[MODEL], alpha=0.35, markersize=3, markeredgewidth=0
        )
    axes.plot((low, high), (low, high), color=INK, linewidth=0.7, linestyle=(0, (4, 3)))
    centre, (p16, p50, p84) = _binned(true, said)
    axes.fill_between(centre, p16, p84, color=COLOURS[TREES], alpha=0.22, linewidth=0)
    axes.plot(centre, p50, color=COLOURS[TREES], linewidth=1.3)
    axes.set_xlim(low, high)
    axes.set_ylim(low, high)
    words = f"{line.score.scatter:.3g} {item.unit}"
    axes.text(0.05, 0.93, words, transform=axes.transAxes, fontsize=7.5, va="top", color=INK)
    _plain(axes, "")
    return True


def _binned(true: Any, said: Any) -> tuple[Any, Any]:
    """Centres of bins of equal numbers of stars (B,), and percentiles 16, 50, 84 (3, B)."""
    bins = int(np.clip(len(true) // 60, 4, 20))
    groups = np.array_split(np.argsort(true, kind="stable"), bins)
    centre = np.array([np.median(true[g]) for g in groups])
    return centre, np.array([np.percentile(said[g], (16, 50, 84)) for g in groups]).T


def _few_labels(axes: Any) -> Any:
    """Labels at 1, 2, 3 and 5 times the powers of ten, and at more where an axis spans little."""
    from matplotlib.ticker import FuncFormatter

    def words(value: float, _: int) -> str:
        low, high = axes.get_ylim()
        leading = value / 10.0 ** np.floor(np.log10(value))
        wanted = (1, 2, 3, 5) if high / low > 4 else (1, 1.5, 2, 3, 4, 5, 6, 8)
        return f"{value:g}" if any(abs(leading - one) < 1e-6 for one in wanted) else ""

    return FuncFormatter(words)


def _title(judgement: Judgement, what: str) -> str:
    return f"{judgement.model} on {judgement.stars}: {what}"


def _wrapped(words: str, width: int) -> str:
    import textwrap

    return "\n    ".join(textwrap.wrap(words, width))


def _figure(width: float, height: float) -> Any:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _plain(axes: Any, title: str) -> None:
    if title:
        axes.set_title(title, fontsize=9, color=INK)
    axes.tick_params(labelsize=7, colors=INK, length=2.5, which="both")
    axes.grid(visible=True, color=FAINT, linewidth=0.4, zorder=0)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color("#888888")


def _png(figure: Any) -> bytes:
    out = io.BytesIO()
    figure.savefig(out, format="png", facecolor="white", metadata={"Software": "catalogproc"})
    return out.getvalue()
