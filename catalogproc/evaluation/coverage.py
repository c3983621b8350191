"""Coverage of the uncertainties: share of stars whose true label lies within the error bars.

Values and errors are computed as in the catalog, from predictions, propagated errors and the
bundle's calibration; bins are of catalog columns, by which users select.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from catalogproc.datasets.holdout import Holdout
from catalogproc.evaluation.latent_cells import latent_cells
from catalogproc.features.input_errors import inflate_errors
from catalogproc.inference.catalog_columns import (
    INDEPENDENT,
    LABEL_COLUMNS,
    label_columns,
    label_distributions,
    luminosity_context,
    predicted_labels,
    requested_labels,
)
from catalogproc.inference.label_distribution import PropagatedPrediction
from catalogproc.job import Job
from catalogproc.network.input_covariance import InputNoise
from catalogproc.network.predictor import Predictor
from catalogproc.network.questions import Questions
from catalogproc.network.uncertainty_calibration import LEVELS

Floats = NDArray[np.float64]

BINS = {
    "phot_g_mean_mag": (6.0, 10.0, 12.0, 14.0, 15.5, 17.5),
    "ebv": (0.0, 0.05, 0.15, 0.4, 1.0, 3.0),
    "logg": (0.0, 1.7, 2.3, 2.7, 3.2, 4.0),
    "m_h": (-2.5, -1.0, -0.5, -0.2, 0.0, 0.6),
}
"""Edges of the bins."""

MIN_STARS = 150
"""Bins of fewer stars are left out: their coverage is uncertain by 4 points or more."""

CELL, CELLS, CELL_STARS = "latent cell", 50, 1_000
"""Beginning of the names of cells of the latent space, their largest number, and the smallest
number of stars in one."""

SHARE_68, SHARE_95 = 0.682689, 0.95


@dataclass(frozen=True)
class Coverage:
    """Coverage of one label X in one bin of stars.

    Attributes
    ----------
    within_68
        Share of stars whose true value is within e_X of X.
    within_95
        Share between the calibrated 2.5th and 97.5th percentile.
    below_16, above_84
        Shares beyond these percentiles.
    z_sd
        Standard deviation of (true - X) / e_X.
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
class CoverageResult:
    """Coverage by label and bin, and the reliability curve of each label.

    Attributes
    ----------
    rows
        One for each label and bin; the bin "all" has all stars. Bins are of columns and, of
        enough stars, cells of the latent space.
    levels
        Percentiles (P,) of the curves, as shares.
    curves
        By label, the share of stars below each percentile (P,), calibrated.
    uncalibrated
        The same for the sigma of the network, without calibration.
    """

    rows: tuple[Coverage, ...]
    levels: Floats
    curves: dict[str, Floats]
    uncalibrated: dict[str, Floats]

    @property
    def summary(self) -> tuple[Coverage, ...]:
        """The rows without those of cells, but for the worst cell of each label."""
        cells = [row for row in self.rows if row.bin.startswith(CELL)]
        worst = {
            row.label: max(
                (one for one in cells if one.label == row.label),
                key=lambda one: abs(one.within_68 - SHARE_68),
            )
            for row in cells
        }
        return tuple(
            row for row in self.rows if not row.bin.startswith(CELL) or row is worst[row.label]
        )


@dataclass(frozen=True, eq=False)
class _LabelErrors:
    """True and catalog values of one label (N,), errors, and percentiles by level."""

    label: str
    truth: Floats
    mean: Floats
    error: Floats
    percentiles: dict[float, Floats]

    @property
    def known(self) -> NDArray[np.bool_]:
        """Stars (N,) with all of these."""
        return np.isfinite(self.truth) & np.isfinite(self.mean) & np.isfinite(self.error)

    def coverage(self, name: str, rows: NDArray[np.bool_]) -> Coverage:
        """Return the coverage in one bin, whose stars are ``rows`` (N,)."""
        truth, error = self.truth[rows], self.error[rows]
        p = {level: values[rows] for level, values in self.percentiles.items()}
        residual = truth - self.mean[rows]
        return Coverage(
            label=self.label,
            bin=name,
            stars=len(truth),
            within_68=float(np.mean(np.abs(residual) < error)),
            within_95=float(np.mean((truth > p[0.025]) & (truth < p[0.975]))),
            below_16=float(np.mean(truth < p[0.158655])),
            above_84=float(np.mean(truth > p[0.841345])),
            z_sd=float(np.std(residual / error)),
        )


def measure_coverage(predictor: Predictor, holdout: Holdout, job: Job) -> CoverageResult:
    """Return the coverage of a job's catalog errors on stars with known labels.

    Parameters
    ----------
    predictor
        The model.
    holdout
        Stars that it was not trained on.
    job
        Labels, and whether published errors are inflated.
    """
    bundle, vocabulary = predictor.bundle, predictor.bundle.vocabulary
    labels = [label for label in requested_labels(job, bundle) if label in LABEL_COLUMNS]
    predicted = _predict(predictor, holdout, labels, job)
    calibration = bundle.calibration.by_label
    known = {"phot_g_mean_mag": holdout.g_mag}
    columns = label_columns(predicted.prediction) | known
    stated = label_distributions(predicted, calibration, columns)
    columns |= predicted_labels(predicted, stated)
    plain = label_distributions(replace(predicted, published=None), {}, columns)
    columns["ebv"] = np.exp(columns["ln_ebv"])
    rows: list[Coverage] = []
    curves, uncalibrated = {}, {}
    bins = [*_bins(columns), *_cells(predictor, holdout)]
    for label in labels:
        name = LABEL_COLUMNS[label]
        mean, error = columns[name], columns[f"e_{name}"]
        levels = (0.025, *LEVELS, 0.975)
        found = _LabelErrors(
            label, holdout.truth[:, vocabulary.column(label)], mean, error,
            {level: stated[label].percentile(level) for level in levels},
        )  # fmt: skip
        good = found.known
        if not good.any():
            continue
        for bin_name, in_bin in bins:
            chosen = in_bin & good
            if bin_name == "all" or chosen.sum() >= MIN_STARS:
                rows.append(found.coverage(bin_name, chosen))
        curves[label] = _shares_below(found, [found.percentiles[p] for p in LEVELS])
        uncalibrated[label] = _shares_below(found, [plain[label].percentile(p) for p in LEVELS])
    return CoverageResult(tuple(rows), np.array(LEVELS), curves, uncalibrated)


def _predict(
    predictor: Predictor, holdout: Holdout, labels: Sequence[str], job: Job
) -> PropagatedPrediction:
    """Return predictions and uncertainties of holdout stars, as a run's."""
    linear = np.zeros(len(holdout.values), dtype=bool)
    questions = Questions(predictor, holdout.by_parallax(predictor.bundle.vocabulary), INDEPENDENT)
    context = luminosity_context(labels)
    if predictor.bundle.reads_errors:
        prediction, apart = questions.ask(holdout.inputs, labels, context)
        return PropagatedPrediction(prediction, None, None, linear, apart)
    prediction, jacobian = questions.differentiate(holdout.inputs, labels)
    apart = questions.without_hidden(holdout.inputs, prediction, context)
    absent, vocabulary = np.isnan(holdout.values), predictor.bundle.vocabulary
    larger = inflate_errors(holdout.values, holdout.errors, holdout.g_mag, vocabulary)[1]
    published, used = (
        jacobian.propagate(InputNoise(np.where(absent, np.nan, errors)))
        for errors in (holdout.errors, larger if job.inflate_errors else holdout.errors)
    )
    return PropagatedPrediction(prediction, used, published, linear, apart)


def _shares_below(found: _LabelErrors, percentiles: Sequence[Floats]) -> Floats:
    return np.array([np.mean((found.truth < values)[found.known]) for values in percentiles])


def _bins(columns: dict[str, Floats]) -> Iterator[tuple[str, NDArray[np.bool_]]]:
    yield "all", np.ones(len(columns["logg"]), dtype=bool)
    for name, edges in BINS.items():
        for low, high in pairwise(edges):
            yield f"{name} {low:g} to {high:g}", (columns[name] >= low) & (columns[name] < high)


def _cells(predictor: Predictor, holdout: Holdout) -> Iterator[tuple[str, NDArray[np.bool_]]]:
    count = min(CELLS, len(holdout.values) // CELL_STARS)
    cells = latent_cells(predictor, holdout.inputs, count) if count > 1 else np.array([])
    for number in range(count if count > 1 else 0):
        yield f"{CELL} {number + 1} of {count}", cells == number


def text(found: CoverageResult) -> str:
    """Return a table for a terminal: each label over all stars, and its worst bins.

    Parameters
    ----------
    found
        The coverage.
    """
    lines = [
        f"{'coverage':16} {'stars':>7} {'68 %':>7} {'95 %':>7} {'z sd':>6}   worst bins: 68 %, 95 %"
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


def markdown(found: CoverageResult) -> str:
    """Return the rows as a Markdown table, of the cells of the latent space the worst ones.

    Parameters
    ----------
    found
        The coverage.
    """
    lines = [
        "| label | bin | stars | in 68 % | in 95 % | below 16 % | above 84 % | z's sd |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in found.summary:
        shares = (row.within_68, row.within_95, row.below_16, row.above_84)
        cells = " | ".join(f"{100 * share:.1f}" for share in shares)
        lines.append(f"| {row.label} | {row.bin} | {row.stars:,} | {cells} | {row.z_sd:.2f} |")
    return "\n".join(lines) + "\n"


def write_coverage(found: CoverageResult, folder: Path) -> list[Path]:
    """Write calibration.csv, calibration.md and calibration.png, and return their paths.

    Parameters
    ----------
    found
        The coverage.
    folder
        Where to write; made if missing.
    """
    folder.mkdir(parents=True, exist_ok=True)
    table, page, picture = (folder / f"calibration.{end}" for end in ("csv", "md", "png"))
    with table.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(Coverage.__dataclass_fields__), lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(row) for row in found.rows)
    page.write_text(markdown(found), encoding="utf-8")
    _draw(found, picture)
    return [table, page, picture]


def _draw(found: CoverageResult, path: Path) -> None:
    """Reliability curves, and coverage in bins."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 8), layout="constrained")
    panels = figure.subplots(2, 2)
    for panel, curves, title in (
        (panels[0, 0], found.uncalibrated, "network, uncalibrated"),
        (panels[0, 1], found.curves, "calibrated"),
    ):
        panel.plot([0, 1], [0, 1], color="0.8", lw=1)
        for label, curve in curves.items():
            panel.plot(found.levels, curve, ".-", lw=1, label=LABEL_COLUMNS[label])
        panel.set(xlabel="predicted percentile", ylabel="share of stars below it", title=title)
    panels[0, 0].legend(fontsize="small")
    for panel, wanted, field in (
        (panels[1, 0], SHARE_68, "within_68"),
        (panels[1, 1], SHARE_95, "within_95"),
    ):
        places = list(dict.fromkeys(row.bin for row in found.rows if not row.bin.startswith(CELL)))
        panel.axhspan(wanted - 0.05, wanted + 0.05, color="0.93")
        panel.axhline(wanted, color="0.6", lw=1)
        for label in found.curves:
            rows = [row for row in found.rows if row.label == label and row.bin in places]
            x = [places.index(row.bin) for row in rows]
            panel.plot(x, [getattr(row, field) for row in rows], ".", label=LABEL_COLUMNS[label])
        panel.set(ylabel=f"share {field.replace('_', ' ')} %", ylim=(wanted - 0.2, wanted + 0.15))
        panel.set_xticks(range(len(places)), places, rotation=90, fontsize="x-small")
    figure.savefig(path, dpi=110)
