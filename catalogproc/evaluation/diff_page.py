"""The comparison of two catalogs (catalog_diff.py) as text, as CSV files and as a page."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import astuple, fields
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from catalogproc import __version__
from catalogproc.evaluation.catalog_diff import CatalogDiff, Difference, Membership
from catalogproc.evaluation.scorecard import figure, markdown
from catalogproc.io.atomic import write_atomic
from catalogproc.report.canvas import ACCENT, BLUE, LINE, LOW_HEIGHT, ORANGE, Canvas, with_style
from catalogproc.report.page import POLICY, environment

MOST_Z = 5.0
"""Range of the histograms of z; farther stars are counted in the outermost bins."""
Floats = NDArray[np.float64]
Table = tuple[tuple[str, ...], list[tuple[str, ...]]]

EXPECTED = (
    "Second minus first catalog. z is the difference over the joint uncertainty. By the input "
    "uncertainties z scatters by 1 for independent spectra and one model; by the value in 'shared' "
    "if the second spectra contain the transits of the first. By the total uncertainties it is "
    "smaller, as both catalogs share the errors of the model. Where it is larger, the stated "
    "uncertainties are too small, or the calibration of the spectra changed."
)
FLAGGED = (
    "Stars of both catalogs that have the flag, and the scatter of z (total) of those that have "
    "it in one of them or both."
)


def write_diff(found: CatalogDiff, output: Path) -> tuple[str, list[Path]]:
    """Write a comparison: diff.html, diff.md, and the numbers as CSV.

    Parameters
    ----------
    found
        The comparison.
    output
        The folder.

    Returns
    -------
    The text to print, and the files.
    """
    text = diff_text(found)
    files = {
        "diff.html": _html(found),
        "diff.md": text,
        "differences.csv": _csv(found.differences, Difference),
        "membership.csv": _csv(found.membership, Membership),
    }
    for name, content in files.items():
        write_atomic(output / name, content.encode())
    return text, [output / name for name in files]


def diff_text(found: CatalogDiff) -> str:
    """Return a comparison as Markdown.

    Parameters
    ----------
    found
        The comparison.
    """
    lines = [f"# {found.second.name} compared with {found.first.name}", ""]
    lines += [f"- {line}" for line in found.lines()]
    for title, words, table in _sections(found):
        lines += ["", f"## {title}", "", words, "", *markdown(*table)]
    return "\n".join(lines) + "\n"


def _sections(found: CatalogDiff) -> Iterator[tuple[str, str, Table]]:
    yield "Stars", "Of the stars in both catalogs.", _members(found, "sample")
    yield "By label", EXPECTED, _by_label(found)
    by_g = {
        "z_total": "By G: scatter of z, total uncertainties",
        "z_input": "By G: scatter of z, input uncertainties",
        "z_bias": "By G: median difference over the total uncertainty",
    }
    for value, title in by_g.items():
        # Models that read errors state input uncertainties only where the job propagates them.
        if any(np.isfinite(getattr(one, value)) for one in found.group("G")):
            yield title, "Stars that are good in both catalogs.", _by_name(found, value)
    yield "Flags", FLAGGED, _members(found, "quality_flags")
    if found.group("input_flags"):
        yield "Input flags", FLAGGED, _members(found, "input_flags")


def _by_label(found: CatalogDiff) -> Table:
    header = ("label", "stars", "bias", "scatter", "z, input", "shared", "z, total",
              "bias / error", "within 1 sigma", "beyond 3 sigma")  # fmt: skip
    rows: list[tuple[str, ...]] = [
        (one.label, f"{one.pairs:,}", figure(one.bias, one.scatter), figure(one.scatter),
         _two(one.z_input), _two(one.shared), _two(one.z_total), _two(one.z_bias),
         _percent(one.within_1_sigma), _percent(one.beyond_3_sigma))
        for one in found.group("all")
    ]  # fmt: skip
    return header, rows


def _by_name(found: CatalogDiff, value: str) -> Table:
    """Return a row for each range of G, with the stars and a number for each label."""
    rows = []
    for name in dict.fromkeys(one.name for one in found.group("G")):
        own = {one.label: one for one in found.group("G") if one.name == name}
        stars = max(one.pairs for one in own.values())
        cells = (_two(getattr(own[label], value)) for label in found.labels)
        rows.append((name, f"{stars:,}", *cells))
    return ("G", "stars", *found.labels), rows


def _members(found: CatalogDiff, kind: str) -> Table:
    """Return a row for each sample or flag, with its stars by catalog and z by label."""
    flagged = kind != "sample"
    rows = []
    for one in found.membership:
        if one.kind != kind:
            continue
        own = {d.label: d for d in found.group(kind) if d.name == one.name} if flagged else {}
        counts = (f"{x:,}" for x in (one.first_alone, one.second_alone, one.both))
        rows.append((one.name, *counts, *(_two(own[label].z_total) for label in own)))
    header = ("", f"{found.first.name} alone", f"{found.second.name} alone", "both")
    return (*header, *(found.labels if flagged else ())), rows or [("none", "", "", "")]


def _two(number: float) -> str:
    return "" if np.isnan(number) else f"{number:.2f}"


def _percent(share: float) -> str:
    return "" if np.isnan(share) else f"{100 * share:.1f} %"


def _csv(rows: Sequence[Difference] | Sequence[Membership], kind: type) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(field.name for field in fields(kind))
    for row in rows:
        writer.writerow(f"{x:.6g}" if isinstance(x, float) else x for x in astuple(row))
    return out.getvalue()


def _html(found: CatalogDiff) -> str:
    drawn = [
        (f"z-{label}", label, _histogram(label, found.z[label]),
         "Differences over joint total uncertainties, good stars; line: normal distribution.")
        for label in found.labels
        if len(found.z[label])
    ]  # fmt: skip
    caption = "Scatter of z by the total uncertainties, in ranges of one magnitude."
    drawn.append(("z-by-g", "By G", _by_magnitude(found), caption))
    template = environment().get_template("diff.html.jinja")
    return template.render(
        title=f"{found.second.name} compared with {found.first.name}",
        tiles=[
            (f"{found.in_both:,}", "stars in both catalogs"),
            (f"{len(found.first) - found.in_both:,}", f"in {found.first.name} alone"),
            (f"{len(found.second) - found.in_both:,}", f"in {found.second.name} alone"),
        ],
        lines=found.lines(), figures=drawn, sections=list(_sections(found)),
        generator=f"catalogproc {__version__}", policy=POLICY,
    )  # fmt: skip


@with_style
def _histogram(label: str, z: Floats) -> str:
    canvas = Canvas(f"z-{label}", LOW_HEIGHT)
    edges = np.linspace(-MOST_Z, MOST_Z, 51).tolist()
    shown = np.clip(z, -MOST_Z, MOST_Z)
    canvas.axes.hist(shown, bins=edges, density=True, color=ACCENT, alpha=0.6)
    x = np.linspace(-MOST_Z, MOST_Z, 201)
    canvas.axes.plot(x, np.exp(-0.5 * x**2) / np.sqrt(2 * np.pi), color=ORANGE, linewidth=1.2)
    canvas.axes.set(xlabel=f"difference of {label} / uncertainty", ylabel="density")
    return canvas.svg()


@with_style
def _by_magnitude(found: CatalogDiff) -> str:
    canvas = Canvas("z-by-g", LOW_HEIGHT)
    colours = (BLUE, ORANGE, "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#999999", "#F0E442")
    for label, colour in zip(found.labels, colours, strict=False):
        own = [one for one in found.group("G") if one.label == label]
        g = [float(one.name.partition(" ")[0]) + 0.5 for one in own]
        canvas.axes.plot(g, [one.z_total for one in own], marker="o", markersize=3,
                         linewidth=1, color=colour, label=label)  # fmt: skip
    canvas.axes.axhline(1.0, color=LINE, linewidth=1)
    canvas.axes.set(xlabel="G [mag]", ylabel="scatter of z")
    canvas.axes.legend(ncols=2)
    return canvas.svg()
