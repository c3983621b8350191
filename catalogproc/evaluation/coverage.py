"""Whether errors hold: how many stars lie as near to the truth as the catalog says.

The numbers are made as the catalog makes them, from answers, propagated errors and the
bundle's calibration; bins are of the catalog's own columns, which a user selects by.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from catalogproc.datasets.holdout import Held
from catalogproc.features.input_errors import inflated
from catalogproc.inference.catalog_columns import LABEL_COLUMNS, answers, calibration_of
from catalogproc.job import Job
from catalogproc.network.error_propagation import differentiate
from catalogproc.network.input_covariance import InputNoise
from catalogproc.network.predictor import Predictor
from catalogproc.network.uncertainty_calibration import LEVELS

Floats = NDArray[np.float64]

BINS = {
    "phot_g_mean_mag": (6.0, 10.0, 12.0, 14.0, 15.5, 17.5),
    "ebv": (0.0, 0.05, 0.15, 0.4, 1.0, 3.0),
    "logg": (0.0, 1.7, 2.3, 2.7, 3.2, 4.0),
    "m_h": (-2.5, -1.0, -0.5, -0.2, 0.0, 0.6),
}
"""Edges of the bins in which coverage is counted."""

FEWEST = 150
"""Stars below which a bin says nothing: its coverage is good to 4 points at best."""

SHARE_68, SHARE_95 = 0.682689, 0.95


@dataclass(frozen=True)
class Coverage:
    """How often the truth lies within what is said, for one label in one bin of stars.

    ``within_68`` is the share of stars within e_X of X; ``within_95`` within the calibrated
    2.5th and 97.5th percentile; ``below_16`` and ``above_84`` the shares beyond the
    percentiles of that name; ``z_sd`` the standard deviation of (true - X) / e_X.
    """

    label: str
    bin: str
    stars: int
    within_68: float
    within_95: float
    below_16: float
    above_84: float
    z_sd: float


@dataclass(frozen=True, eq=False)
class Reliabilities:
    """All of it: rows by label and bin, and the reliability curve of each label.

    ``curves`` (P,) gives for each of ``levels`` the share of stars below that percentile;
    ``stated`` are the same shares for the sigma that the network states, without calibration.
    """

    rows: tuple[Coverage, ...]
    levels: Floats
    curves: dict[str, Floats]
    stated: dict[str, Floats]


def measure(predictor: Predictor, held: Held, job: Job) -> Reliabilities:
    """How well the errors of a job's catalog hold, on stars whose truth is known."""
    bundle, vocabulary = predictor.bundle, predictor.bundle.vocabulary
    labels = [label for label in job.labels if label in bundle.requestable]
    prediction, jacobian = differentiate(predictor, held.values, labels)
    absent = np.isnan(held.values)
    larger = inflated(held.values, held.errors, held.g_mag, vocabulary)[1]
    published, used = (
        jacobian.propagate(InputNoise(np.where(absent, np.nan, errors)))
        for errors in (held.errors, larger if job.inflate_errors else held.errors)
    )
    calibration = bundle.reliability.calibration
    known = {"phot_g_mean_mag": held.g_mag}
    columns = answers(prediction, used, published, calibration, known) | known
    columns["ebv"] = np.exp(columns["ln_ebv"])
    rows: list[Coverage] = []
    curves, stated = {}, {}
    for k, label in enumerate(labels):
        name = LABEL_COLUMNS[label]
        truth = held.truth[:, vocabulary.column(label)]
        mean, error = columns[name], columns[f"e_{name}"]
        mapped = calibration_of(calibration, label)
        good = np.isfinite(truth) & np.isfinite(mean) & np.isfinite(error)
        if not good.any():
            continue
        percentiles = {
            level: mapped.percentile(mean, error, level) for level in (0.025, *LEVELS, 0.975)
        }
        for words, chosen in _bins(columns):
            chosen = chosen & good
            if words == "all" or chosen.sum() >= FEWEST:
                found = {level: p[chosen] for level, p in percentiles.items()}
                rows.append(
                    _coverage(label, words, truth[chosen], mean[chosen], error[chosen], found)
                )
        curves[label] = np.array([np.mean(truth[good] < percentiles[p][good]) for p in LEVELS])
        plain = calibration_of({}, label)
        sigma = prediction.sigma[:, k].astype(np.float64)
        stated[label] = np.array(
            [np.mean((truth < plain.percentile(mean, sigma, p))[good]) for p in LEVELS]
        )
    return Reliabilities(tuple(rows), np.array(LEVELS), curves, stated)


def _bins(columns: dict[str, Floats]) -> Iterator[tuple[str, NDArray[np.bool_]]]:
    yield "all", np.ones(len(columns["logg"]), dtype=bool)
    for name, edges in BINS.items():
        for low, high in pairwise(edges):
            yield f"{name} {low:g} to {high:g}", (columns[name] >= low) & (columns[name] < high)


def _coverage(
    label: str,
    words: str,
    truth: Floats,
    mean: Floats,
    error: Floats,
    percentiles: dict[float, Floats],
) -> Coverage:
    residual = truth - mean
    inside = (truth > percentiles[0.025]) & (truth < percentiles[0.975])
    return Coverage(
        label,
        words,
        len(truth),
        float(np.mean(np.abs(residual) < error)),
        float(np.mean(inside)),
        float(np.mean(truth < percentiles[0.158655])),
        float(np.mean(truth > percentiles[0.841345])),
        float(np.std(residual / error)),
    )


def text(found: Reliabilities) -> str:
    """For a terminal: each label over all stars, and its worst bins."""
    lines = [
        f"{'errors that hold':16} {'stars':>7} {'68 %':>7} {'95 %':>7} {'z sd':>6}"
        "   worst bins: 68 %, 95 %"
    ]
    for row in found.rows:
        if row.bin != "all":
            continue
        bins = [r for r in found.rows if r.label == row.label and r.bin != "all"]
        worst = ""
        if bins:
            at_68 = max(bins, key=lambda r: abs(r.within_68 - SHARE_68))
            at_95 = max(bins, key=lambda r: abs(r.within_95 - SHARE_95))
            worst = (
                f"   {100 * at_68.within_68:.1f} at {at_68.bin}; "
                f"{100 * at_95.within_95:.1f} at {at_95.bin}"
            )
        lines.append(
            f"{row.label:16} {row.stars:7,} {100 * row.within_68:7.1f} "
            f"{100 * row.within_95:7.1f} {row.z_sd:6.2f}{worst}"
        )
    return "\n".join(lines)


def markdown(found: Reliabilities) -> str:
    """All rows as a table."""
    lines = [
        "| label | of stars | number | in 68 % | in 95 % | below 16 % | above 84 % | z's sd |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in found.rows:
        shares = (row.within_68, row.within_95, row.below_16, row.above_84)
        cells = " | ".join(f"{100 * share:.1f}" for share in shares)
        lines.append(f"| {row.label} | {row.bin} | {row.stars:,} | {cells} | {row.z_sd:.2f} |")
    return "\n".join(lines) + "\n"


def write_coverage(found: Reliabilities, folder: Path) -> list[Path]:
    """calibration.csv, calibration.md and calibration.png in a folder; returns the paths."""
    folder.mkdir(parents=True, exist_ok=True)
    table, words, picture = (folder / f"calibration.{end}" for end in ("csv", "md", "png"))
    with table.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(Coverage.__dataclass_fields__), lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(row) for row in found.rows)
    words.write_text(markdown(found), encoding="utf-8")
    _draw(found, picture)
    return [table, words, picture]


def _draw(found: Reliabilities, path: Path) -> None:
    """Reliability curves, and coverage in bins."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 8), layout="constrained")
    panels = figure.subplots(2, 2)
    for panel, curves, title in (
        (panels[0, 0], found.stated, "as the network states it"),
        (panels[0, 1], found.curves, "calibrated"),
    ):
        panel.plot([0, 1], [0, 1], color="0.8", lw=1)
        for label, curve in curves.items():
            panel.plot(found.levels, curve, ".-", lw=1, label=LABEL_COLUMNS[label])
        panel.set(xlabel="stated percentile", ylabel="share of stars below it", title=title)
    panels[0, 0].legend(fontsize="small")
    for panel, wanted, field in (
        (panels[1, 0], SHARE_68, "within_68"),
        (panels[1, 1], SHARE_95, "within_95"),
    ):
        places = list(dict.fromkeys(row.bin for row in found.rows))
        panel.axhspan(wanted - 0.05, wanted + 0.05, color="0.93")
        panel.axhline(wanted, color="0.6", lw=1)
        for label in found.curves:
            rows: Sequence[Coverage] = [row for row in found.rows if row.label == label]
            x = [places.index(row.bin) for row in rows]
            panel.plot(x, [getattr(row, field) for row in rows], ".", label=LABEL_COLUMNS[label])
        panel.set(ylabel=f"share {field.replace('_', ' ')} %", ylim=(wanted - 0.2, wanted + 0.15))
        panel.set_xticks(range(len(places)), places, rotation=90, fontsize="x-small")
    figure.savefig(path, dpi=110)
