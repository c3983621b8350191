"""Model cards: training data, intended use and evaluation of a bundle."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path

import numpy as np

from catalogproc.datasets import kepler
from catalogproc.datasets.apogee_xp import GIANT_LOGG, GIANT_TEFF
from catalogproc.datasets.star_table import StarTable
from catalogproc.evaluation.colour_teff import RELATION_SCATTER, ColourCheck, colour_check
from catalogproc.evaluation.literature import PUBLISHED, SEISMIC_FLOOR
from catalogproc.evaluation.metrics import (
    decile_markdown,
    evaluate_input_sets,
    markdown,
    predict,
    select_inputs,
)
from catalogproc.evaluation.quantities import label_of
from catalogproc.evaluation.scores import DecileScore, Score
from catalogproc.io.atomic import write_atomic
from catalogproc.io.remote_file import File
from catalogproc.job import TrainingJob
from catalogproc.network.bundle import Bundle
from catalogproc.network.predictor import Predictor
from catalogproc.training.checkpoint import CURVE
from catalogproc.training.training_data import SIMULATED_USE
from catalogproc.vocabulary import Vocabulary

CURVE_PICTURE, COMPARISON, EVALUATION = "learning_curve.png", "comparison.png", "evaluation.md"

EVALUATED = (
    "teff", "logg", "m_h", "alpha_m", "mass", "mass_percent", "age", "age_percent", "log_age",
)  # fmt: skip
DECILES = ("teff", "logg", "m_h", "alpha_m", "mass", "age", "log_age")
"""Quantities whose scores along the true values are shown."""

FIELD_STARS, FIELD_SEED = 20_000, 1
"""Number and seed of simulated field stars that the real spectra are compared with."""


def write_card(
    bundle: Bundle,
    job: TrainingJob,
    test: StarTable,
    intended_use: str = SIMULATED_USE,
    spectra: Sequence[File] = (),
) -> dict[str, list[Score]]:
    """Evaluate a bundle and write CARD.md, scores.json and pictures into its folder.

    The learning curve is drawn if the folder has one.

    Parameters
    ----------
    bundle
        The model.
    job
        The job that it was trained by.
    test
        Stars that it was not trained on; of real ones, those that are giants by their labels are
        evaluated.
    intended_use
        Text of the card.
    spectra
        Files of real spectra, which are compared with simulated ones, and the Teff of their
        colours with the predicted one.

    Returns
    -------
    Scores by input set.
    """
    vocabulary = bundle.vocabulary
    if _of_real_stars(bundle):
        test = _giants(test, vocabulary)
    inputs = test.tokens.without(vocabulary.columns(vocabulary.named("label")))
    names = tuple(name for name in EVALUATED if label_of(name) in bundle.requestable)
    predictor = Predictor(bundle)
    scores = evaluate_input_sets(predictor, inputs, test.tokens, names, "bcdef")
    shown = select_inputs("b", inputs, test.tokens, vocabulary)
    along = [name for name in DECILES if name in names]
    deciles = predict(predictor, shown, along).deciles(test.tokens, vocabulary, along)
    as_json = {name: [vars(row) for row in rows] for name, rows in scores.items()}
    write_atomic(bundle.path / "scores.json", (json.dumps(as_json, indent=1) + "\n").encode())
    parts = [_head(bundle, job, intended_use), _evaluation(bundle, scores), _along(deciles)]
    if job.real:
        parts.append(_kepler(bundle))
    if spectra:
        parts += [_colours(bundle, spectra), _comparison(bundle.path, spectra)]
    parts.append(_curve(bundle.path))
    write_atomic(bundle.path / "CARD.md", "\n".join(part for part in parts if part).encode())
    return scores


def _of_real_stars(bundle: Bundle) -> bool:
    return "dataset_sha256" in bundle.training


def _giants(stars: StarTable, vocabulary: Vocabulary) -> StarTable:
    """The stars that are giants by their labels."""
    teff, logg = (stars.values[:, vocabulary.column(name)] for name in ("teff", "logg"))
    return stars.rows((teff < GIANT_TEFF) & (logg < GIANT_LOGG))


def _head(bundle: Bundle, job: TrainingJob, intended_use: str) -> str:
    training = bundle.training
    real_stars = _of_real_stars(bundle)
    command = f"catalogproc train --job {job.name} --output DIR"
    rows = [
        f"| trained on | {training['data']}: {training['stars']:,} "
        f"{'rows' if real_stars else 'stars'}, {training['steps']:,} steps |",
        f"| credit | {training['credit']} |",
    ]
    if real_stars:
        command += " --data DATASET"
        rows.append(f"| dataset | SHA-256 {training['dataset_sha256']} |")
    if "from" in training:
        command += " --from BUNDLE"
        rows.append(f"| fine-tuned from | {training['from']}: {training['from_data']} |")
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
        f"| command | `{command}` (job {job.hash[:8]}), {date.today()} |",
        f"| network | {network_words(bundle)} |",
        f"| hash | {bundle.hash} |",
    ]
    table = "\n".join(rows)
    return f"""# {bundle.name}

{bundle.description}

| | |
|---|---|
{table}

## What it may be used for, and what not

{intended_use}
"""


def network_words(bundle: Bundle) -> str:
    """Return the network of a bundle in words.

    Parameters
    ----------
    bundle
        The model.
    """
    shape, names = bundle.shape, bundle.vocabulary.names

    def blocks(found: Sequence[tuple[int, int]]) -> str:
        sizes = ", ".join(f"{heads} heads and {width} units" for heads, width in found)
        return f"{len(found)} blocks ({sizes})"

    words = [
        f"Transformer on {shape.tokens} tokens of {shape.width} numbers each; encoder of "
        f"{blocks(shape.encoder)}, decoder of {blocks(shape.decoder)}, then layers of "
        f"{', '.join(map(str, shape.head))} units",
        "reads the errors of its inputs" if shape.reads_errors else "does not read errors",
    ]
    if shape.components > 1:
        several = ", ".join(names[number - 1] for number in shape.mixture) or "every label"
        words.append(f"predicts {several} as a sum of {shape.components} Gaussians")
    if shape.late:
        late = ", ".join(names[number - 1] for number in shape.late)
        words.append(f"{late} enters at the decoder")
    if shape.dropout:
        words.append(f"dropout {shape.dropout:g}")
    return "; ".join(words)


def _evaluation(bundle: Bundle, scores: dict[str, list[Score]]) -> str:
    kind = "real" if _of_real_stars(bundle) else "simulated"
    floors = " and ".join(f"{100 * x:.3g} % in {name}" for name, x in SEISMIC_FLOOR.items())
    source, mass = PUBLISHED["b", "mass"]
    published = (
        f"{source} state a scatter of {mass:g} Msun and {PUBLISHED['b', 'age'][1]:g} Gyr for 63 "
        "tokens, on real stars with masses and ages of DistMass, whose spread they do not state."
    )
    baselines = ""
    if (bundle.path / EVALUATION).is_file():
        baselines = (
            f"\nCompared with XGBoost and the information limit: [{EVALUATION}]({EVALUATION}).\n"
        )
    return f"""## Evaluation on {scores["b"][0].stars:,} {kind} giants not used in training

Scatter is 1.4826 times the median absolute deviation of predicted minus true; bias its median;
z = (predicted - true) / sigma, where sigma includes the error of the true value. A small scatter is
no skill where the true values are alike: spread is their own scatter, R2 is 1 minus the mean square
residual over their variance, slope is that of the predicted values on the true ones, slope of truth
that of the true on the predicted ones (1 for a prediction that is the mean of the true values).
Masses and ages are also given relative to the true ones: the best seismic values are good to
{floors} (APOKASC-3). {published}
{baselines}
{markdown(scores)}
"""


def _along(deciles: Mapping[str, tuple[DecileScore, ...]]) -> str:
    return f"""## Skill along the true values

63 tokens, in ten ranges of the true value with equally many stars. A model that knows nothing is
biased by the whole distance to the mean; uncertainties that are right for every kind of star hold
0.68 of the stars in each range.

{decile_markdown(deciles)}
"""


def _kepler(bundle: Bundle) -> str:
    test = kepler.parts(bundle.vocabulary)[1]
    predictions = predict(Predictor(bundle), test.inputs, ("mass",))
    names = ("mass", "mass_percent")
    mass, relative = predictions.scores(test.labels, bundle.vocabulary, names)
    return f"""## Real red giants, held out by KIC

Mass from three colours, Teff, log g, [M/H] and pseudo-luminosity, compared with asteroseismic
masses (scaling relations; Li et al. 2024): scatter {mass.scatter:.3f} Msun ({relative.scatter:.1f}
%), bias {mass.bias:+.3f} Msun, R2 {mass.r2:.2f}, slope of predicted on seismic {mass.slope:.2f} and
of seismic on predicted {mass.slope_of_truth:.2f} for {mass.stars:,} stars, whose masses have a
spread of {mass.spread:.2f} Msun. The standard deviation of z, with the errors of the seismic
masses, is {mass.z_std:.1f}.
"""


def _colours(bundle: Bundle, spectra: Sequence[File]) -> str:
    stars = colour_check(bundle, spectra)
    known = bundle.calibration.trained_on
    unseen = stars if known is None else stars.rows(~np.isin(stars.source_id, known))

    def text(check: ColourCheck) -> str:
        if not len(check.teff):
            return "no star"
        return f"scatter {check.scatter:.0f} K, bias {check.bias:+.0f} K for {len(check.teff):,}"

    return f"""## Real spectra: Teff compared with that of the colour

Giants without flags, compared with the relation of Mucciarelli, Bellazzini & Massari (2021; its
scatter is {RELATION_SCATTER:.0f} K), BP - RP corrected for the predicted reddening:
{text(stars)}; of these, not in the training, {text(unseen)}.
"""


def _comparison(folder: Path, spectra: Sequence[File]) -> str:
    from catalogproc.simulation.build_grids import read_real
    from catalogproc.simulation.compare_with_real import compare, field
    from catalogproc.simulation.simulator import Simulator

    compared = compare(read_real(spectra), field(Simulator("cpu"), FIELD_STARS, FIELD_SEED))
    compared.plot(folder / COMPARISON)
    worst = int(np.argmax(np.abs(compared.shift)))
    return f"""## Simulated spectra compared with real ones

Medians of the first coefficients of {compared.stars:,} real spectra and of simulated giants and
dwarfs of the same colours differ by at most {abs(compared.shift[worst]):.2f} of the real ones'
spread ({compared.names[worst]}); half of them by less than {np.median(np.abs(compared.shift)):.2f}.

![shift of the medians, coefficient by coefficient]({COMPARISON})
"""


def _curve(folder: Path) -> str:
    if not (folder / CURVE).is_file():
        return ""
    draw_curve(folder / CURVE, folder / CURVE_PICTURE)
    return f"""## Learning curve

![loss by step, of training and validation stars]({CURVE_PICTURE})
"""


def draw_curve(source: Path, path: Path) -> None:
    """Draw a learning curve as a PNG.

    Parameters
    ----------
    source
        The learning curve of a training, CSV.
    path
        The picture.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with source.open(newline="") as file:
        rows = list(csv.DictReader(file))
    step = np.array([float(row["step"]) for row in rows])
    # GaiaXPy, once imported, switches matplotlib to LaTeX.
    with rc_context({"text.usetex": False}):
        figure = Figure(figsize=(7, 3.4), layout="constrained")
        axes = figure.subplots()
        for name, colour, label, style in (
            ("loss", "0.65", "training", "-"),
            ("validation_loss", "#0b6e99", "validation", "o-"),
        ):
            height = np.array([float(row[name] or "nan") for row in rows])
            known = np.isfinite(height)
            axes.plot(step[known], height[known], style, color=colour, label=label, markersize=3)
        axes.set_xlabel("step")
        axes.set_ylabel("negative log likelihood")
        axes.legend(frameon=False)
        axes.spines[["top", "right"]].set_visible(False)
        figure.savefig(path, dpi=110)
