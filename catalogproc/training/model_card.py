"""The card of a model: what it is made of, what it may be used for, and how it does."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from datetime import date
from pathlib import Path

import numpy as np

from catalogproc.datasets import kepler
from catalogproc.datasets.star_table import Table
from catalogproc.evaluation.colour_teff import RELATION_SCATTER, ColourCheck, colour_check
from catalogproc.evaluation.metrics import ATMOSPHERE_AND_AGE, Score, ask, evaluate, markdown
from catalogproc.io.atomic import write_whole
from catalogproc.job import TrainingJob
from catalogproc.network.bundle import Bundle
from catalogproc.network.predictor import Predictor
from catalogproc.training.training_data import SIMULATED

CURVE, CURVE_PICTURE = "learning_curve.csv", "learning_curve.png"
COMPARISON, JUDGEMENT = "comparison.png", "evaluation.md"

MATCHED_STARS, MATCHED_SEED = 20_000, 1
"""Simulated stars of the field that stand beside the real spectra."""


def write_card(
    bundle: Bundle,
    job: TrainingJob,
    test: Table,
    use: str = SIMULATED,
    spectra: Sequence[Path] = (),
) -> dict[str, list[Score]]:
    """Judge a bundle on test stars and write CARD.md, scores.json and pictures into its folder.

    With files of real ``spectra``, those are compared with simulated ones too, and Teff is held
    against their colours. The learning curve is drawn if the folder has one.
    """
    vocabulary = bundle.vocabulary
    inputs = test.values.copy()
    inputs[:, vocabulary.columns(vocabulary.named("label"))] = np.nan
    asked = tuple(name for name in ATMOSPHERE_AND_AGE if name in bundle.requestable)
    scores = evaluate(Predictor(bundle), inputs, test.values, asked, "bcdef")
    as_json = {name: [vars(row) for row in rows] for name, rows in scores.items()}
    write_whole(bundle.path / "scores.json", (json.dumps(as_json, indent=1) + "\n").encode())
    parts = [_head(bundle, job, use), _simulated(bundle, scores)]
    if job.real:
        parts.append(_kepler(bundle))
    if spectra:
        parts += [_colours(bundle, spectra), _comparison(bundle.path, spectra)]
    parts.append(_curve(bundle.path))
    write_whole(bundle.path / "CARD.md", "\n".join(part for part in parts if part).encode())
    return scores


def _head(bundle: Bundle, job: TrainingJob, use: str) -> str:
    training = bundle.training
    real_stars = "dataset_sha256" in training
    command = f"catalogproc train --job {job.name} --output DIR"
    rows = [
        f"| trained on | {training['data']}: {training['stars']:,} "
        f"{'rows' if real_stars else 'stars'}, {training['steps']:,} steps |",
        f"| made of | {training['credit']} |",
    ]
    if real_stars:
        command += " --data DATASET"
        rows.append(f"| dataset | SHA-256 {training['dataset_sha256']} |")
    if "from" in training:
        command += " --from BUNDLE"
        rows.append(f"| goes on from | {training['from']}: {training['from_data']} |")
    if "real_spectra" in training:
        command += " --spectra FILE..."
    rows += [
        f"| {title} | {training[name]} |"
        for name, title in (
            ("replayed", "replayed"),
            ("real_spectra", "real spectra"),
            ("real_labels", "real labels"),
        )
        if name in training
    ]
    rows += [
        f"| by | `{command}` (job {job.hash[:8]}), {date.today()} |",
        f"| network | {bundle.shape.to_dict()} |",
        f"| hash | {bundle.hash} |",
    ]
    table = "\n".join(rows)
    return f"""# {bundle.name}

{bundle.description}

| | |
|---|---|
{table}

## What it may be used for, and what not

{use}
"""


def _simulated(bundle: Bundle, scores: dict[str, list[Score]]) -> str:
    kind = "real" if "dataset_sha256" in bundle.training else "simulated"
    beside = ""
    if (bundle.path / JUDGEMENT).is_file():
        beside = f"\nBeside XGBoost and the best possible: [{JUDGEMENT}]({JUDGEMENT}).\n"
    return f"""## How it does on {scores["b"][0].stars:,} {kind} giants that it did not see

Scatter is 1.4826 times the median absolute deviation of predicted minus true, in the label's
unit (K, dex, dex, solar masses, dex); bias its median; z = (predicted - true) / sigma.
{beside}
{markdown(scores)}
"""


def _kepler(bundle: Bundle) -> str:
    held = kepler.parts(bundle.vocabulary)[1]
    answers = ask(Predictor(bundle), held.values, ("mass",))
    [mass] = answers.scores(held.truth, bundle.vocabulary, ("mass",))
    truth = held.truth[:, bundle.vocabulary.column("mass")]
    spread = 1.4826 * np.nanmedian(np.abs(truth - np.nanmedian(truth)))
    return f"""## Real red giants, held out by KIC

Mass from three colours, Teff, log g, [M/H] and pseudo-luminosity, beside that of asteroseismology
(scaling relations; Li et al. 2024): scatter {mass.scatter:.3f}, bias {mass.bias:+.3f} Msun for
{mass.stars:,} stars, whose own spread is {spread:.2f} Msun. The standard deviation of z is
{mass.z_std:.1f}: the stated sigma takes the labels that are given for exact, and knows nothing
of the errors of the seismic masses.
"""


def _colours(bundle: Bundle, spectra: Sequence[Path]) -> str:
    found = colour_check(bundle, spectra)
    known = bundle.reliability.trained_on
    unseen = found if known is None else found.rows(~np.isin(found.source_id, known))

    def words(check: ColourCheck) -> str:
        if not len(check.teff):
            return "no star"
        return f"scatter {check.scatter:.0f} K, bias {check.bias:+.0f} K for {len(check.teff):,}"

    return f"""## Real spectra: Teff beside the colour's

Giants of clean flags, against the relation of Mucciarelli, Bellazzini & Massari (2021; its own
scatter is {RELATION_SCATTER:.0f} K), BP - RP freed of the model's reddening: {words(found)};
of these, not in the training, {words(unseen)}.
"""


def _comparison(folder: Path, spectra: Sequence[Path]) -> str:
    from catalogproc.simulation.build_grids import read_real
    from catalogproc.simulation.compare_with_real import compare, field
    from catalogproc.simulation.simulator import Simulator

    compared = compare(read_real(spectra), field(Simulator("cpu"), MATCHED_STARS, MATCHED_SEED))
    compared.plot(folder / COMPARISON)
    worst = int(np.argmax(np.abs(compared.shift)))
    return f"""## Simulated spectra beside real ones

Medians of the first coefficients of {compared.stars:,} real spectra and of simulated giants and
dwarfs of the same colours differ by at most {abs(compared.shift[worst]):.2f} of the real ones'
spread ({compared.names[worst]}); half of them by less than {np.median(np.abs(compared.shift)):.2f}.

![shift of the medians, coefficient by coefficient]({COMPARISON})
"""


def _curve(folder: Path) -> str:
    if not (folder / CURVE).is_file():
        return ""
    draw_curve(folder / CURVE, folder / CURVE_PICTURE)
    return f"""## How it learned

![loss by step, in training and on stars held out]({CURVE_PICTURE})
"""


def draw_curve(source: Path, path: Path) -> None:
    """A learning curve, as training leaves it, drawn as a PNG."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with source.open(newline="") as file:
        rows = list(csv.DictReader(file))
    step = np.array([float(row["step"]) for row in rows])
    # GaiaXPy, where it was imported, asks matplotlib for LaTeX.
    with rc_context({"text.usetex": False}):
        figure = Figure(figsize=(7, 3.4), layout="constrained")
        axes = figure.subplots()
        for name, colour, words, style in (
            ("loss", "0.65", "training", "-"),
            ("validation_loss", "#0b6e99", "stars held out", "o-"),
        ):
            height = np.array([float(row[name] or "nan") for row in rows])
            known = np.isfinite(height)
            axes.plot(step[known], height[known], style, color=colour, label=words, markersize=3)
        axes.set_xlabel("step")
        axes.set_ylabel("negative log likelihood")
        axes.legend(frameon=False)
        axes.spines[["top", "right"]].set_visible(False)
        figure.savefig(path, dpi=110)
