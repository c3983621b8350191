"""A figure of attenuation: how far predictions are pulled towards the mean of the true values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from catalogproc.evaluation.panel_scores import MODEL, TREES
from catalogproc.evaluation.plots import COLOURS, INK, MARKERS, new_figure, plain_axes, small_png
from catalogproc.evaluation.quantities import QUANTITIES
from catalogproc.evaluation.real_giants_result import QuantityScores

COLUMNS = 4


def attenuation_figure(scores: Sequence[QuantityScores]) -> bytes:
    """Return the bias of each method by decile of the true value, a panel a quantity.

    The dashed line is the bias of a method that gives every star the median of the true values;
    bars hold 68 % of the residuals if they are Gaussian.

    Parameters
    ----------
    scores
        Of the quantities.
    """
    from matplotlib import rc_context

    # GaiaXPy, once imported, switches matplotlib to LaTeX.
    with rc_context({"text.usetex": False}):
        rows = -(-len(scores) // COLUMNS)
        figure = new_figure(2.6 * COLUMNS, 2.35 * rows + 0.3)
        places = figure.subplots(rows, COLUMNS, squeeze=False).ravel()
        for axes, row in zip(places, scores, strict=False):
            _panel(axes, row)
        for axes in places[len(scores) :]:
            axes.axis("off")
        handles, names = places[0].get_legend_handles_labels()
        if len(places) > len(scores):
            places[-1].legend(handles, names, loc="center left", frameon=False, fontsize=8)
        else:
            places[0].legend(frameon=False, fontsize=7)
        return small_png(figure)


def _panel(axes: Any, row: QuantityScores) -> None:
    item = QUANTITIES[row.quantity]
    middle = np.array([one.median for one in row.deciles[MODEL]])
    shift = 0.006 * np.ptp(middle)
    largest = 0.0
    for place, method in enumerate((MODEL, TREES)):
        deciles = row.deciles.get(method, ())
        if len(deciles) != len(middle):
            continue
        bias = np.array([one.bias for one in deciles])
        scatter = np.array([one.scatter for one in deciles])
        axes.errorbar(
            middle + (2 * place - 1) * shift, bias, scatter, fmt=MARKERS[method], markersize=4,
            color=COLOURS[method], elinewidth=0.9, label=method,
        )  # fmt: skip
        largest = max(largest, float(np.max(np.abs(bias) + scatter)))
    centre = float(np.median(middle))
    axes.plot(middle, centre - middle, "--", color=INK, linewidth=0.8, label="no knowledge")
    axes.axhline(0.0, color="#888888", linewidth=0.7)
    axes.set_ylim(-1.15 * largest, 1.15 * largest)
    plain_axes(axes, item.text)
    axes.set_xlabel(f"true value [{item.unit}]", fontsize=8, color=INK)
    axes.set_ylabel(f"bias [{item.unit}]", fontsize=8, color=INK)
