"""An evaluation as text, CSV and figures."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

from catalogproc.evaluation.benchmark import BenchmarkResult
from catalogproc.evaluation.literature import PUBLISHED
from catalogproc.evaluation.panel_scores import (
    ALL,
    EVALUATED,
    GRAVITY,
    KEPLER,
    KEPLER_PANEL,
    LIMIT,
    MODEL,
    PANELS,
    SAMPLES,
    TREES,
    PanelScore,
)
from catalogproc.evaluation.quantities import QUANTITIES
from catalogproc.io.atomic import write_atomic

HEADER = (
    "quantity", "unit", "stars", "scatter", "spread", "R2", "slope", "slope of truth", "bias",
    "16 %", "84 %", "sd of z", "< 1 σ", "< 2 σ", TREES, LIMIT, "scatter/limit",
    "published, real stars",
)  # fmt: skip

FIELDS = (
    "panel", "inputs", "method", "sample", "quantity", "unit", "stars", "scatter", "bias", "p16",
    "p84", "rms", "z_std", "within_1_sigma", "within_2_sigma", "spread", "r2", "correlation",
    "slope", "slope_of_truth", "scatter_over_limit", "published_scatter", "published_in",
)  # fmt: skip


def rows(result: BenchmarkResult, panel: str) -> list[tuple[str, ...]]:
    """Return the cells of a panel's table, under HEADER.

    Parameters
    ----------
    result
        The evaluation.
    panel
        Letter of the panel.
    """
    method = TREES if panel == "a" else MODEL
    cells = []
    for quantity in EVALUATED:
        found = result.find(panel, method, quantity)
        if found is None:
            continue
        score, unit = found.score, QUANTITIES[quantity].unit
        number = score.scatter
        cells.append((
            QUANTITIES[quantity].text, unit, f"{score.stars:,}",
            figure(number), figure(score.spread, number),
            *(decimals(x) for x in (score.r2, score.slope, score.slope_of_truth)),
            *(figure(x, number) for x in (score.bias, score.p16, score.p84)),
            figure(score.z_std), _per_cent(score.within_1_sigma), _per_cent(score.within_2_sigma),
            "" if panel == "a" else _scatter(result.find(panel, TREES, quantity), number),
            _scatter(result.find(panel, LIMIT, quantity), number),
            figure(found.limit_ratio), _published(panel, quantity),
        ))  # fmt: skip
    return cells


def text(result: BenchmarkResult) -> str:
    """Return the evaluation as Markdown tables, for a terminal or a model card.

    Parameters
    ----------
    result
        The evaluation.
    """
    lines = [
        f"# {result.model} ({result.hash[:8]}) on {result.stars}",
        "",
        "Scatter is 1.4826 times the median absolute deviation of predicted minus true, bias its "
        "median;",
        "z is (predicted - true) / sigma, where sigma includes the error of the true value. Spread "
        "is the scatter of the true values;",
        "slope is that of the predicted values on the true ones, slope of truth that of the true "
        "values on the predicted ones. "
        + ("The stars are real." if result.real else "The stars are simulated."),
        *_about_limit(result),
        *_about_samples(result),
    ]
    for panel in [*PANELS, KEPLER]:
        cells = rows(result, panel)
        if not cells:
            continue
        lines += ["", f"## {panel}: {KEPLER_PANEL if panel == KEPLER else PANELS[panel]}", ""]
        lines += markdown(HEADER, cells)
        lines += _by_sample(result, panel)
        gravity = result.find(panel, GRAVITY, "mass")
        if gravity is not None:
            lines += ["", f"Real stars, seismic masses. Mass as g R² from log g and luminosity: "
                      f"scatter {figure(gravity.score.scatter)}, "
                      f"bias {figure(gravity.score.bias)} Msun."]  # fmt: skip
    return "\n".join(lines) + "\n"


def _about_limit(result: BenchmarkResult) -> list[str]:
    stars = {found.score.stars for found in result.scores if found.method == LIMIT}
    if not stars:
        return []
    return [
        f"The information limit is the posterior mean under the simulator's prior and noise, for "
        f"{max(stars):,} of the stars;",
        "scatter/limit is the ratio on these stars.",
    ]


def _about_samples(result: BenchmarkResult) -> list[str]:
    sizes = result.sample_sizes
    if not sizes:
        return []
    listed = [f"- {name}: {meaning}, {sizes[name]:,}" for name, meaning in SAMPLES.items()]
    return ["", "The tables are of all stars; below each are scores of these samples:", "", *listed]


def _by_sample(result: BenchmarkResult, panel: str) -> list[str]:
    """Scatter and bias of each sample, of the method that the panel is of."""
    method = TREES if panel == "a" else MODEL
    cells = []
    for quantity in EVALUATED:
        found = {name: result.find(panel, method, quantity, name) for name in SAMPLES}
        of_all = found[ALL]
        if of_all is None or not any(score for name, score in found.items() if name != ALL):
            continue
        like = of_all.score.scatter
        by_sample = (
            f"{figure(x.score.scatter, like)}, {figure(x.score.bias, like)} ({x.score.stars:,})"
            if x else "" for x in found.values()
        )  # fmt: skip
        cells.append((QUANTITIES[quantity].text, QUANTITIES[quantity].unit, *by_sample))
    if not cells:
        return []
    return ["", "Scatter, bias (stars):", "", *markdown(("quantity", "unit", *SAMPLES), cells)]


def markdown(header: tuple[str, ...], cells: Sequence[tuple[str, ...]]) -> Iterator[str]:
    """Yield the lines of a Markdown table, without empty columns.

    Parameters
    ----------
    header, cells
        Column names, and the cells of each row.
    """
    used = [i for i in range(len(header)) if any(row[i] for row in cells)]
    widths = [max(len(row[i]) for row in [header, *cells]) for i in used]

    def line(row: tuple[str, ...]) -> str:
        padded = [row[i].ljust(w) if i == 0 else row[i].rjust(w)
                  for i, w in zip(used, widths, strict=True)]  # fmt: skip
        return "| " + " | ".join(padded) + " |"

    yield line(header)
    yield (
        "|" + "|".join("-" * (w + 1) + ("-" if i == 0 else ":") for i, w in enumerate(widths)) + "|"
    )
    yield from (line(row) for row in cells)


def csv_text(result: BenchmarkResult) -> str:
    """Return all scores as CSV, a row a method and quantity, under FIELDS.

    Parameters
    ----------
    result
        The evaluation.
    """
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(FIELDS)
    for found in result.scores:
        score = found.score
        source, number = PUBLISHED.get((found.panel, score.label), ("", math.nan))
        comparable = found.sample == ALL and found.method == (
            TREES if found.panel == "a" else MODEL
        )
        numbers = (score.scatter, score.bias, score.p16, score.p84, score.rms, score.z_std,
                   score.within_1_sigma, score.within_2_sigma, score.spread, score.r2,
                   score.correlation, score.slope, score.slope_of_truth,
                   found.limit_ratio)  # fmt: skip
        writer.writerow([
            found.panel, found.inputs, found.method, found.sample, score.label,
            QUANTITIES[score.label].unit, score.stars,
            *("" if math.isnan(x) else f"{x:.6g}" for x in numbers),
            number if comparable and source else "", source if comparable else "",
        ])  # fmt: skip
    return out.getvalue()


def write_scorecard(result: BenchmarkResult, folder: Path) -> list[Path]:
    """Write evaluation.md, evaluation.csv, scatter.png and residuals.png; return their paths.

    Parameters
    ----------
    result
        The evaluation.
    folder
        Where to write.
    """
    from catalogproc.evaluation import plots

    parts = {
        "evaluation.md": text(result).encode(),
        "evaluation.csv": csv_text(result).encode(),
        "scatter.png": plots.scatter_chart(result),
        "residuals.png": plots.residual_panels(result),
    }
    for name, content in parts.items():
        write_atomic(folder / name, content)
    return [folder / name for name in parts]


def figure(number: float, like: float | None = None) -> str:
    """Return a number with the decimals that give ``like`` three digits; "" for NaN.

    Parameters
    ----------
    number
        The number.
    like
        Sets the number of decimals; by default the number itself.
    """
    if math.isnan(number):
        return ""
    size = abs(number if like is None else like)
    digits = 3 if size == 0 else max(0, 2 - math.floor(math.log10(size)))
    text = f"{number:,.{min(digits, 4)}f}"
    return text if text.strip("-0.,") else text.lstrip("-")


def decimals(number: float, digits: int = 2) -> str:
    """Return a number with so many decimals; "" for NaN.

    Parameters
    ----------
    number, digits
        The number, and how many decimals.
    """
    return "" if math.isnan(number) else f"{number:.{digits}f}"


def _per_cent(share: float) -> str:
    return "" if math.isnan(share) else f"{100 * share:.0f} %"


def _scatter(found: PanelScore | None, like: float) -> str:
    return "" if found is None else figure(found.score.scatter, like)


def _published(panel: str, quantity: str) -> str:
    source, number = PUBLISHED.get((panel, quantity), ("", math.nan))
    return f"{number:g} ({source})" if source else ""
