"""A judgement as text, CSV and pictures."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator
from pathlib import Path

from catalogproc.evaluation.benchmark import (
    ALL,
    BEST,
    GRAVITY,
    JUDGED,
    KEPLER,
    KEPLER_PANEL,
    MODEL,
    PANELS,
    SAMPLES,
    TREES,
    Judgement,
    Line,
)
from catalogproc.evaluation.literature import PUBLISHED
from catalogproc.evaluation.metrics import QUANTITIES
from catalogproc.io.atomic import write_whole

HEADER = (
    "quantity", "unit", "stars", "scatter", "bias", "16 %", "84 %", "sd of z", "< 1 σ", "< 2 σ",
    TREES, BEST, "scatter/best", "published, real stars",
)  # fmt: skip

FIELDS = (
    "panel", "inputs", "method", "sample", "quantity", "unit", "stars", "scatter", "bias", "p16",
    "p84", "rms", "z_std", "within_1_sigma", "within_2_sigma", "scatter_over_best",
    "published_scatter", "published_in",
)  # fmt: skip


def rows(judgement: Judgement, panel: str) -> list[tuple[str, ...]]:
    """The cells of a panel's table, under HEADER."""
    method = TREES if panel == "a" else MODEL
    made = []
    for quantity in JUDGED:
        line = judgement.find(panel, method, quantity)
        if line is None:
            continue
        score, unit = line.score, QUANTITIES[quantity].unit
        number = score.scatter
        made.append((
            QUANTITIES[quantity].text, unit, f"{score.stars:,}",
            *(figure(x, number) for x in (number, score.bias, score.p16, score.p84)),
            figure(score.z_std), _per_cent(score.within_1_sigma), _per_cent(score.within_2_sigma),
            "" if panel == "a" else _scatter(judgement.find(panel, TREES, quantity), number),
            _scatter(judgement.find(panel, BEST, quantity), number),
            figure(line.of_best), _published(panel, quantity),
        ))  # fmt: skip
    return made


def text(judgement: Judgement) -> str:
    """The whole judgement for a terminal or a card, as Markdown tables."""
    lines = [
        f"# {judgement.model} ({judgement.hash[:8]}) on {judgement.stars}",
        "",
        "Scatter is 1.4826 times the median absolute deviation of predicted minus true, bias its "
        "median;",
        "z is (predicted - true) / sigma. "
        + ("The stars are real." if judgement.real else "The stars are simulated."),
        *_about_best(judgement),
        *_about_samples(judgement),
    ]
    for panel in [*PANELS, KEPLER]:
        cells = rows(judgement, panel)
        if not cells:
            continue
        lines += ["", f"## {panel}: {KEPLER_PANEL if panel == KEPLER else PANELS[panel]}", ""]
        lines += markdown(HEADER, cells)
        lines += _counted_apart(judgement, panel)
        gravity = judgement.find(panel, GRAVITY, "mass")
        if gravity is not None:
            lines += ["", f"Real stars, seismic masses. Mass as g R² from log g and luminosity: "
                      f"scatter {figure(gravity.score.scatter)}, "
                      f"bias {figure(gravity.score.bias)} Msun."]  # fmt: skip
    return "\n".join(lines) + "\n"


def _about_best(judgement: Judgement) -> list[str]:
    stars = {line.score.stars for line in judgement.lines if line.method == BEST}
    if not stars:
        return []
    return [
        f"Best possible is the posterior mean under the simulator's own prior and noise, of "
        f"{max(stars):,} of the stars;",
        "scatter/best compares on these alone.",
    ]


def _about_samples(judgement: Judgement) -> list[str]:
    if not judgement.apart:
        return []
    told = [f"- {name}: {words}, {judgement.apart[name]:,}" for name, words in SAMPLES.items()]
    return ["", "The tables are of all stars; below each, the same for some of them:", "", *told]


def _counted_apart(judgement: Judgement, panel: str) -> list[str]:
    """Scatter and bias of each sample, of the method that the panel is of."""
    method = TREES if panel == "a" else MODEL
    cells = []
    for quantity in JUDGED:
        found = {name: judgement.find(panel, method, quantity, name) for name in SAMPLES}
        whole = found[ALL]
        if whole is None or not any(line for name, line in found.items() if name != ALL):
            continue
        like = whole.score.scatter
        told = (
            f"{figure(x.score.scatter, like)}, {figure(x.score.bias, like)} ({x.score.stars:,})"
            if x else "" for x in found.values()
        )  # fmt: skip
        cells.append((QUANTITIES[quantity].text, QUANTITIES[quantity].unit, *told))
    if not cells:
        return []
    return ["", "Scatter, bias (stars):", "", *markdown(("quantity", "unit", *SAMPLES), cells)]


def markdown(header: tuple[str, ...], cells: list[tuple[str, ...]]) -> Iterator[str]:
    """The lines of a table, without columns that are empty throughout."""
    used = [i for i in range(len(header)) if any(row[i] for row in cells)]
    widths = [max(len(row[i]) for row in [header, *cells]) for i in used]

    def line(words: tuple[str, ...]) -> str:
        padded = [words[i].ljust(w) if i == 0 else words[i].rjust(w)
                  for i, w in zip(used, widths, strict=True)]  # fmt: skip
        return "| " + " | ".join(padded) + " |"

    yield line(header)
    yield (
        "|" + "|".join("-" * (w + 1) + ("-" if i == 0 else ":") for i, w in enumerate(widths)) + "|"
    )
    yield from (line(row) for row in cells)


def csv_text(judgement: Judgement) -> str:
    """Every line of the judgement, a row a method and quantity, under FIELDS."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(FIELDS)
    for line in judgement.lines:
        score = line.score
        source, number = PUBLISHED.get((line.panel, score.label), ("", math.nan))
        mine = line.sample == ALL and line.method == (TREES if line.panel == "a" else MODEL)
        numbers = (score.scatter, score.bias, score.p16, score.p84, score.rms, score.z_std,
                   score.within_1_sigma, score.within_2_sigma, line.of_best)  # fmt: skip
        writer.writerow([
            line.panel, line.inputs, line.method, line.sample, score.label,
            QUANTITIES[score.label].unit, score.stars,
            *("" if math.isnan(x) else f"{x:.6g}" for x in numbers),
            number if mine and source else "", source if mine else "",
        ])  # fmt: skip
    return out.getvalue()


def write_scorecard(judgement: Judgement, folder: Path) -> list[Path]:
    """Write evaluation.md, evaluation.csv, scatter.png and residuals.png; returns their paths."""
    from catalogproc.evaluation import plots

    parts = {
        "evaluation.md": text(judgement).encode(),
        "evaluation.csv": csv_text(judgement).encode(),
        "scatter.png": plots.scatter_chart(judgement),
        "residuals.png": plots.residual_panels(judgement),
    }
    for name, content in parts.items():
        write_whole(folder / name, content)
    return [folder / name for name in parts]


def figure(number: float, like: float | None = None) -> str:
    """A number with three significant digits of ``like`` (itself, if not given), "" for NaN."""
    if math.isnan(number):
        return ""
    size = abs(number if like is None else like)
    digits = 3 if size == 0 else max(0, 2 - math.floor(math.log10(size)))
    words = f"{number:,.{min(digits, 4)}f}"
    return words if words.strip("-0.,") else words.lstrip("-")


def _per_cent(share: float) -> str:
    return "" if math.isnan(share) else f"{100 * share:.0f} %"


def _scatter(line: Line | None, like: float) -> str:
    return "" if line is None else figure(line.score.scatter, like)


def _published(panel: str, quantity: str) -> str:
    source, number = PUBLISHED.get((panel, quantity), ("", math.nan))
    return f"{number:g} ({source})" if source else ""
