"""The demonstration: a catalog of the real giants that ship, beside the labels of APOGEE."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from catalogproc.cluster.plan import make_plan
from catalogproc.cluster.result import RunResult
from catalogproc.cluster.run import Progress
from catalogproc.cluster.run import run as run_plan
from catalogproc.cluster.spec import ClusterConfig, RunSpec
from catalogproc.datasets.example_giants import AUXILIARY, LABELS, SPECTRA
from catalogproc.export.reader import open_rows
from catalogproc.report import figures
from catalogproc.report.histograms import COLUMNS, Histograms, count_stars
from catalogproc.report.html_report import write_report
from catalogproc.report.known_labels import KnownLabels, known_labels
from catalogproc.resources import shipped

GIANTS = "giants"
"""Folder of the stars in the shipped examples."""

PICTURES = "pictures"
"""Folder of the pictures in that of the run."""


@dataclass(frozen=True, eq=False)
class DemoResult:
    """What the demonstration made.

    Attributes
    ----------
    run
        The run.
    stars
        Histograms of its catalog.
    known
        The catalog beside APOGEE's labels.
    report, pictures
        Files.
    """

    run: RunResult
    stars: Histograms
    known: KnownLabels
    report: Path
    pictures: tuple[Path, ...]

    def lines(self) -> list[str]:
        """Return what was made, for the user."""
        folder, stars = self.run.output, self.stars
        seen = f"{self.known.in_training:,}" if self.known.in_training else "none"
        return [
            *self.run.lines()[:1],
            "",
            "How many rows are good for what",
            _good("Teff, log g, [M/H], [alpha/M]", stars.good_params, stars.stars, "good_params"),
            _good("mass, age", stars.good_mass_age, stars.stars, "good_mass_age"),
            "",
            f"Predicted minus {self.known.title}, good rows; the model was trained on {seen} of "
            "these stars",
            f"  {'label':<16}{'stars':>7}{'scatter':>10}{'bias':>9}{'spread of the labels':>23}",
            *(
                f"  {name:<16}{good:>7}{scatter:>10}{bias:>9}{spread:>23}"
                for name, good, scatter, bias, spread, _ in self.known.rows
            ),
            *(f"  {line}" for line in _wrapped(self.known.note)),
            "",
            f"catalog   {folder / 'catalog'}, one row per star (Parquet)",
            f"report    {self.report}, to open in a browser",
            f"pictures  {folder / PICTURES}: {', '.join(path.name for path in self.pictures)}",
            f"next      catalogproc export {folder} --format fits --output giants.fits",
        ]

    def to_dict(self) -> dict[str, Any]:
        """Return the run, the counts and the comparison, as JSON can hold them."""
        names = ("label", "good", "scatter", "bias", "spread", "scatter_all")
        return self.run.to_dict() | {
            "good_params": self.stars.good_params,
            "good_mass_age": self.stars.good_mass_age,
            "known_labels": [dict(zip(names, row, strict=True)) for row in self.known.rows],
            "report": str(self.report),
            "pictures": [str(path) for path in self.pictures],
        }


def _good(purpose: str, good: int, stars: int, sample: str) -> str:
    return f"  {purpose:<32}{good:>6,} of {stars:,} stars ({100 * good / stars:.0f} %): {sample}"


def _wrapped(text: str) -> list[str]:
    from textwrap import wrap

    return wrap(text, 96)


def demo(
    output: Path,
    cluster: ClusterConfig | None = None,
    progress: Progress | None = None,
) -> DemoResult:
    """Make a catalog of the real giants in the shipped examples, its report and its pictures.

    The job and the model are the default ones. Calling it again resumes.

    Parameters
    ----------
    output
        The run folder.
    cluster
        Workers and device.
    progress
        As of :func:`catalogproc.run`.

    Raises
    ------
    Refusal
        Something is wrong that can be found before anything starts.
    WorkerError
        No worker has a working model.
    """
    files = shipped("examples") / GIANTS
    spec = RunSpec(
        str(files / SPECTRA), output, (str(files / AUXILIARY),), cluster=cluster or ClusterConfig()
    )
    plan = make_plan(spec)
    made: list[DemoResult] = []

    def then(result: RunResult) -> None:
        report = write_report(output, model=plan.bundle.path, labels=files / LABELS)
        stars = count_stars(open_rows(output, COLUMNS).batches())
        known = known_labels(output, files / LABELS)
        pictures = _draw(stars, known, output / PICTURES)
        made.append(DemoResult(result, stars, known, report, pictures))

    run_plan(plan, progress=progress, then=then)
    return made[0]


def _draw(stars: Histograms, known: KnownLabels, folder: Path) -> tuple[Path, ...]:
    drawn = {
        "kiel": figures.kiel(stars),
        "clump_and_branch": figures.evolution(stars),
        "age_metallicity": figures.age_metallicity(stars),
        "predicted_against_apogee": known.picture(),
        "sky": figures.sky(stars),
    }
    paths = tuple(folder / f"{name}.png" for name in drawn)
    for canvas, path in zip(drawn.values(), paths, strict=True):
        canvas.write_png(path)
    return paths
