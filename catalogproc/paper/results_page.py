"""Results of experiments as figures, tables, a Markdown page, and lines for a terminal."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from catalogproc.datasets.benchmark_stars import GIANT, Benchmark
from catalogproc.io.atomic import write_atomic
from catalogproc.paper.context import ExperimentContext, Real
from catalogproc.paper.experiment import AT_LEAST, AT_MOST, Check, Experiment, Outcome
from catalogproc.paper.plotting import render_png


@dataclass(frozen=True, eq=False)
class ExperimentResult:
    """An experiment and its outcome; ``missing`` is the reason where there is none."""

    experiment: Experiment
    outcome: Outcome | None
    missing: str = ""


def summary_lines(results: Sequence[ExperimentResult]) -> Iterator[str]:
    """Yield lines for a terminal: each figure, and the checks that failed.

    Parameters
    ----------
    results
        Results of experiments.
    """
    for result in results:
        title = f"figure {result.experiment.figure:2}  {result.experiment.title}"
        if result.outcome is None:
            yield f"{title}: skipped: {result.missing}"
            continue
        passed, failed = result.outcome.passed, result.outcome.failed
        yield f"{title}: {len(passed)} of {len(passed) + len(failed)} passed"
        for check in failed:
            yield f"           fail: {_check_text(check)}"


FIELDS = ("figure", "quantity", "value", "unit", "reference", "source", "criterion", "verdict")
VERDICT = {True: "pass", False: "fail", None: ""}


def write_experiments(
    results: Sequence[ExperimentResult], context: ExperimentContext, folder: Path
) -> list[Path]:
    """Write figures, tables and experiments.md, and return their paths.

    An experiment has figure_NN.png, figure_NN.csv of its checks, and figure_NN_curves.csv of
    what the figure shows, where the experiment has such a table.

    Parameters
    ----------
    results
        Results of experiments.
    context
        Has the model and the test stars, which the page names.
    folder
        Where to write.
    """
    parts: dict[str, bytes] = {}
    for result in results:
        if result.outcome is None:
            continue
        name = f"figure_{result.experiment.figure:02d}"
        parts[f"{name}.png"] = render_png(result.experiment, result.outcome)
        rows = [_row(result.experiment.figure, check) for check in result.outcome.checks]
        parts[f"{name}.csv"] = _csv(FIELDS, rows)
        curves = result.outcome.curves
        if curves:
            columns = np.column_stack(list(curves.values()))
            parts[f"{name}_curves.csv"] = _csv(
                tuple(curves), [[_digits(x) for x in row] for row in columns]
            )
    parts["experiments.md"] = markdown_page(results, context).encode()
    for name, content in parts.items():
        write_atomic(folder / name, content)
    return [folder / name for name in parts]


def markdown_page(results: Sequence[ExperimentResult], context: ExperimentContext) -> str:
    """Return all results as one Markdown page that includes the figures by name.

    Parameters
    ----------
    results
        Results of experiments.
    context
        Has the model and the test stars.
    """
    bundle, stars = context.predictor.bundle, context.stars
    lines = [
        f"# Experiments of Zhang, Bu et al. (2026) with {bundle.name} ({bundle.hash[:8]})",
        "",
        f"Test stars: {stars.name}; {'real stars' if stars.real else 'not used in training'}. "
        "Figure numbers are those of Zhang, Bu et al. (2026), called the paper below. Published "
        f"numbers are of {'other ' if stars.real else ''}real stars with APOGEE labels"
        f"{'' if stars.real else ', a brighter sample'}. Scatter is 1.4826 "
        "times the median absolute deviation. This page is written by `catalogproc evaluate`; a "
        "row without a reference has no published number." + _about_labels(stars),
        "",
        "| figure | title | pass | fail |",
        "|---|---|---|---|",
    ]
    for result in results:
        out = result.outcome
        counts = ("skipped", "") if out is None else (len(out.passed), len(out.failed) or "")
        number, title = result.experiment.figure, result.experiment.title
        lines.append(f"| [{number}](#figure-{number}) | {title} | {counts[0]} | {counts[1]} |")
    outcomes = [result.outcome for result in results if result.outcome is not None]
    passed = sum(len(outcome.passed) for outcome in outcomes)
    failed = sum(len(outcome.failed) for outcome in outcomes)
    lines.append(f"| all | | {passed} | {failed or ''} |")
    for result in results:
        lines += ["", f"## Figure {result.experiment.figure}", "", *_section(result)]
    return "\n".join(lines) + "\n"


def _about_labels(stars: Benchmark) -> str:
    """What true labels of real giants are, and of how many stars."""
    if GIANT not in stars.extra:
        return ""
    known = np.isfinite(stars.truth)
    mass, near = (int(known[:, stars.vocabulary.column(name)].sum())
                  for name in ("mass", "g_fakemag"))  # fmt: skip
    return (
        f" Masses are known of {mass:,} of these stars, most of them the teacher's (trees on "
        f"APOGEE's labels), as are ages; parallaxes of {near:,}."
    )


def _section(result: ExperimentResult) -> list[str]:
    experiment, outcome = result.experiment, result.outcome
    lines = [f"**{experiment.title}.** {experiment.claim}", ""]
    if outcome is None:
        return [*lines, f"Skipped: {result.missing}."]
    name = f"figure_{experiment.figure:02d}"
    lines += [f"{outcome.stars}.", ""] if outcome.stars else []
    lines += [f"![{experiment.title}]({name}.png)", "", verdict_text(outcome), ""]
    lines += ["| quantity | value | unit | reference | source | verdict |",
              "|---|---:|---|---:|---|---|"]  # fmt: skip
    for check in (x for x in outcome.checks if np.isfinite(x.value)):
        sign = SIGN.get(check.criterion, "")
        cells = (check.name, _digits(check.value, 3), check.unit,
                 f"{sign} {_digits(check.reference, 3)}".strip(), check.source,
                 VERDICT[check.passed])  # fmt: skip
        lines.append("| " + " | ".join(cells) + " |")
    return lines


SIGN = {AT_MOST: "≤", AT_LEAST: "≥"}

MAX_LISTED = 8
"""Number of checks named in the sentence on a figure; the table has them all."""


def verdict_text(outcome: Outcome) -> str:
    """Return the checks that passed and failed, in a sentence or two.

    Parameters
    ----------
    outcome
        The result of an experiment.
    """
    if not outcome.passed and not outcome.failed:
        return "No number is tested here."
    parts = [
        f"{verdict}: {'; '.join(_check_text(check) for check in checks[:MAX_LISTED])}"
        + (f"; and {len(checks) - MAX_LISTED} more." if len(checks) > MAX_LISTED else ".")
        for verdict, checks in (("Pass", outcome.passed), ("Fail", outcome.failed))
        if checks
    ]
    return " ".join(parts)


def _check_text(check: Check) -> str:
    unit = f" {check.unit}" if check.unit else ""
    value, reference = _digits(check.value, 3), _digits(check.reference, 3)
    return f"{check.name} ({value}{unit}, wanted {SIGN[check.criterion]} {reference})"


def _row(figure: int, check: Check) -> list[str]:
    return [
        str(figure), check.name, _digits(check.value), check.unit, _digits(check.reference),
        check.source, check.criterion, VERDICT[check.passed],
    ]  # fmt: skip


def _digits(number: Real, digits: int = 6) -> str:
    """A number with so many significant digits, "" for NaN."""
    return "" if math.isnan(number) else f"{number:.{digits}g}"


def _csv(header: Sequence[str], rows: Sequence[Sequence[str]]) -> bytes:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return out.getvalue().encode()
