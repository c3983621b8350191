"""The experiments, in the order of the paper's figures; to run them, and to write them down."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from catalogproc.datasets.test_sets import Benchmark, training_stars
from catalogproc.errors import BundleError, ContractError, InputError, JobError
from catalogproc.evaluation.metrics import available
from catalogproc.evaluation.xgboost_baseline import TreeSettings
from catalogproc.io.atomic import write_whole
from catalogproc.network.bundle import Bundle
from catalogproc.network.predictor import Predictor
from catalogproc.paper import (
    extinction_curve,
    isochrones,
    kiel_maps,
    reconstruction,
    scatter_panels,
)
from catalogproc.paper.base import Experiment, Number, Outcome, Real, Setting
from catalogproc.paper.plotting import picture

Progress = Callable[[int, int, str], None]

EXPERIMENTS = tuple(
    Experiment(*row)
    for row in (
        (4, "Teff, log g and [M/H] from six sets of tokens",
         "Predicted against true: a, XGBoost on the tokens of b; b to f, the model, from 63 "
         "tokens, 13, 64 random ones, noisy ones, and these with the truth among them. The paper: "
         "better than XGBoost, robust against fewer and random tokens, large sigmas from noisy "
         "ones, identity where the truth is given.", scatter_panels.atmospheres, (10.6, 5.2)),
        (5, "Mass and age from six sets of tokens",
         "The same for mass and age.", scatter_panels.mass_and_age, (10.6, 3.7)),
        (6, "Kiel diagram, reddening, distances",
         "From the tokens of b: the giant branch and the red clump, with its gradient in [M/H]; "
         "E(B-V); distances from the pseudo-luminosity.",
         scatter_panels.what_answers_show, (11, 3.3)),
        (7, "Spectra along isochrones",
         "Spectra from labels that belong together on PARSEC's giant branch. The paper: more "
         "luminous with mass, deeper lines with [M/H].", isochrones.along_isochrones, (12, 4.2)),
        (8, "Spectra from labels",
         "Observed spectra and those that the model makes of Teff, log g, [M/H], E(B-V), mass and "
         "age, for stars at percentiles of RMSE (root mean square difference over the observed "
         "mean flux). The paper: good to the 75th percentile.",
         reconstruction.from_labels, (10, 4.6)),
        (9, "Residuals by wavelength",
         "The same stars. The paper: a median about zero, wider below 450 nm.",
         reconstruction.by_wavelength, (7, 3.4)),
        (10, "RMSE against distance and parallax",
         "The paper: larger with distance, smaller with parallax S/N. Distant stars are faint, and "
         "behind more dust: beside it stands how RMSE goes with either.",
         reconstruction.by_distance, (8, 3.4)),
        (11, "RMSE over the labels",
         "Median RMSE by cells of Teff, log g and [M/H]. The paper: uniform, with a rise at the "
         "edges.", reconstruction.over_labels, (11, 3.3)),
        (12, "One band from the other",
         "BP from the coefficients of RP that carry signal, and RP from those of BP; below and "
         "above 640 nm. The paper, from 52 coefficients: good for three quarters of the stars, "
         "often better than from labels.",
         reconstruction.one_band_from_the_other, (10, 4.6)),
        (13, "Teff and luminosity over log g and [M/H]",
         "Asked of nothing else, where giants are (the paper: log g 0 to 5); the luminosity "
         "without dust. The paper: the giant branch, cooler with [M/H].",
         kiel_maps.temperature_and_luminosity, (11, 3.4)),
        (14, "Mass and age with and without Teff",
         "Over log g and [M/H]; Teff is the model's own answer there. The paper: the same means, "
         "smaller sigmas, heavier stars at the red clump.",
         kiel_maps.with_and_without_teff, (12, 5)),
        (15, "Age against [M/H]",
         "From log g and [M/H] alone, with its band of one sigma. The paper: about 12 Gyr for "
         "metal-poor stars, 4 to 5 Gyr at solar [M/H].", kiel_maps.age_and_metallicity, (6.5, 3.8)),
        (16, "The extinction curve",
         "R(λ) = -2.5 log10(F/F0) / (0.884 E), of giants of log g 1 to 2.4 behind E = 0.4, 0.8 "
         "and 1.2 mag (SFD scale) and without dust. Spectra are over G, without their level: "
         "A_G is Gaia's relation for giants, and beside it stands the A_G of the model's own "
         "luminosities. The paper: agrees with Fitzpatrick 1999, R_V 3.1.",
         extinction_curve.the_curve, (10, 3.8)),
        (17, "Attention with and without dust",
         "Where the last block of the decoder looks when a coefficient is asked for. Attention "
         "tells where an answer was looked for, not what made it. The paper: from Teff to E(B-V) "
         "when there is dust; to mass and age as before.",
         extinction_curve.where_it_looks, (10, 5)),
        (18, "Colours from XP",
         "BP-RP and J-K from 32 coefficients a band. The paper: tight, for Gaia's colour and for "
         "2MASS's.", scatter_panels.colours, (8, 3.8)),
        (19, "RP0 from ever more",
         "From labels; with J-H and J-K; with BP-RP too; beside XGBoost, grown on the training "
         "part. The paper: scatter falls by 4, then to XGBoost's.",
         scatter_panels.growing_information, (12, 3.2)),
    )
)  # fmt: skip

TRAINING_SEED = 90_210
"""Of the simulated stars that trees are grown on; those of a judgement."""

FIGURES = tuple(experiment.figure for experiment in EXPERIMENTS)


@dataclass(frozen=True)
class Scale:
    """How much work goes into experiments.

    Trees and the stars that they are grown on; stars that whole spectra are made of.
    """

    trees: TreeSettings
    tree_stars: int
    spectra_stars: int

    @classmethod
    def of(cls, quick: bool) -> Scale:
        """A full one, minutes on two cores; or a quick one."""
        if quick:
            return cls(TreeSettings(trees=100, rate=0.2), 5_000, 1000)
        return cls(TreeSettings(), 50_000, 4000)


@dataclass(frozen=True, eq=False)
class Made:
    """An experiment that was run; ``missing`` says why there is no outcome."""

    experiment: Experiment
    outcome: Outcome | None
    missing: str = ""


def chosen(words: str) -> tuple[Experiment, ...]:
    """Experiments by the numbers of their figures: "7,16", or "all"; "none" is none.

    Raises JobError for what is no such list.
    """
    if words == "all":
        return EXPERIMENTS
    if words == "none":
        return ()
    wanted = {word.strip() for word in words.split(",")} - {""}
    known = {str(figure) for figure in FIGURES}
    if not wanted or wanted - known:
        raise JobError(
            "no such figure of the seed paper",
            wanted=f"all, none, or some of {', '.join(map(str, FIGURES))}",
            found=words, where="--figures",
        )  # fmt: skip
    return tuple(item for item in EXPERIMENTS if str(item.figure) in wanted)


def unseen(bundle: Bundle, stars: Benchmark) -> Benchmark:
    """The stars without the real ones that the model was trained on; their name says so.

    Raises InputError where none is left.
    """
    trained_on = bundle.reliability.seen(stars.ids)
    if not stars.real or not trained_on.any():
        return stars
    kept = stars.rows(~trained_on)
    if not len(kept):
        raise InputError(
            "the model was trained on every star that it is to be judged on",
            found=f"{len(stars):,} stars", where=stars.name, todo="name others with --data",
        )  # fmt: skip
    words = f"{len(kept):,} of {stars.name}, the others having trained the model"
    return replace(kept, name=words)


def run(
    experiments: Sequence[Experiment],
    bundle: Bundle,
    stars: Benchmark,
    data: Path | None,
    scale: Scale,
    device: str = "cpu",
    progress: Progress | None = None,
) -> list[Made]:
    """Run experiments on stars with known answers, which are those of ``data``.

    Trees are grown on the training part of that, where it has one, else on simulated stars.

    What a model was not trained to answer, or a vocabulary does not have, leaves its experiment
    out, with the reason.
    """
    predictor = Predictor(bundle, available(device))

    def others() -> Benchmark:
        drawn = training_stars(data, scale.tree_stars, TRAINING_SEED, bundle.vocabulary)
        return drawn.rows(slice(scale.tree_stars))

    setting = Setting(predictor, stars, others, scale.trees, scale.spectra_stars)
    made = []
    for done, experiment in enumerate(experiments):
        if progress is not None:
            progress(done, len(experiments), f"figure {experiment.figure}: {experiment.title}")
        try:
            made.append(Made(experiment, experiment.run(setting)))
        except (BundleError, ContractError) as error:
            made.append(Made(experiment, None, error.message))
    if progress is not None:
        progress(len(experiments), len(experiments), "")
    return made


def lines(made: Sequence[Made]) -> Iterator[str]:
    """For a terminal: each figure, and what holds."""
    for item in made:
        title = f"figure {item.experiment.figure:2}  {item.experiment.title}"
        if item.outcome is None:
            yield f"{title}: left out: {item.missing}"
            continue
        good, bad = item.outcome.holding, item.outcome.failing
        yield f"{title}: {len(good)} of {len(good) + len(bad)} hold"
        for number in bad:
            yield f"           does not hold: {_against(number)}"


FIELDS = ("figure", "number", "ours", "unit", "beside", "whose", "wanted", "verdict")
VERDICT = {True: "holds", False: "does not hold", None: ""}


def write_experiments(
    made: Sequence[Made], bundle: Bundle, stars: Benchmark, folder: Path
) -> list[Path]:
    """Write figure_NN.png and figure_NN.csv of each, what is drawn as figure_NN_curves.csv where
    a table of it says more than the picture, and experiments.md; returns their paths."""
    parts: dict[str, bytes] = {}
    for item in made:
        if item.outcome is None:
            continue
        name = f"figure_{item.experiment.figure:02d}"
        parts[f"{name}.png"] = picture(item.experiment, item.outcome)
        rows = [_row(item.experiment.figure, number) for number in item.outcome.numbers]
        parts[f"{name}.csv"] = _csv(FIELDS, rows)
        curves = item.outcome.curves
        if curves:
            columns = np.column_stack(list(curves.values()))
            parts[f"{name}_curves.csv"] = _csv(
                tuple(curves), [[_digits(x) for x in row] for row in columns]
            )
    parts["experiments.md"] = page(made, bundle, stars).encode()
    for name, content in parts.items():
        write_whole(folder / name, content)
    return [folder / name for name in parts]


def page(made: Sequence[Made], bundle: Bundle, stars: Benchmark) -> str:
    """All of it as one page of Markdown, pictures beside it by their names."""
    lines = [
        f"# The seed paper's experiments, by {bundle.name} ({bundle.hash[:8]})",
        "",
        f"On {stars.name}; {'real stars' if stars.real else 'drawn to judge it'}. "
        "Figures are those of Zhang, Bu et al. (2026). Published numbers are of real stars with "
        "APOGEE's labels: another sample, brighter than ours. Scatter is 1.4826 times the median "
        "absolute deviation. This page is written by `catalogproc evaluate`; where no number "
        "stands beside ours, the paper claims none.",
        "",
        "| figure | what | holds | does not hold |",
        "|---|---|---|---|",
    ]
    for item in made:
        out = item.outcome
        counts = ("left out", "") if out is None else (len(out.holding), len(out.failing) or "")
        number, title = item.experiment.figure, item.experiment.title
        lines.append(f"| [{number}](#figure-{number}) | {title} | {counts[0]} | {counts[1]} |")
    good, bad = (
        sum(len(getattr(item.outcome, name)) for item in made if item.outcome is not None)
        for name in ("holding", "failing")
    )
    lines.append(f"| all | | {good} | {bad or ''} |")
    for item in made:
        lines += ["", f"## Figure {item.experiment.figure}", "", *_section(item)]
    return "\n".join(lines) + "\n"


def _section(item: Made) -> list[str]:
    experiment, outcome = item.experiment, item.outcome
    lines = [f"**{experiment.title}.** {experiment.claim}", ""]
    if outcome is None:
        return [*lines, f"Left out: {item.missing}."]
    name = f"figure_{experiment.figure:02d}"
    lines += [f"![{experiment.title}]({name}.png)", "", said(outcome), ""]
    lines += ["| number | ours | unit | beside | whose | verdict |", "|---|---:|---|---:|---|---|"]
    for number in (n for n in outcome.numbers if np.isfinite(n.ours)):
        beside = f"{'≤' if number.wanted == 'at most' else '≥' if number.wanted else ''} "
        beside += _digits(number.beside, 3)
        cells = (number.what, _digits(number.ours, 3), number.unit, beside.strip(), number.whose,
                 VERDICT[number.holds])  # fmt: skip
        lines.append("| " + " | ".join(cells) + " |")
    return lines


MENTIONED = 8
"""Of what holds, so many numbers are named in the sentence; the table has them all."""


def said(outcome: Outcome) -> str:
    """What holds and what does not, in a sentence or two."""
    good, bad = outcome.holding, outcome.failing
    if not good and not bad:
        return "Nothing is decided by a number here."
    parts = [
        f"{words}: {'; '.join(_against(number) for number in numbers[:MENTIONED])}"
        + (f"; and {len(numbers) - MENTIONED} more." if len(numbers) > MENTIONED else ".")
        for words, numbers in (("Holds", good), ("Does not hold", bad))
        if numbers
    ]
    return " ".join(parts)


def _against(number: Number) -> str:
    unit = f" {number.unit}" if number.unit else ""
    sign = "≤" if number.wanted == "at most" else "≥"
    ours, beside = _digits(number.ours, 3), _digits(number.beside, 3)
    return f"{number.what} ({ours}{unit}, wanted {sign} {beside})"


def _row(figure: int, number: Number) -> list[str]:
    return [
        str(figure), number.what, _digits(number.ours), number.unit, _digits(number.beside),
        number.whose, number.wanted, VERDICT[number.holds],
    ]  # fmt: skip


def _digits(number: Real, digits: int = 6) -> str:
    """So many significant digits, "" for NaN."""
    return "" if math.isnan(number) else f"{number:.{digits}g}"


def _csv(header: Sequence[str], rows: Sequence[Sequence[str]]) -> bytes:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return out.getvalue().encode()
