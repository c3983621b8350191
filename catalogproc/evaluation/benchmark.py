"""Evaluation of a model on stars with known labels, next to XGBoost and the information limit.

Panels a to f are those of figures 4 and 5 of Zhang, Bu et al. (2026), on simulated stars or on
any stars with known labels; panel k are real Kepler giants.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from catalogproc.datasets import kepler
from catalogproc.datasets.benchmark_stars import Benchmark
from catalogproc.datasets.test_sets import Simulated, simulated
from catalogproc.evaluation.metrics import (
    INPUT_SETS,
    Predictions,
    predict,
    resolve_device,
    select_inputs,
)
from catalogproc.evaluation.panel_scores import (
    ALL,
    EVALUATED,
    GRAVITY,
    KEPLER,
    LIMIT,
    MODEL,
    TREES,
    Panel,
    PanelScore,
    sample_rows,
    score_panel,
    score_samples,
)
from catalogproc.evaluation.quantities import label_of, labels_of
from catalogproc.evaluation.xgboost_baseline import (
    KEPLER_TREES,
    TreeData,
    Trees,
    TreeSettings,
)
from catalogproc.network.bundle import Bundle
from catalogproc.network.predictor import Predictor
from catalogproc.network.star_tokens import StarTokens
from catalogproc.simulation.simulator import corrected_stars
from catalogproc.vocabulary import Vocabulary

Floats = NDArray[np.floating]
Progress = Callable[[int, int, str], None]

STEPS_PER_PART = 1000
"""Steps of progress in each part of the work."""


@dataclass(frozen=True)
class BenchmarkConfig:
    """Size of an evaluation.

    Attributes
    ----------
    sets
        Input sets, keys of INPUT_SETS.
    tree_stars, trees
        Number of simulated stars that XGBoost is fitted to, and how its trees are grown.
    limit_stars, library_stars
        Number of stars, the first ones, whose information limit is computed, and number of
        simulated stars in the library for that. 0 skips it; real stars have none.
    seed
        Random seed of the simulated stars for XGBoost and the library.
    device
        Device of the model.
    """

    sets: tuple[str, ...] = tuple(INPUT_SETS)
    tree_stars: int = 100_000
    trees: Trees = field(default_factory=lambda: Trees(TreeSettings()))
    limit_stars: int = 1000
    library_stars: int = 100_000
    seed: int = 90_210
    device: str = "cpu"

    @classmethod
    def preset(
        cls, quick: bool, device: str = "cpu", trees: Trees | None = None
    ) -> BenchmarkConfig:
        """Return the configuration of a full evaluation, or of one that takes minutes.

        Parameters
        ----------
        quick
            Fewer panels, fewer trees and a smaller library.
        device
            "cpu", "cuda", or "auto": a GPU where there is one.
        trees
            XGBoost; by default as for simulated stars.
        """
        device, trees = resolve_device(device), trees or Trees.preset(quick, real=False)
        if not quick:
            return cls(device=device, trees=trees)
        return cls(
            sets=("b", "c"),
            tree_stars=10_000,
            trees=trees,
            limit_stars=200,
            library_stars=20_000,
            device=device,
        )


@dataclass(frozen=True, eq=False)
class BenchmarkResult:
    """All scores of an evaluation, and the predictions behind them.

    Attributes
    ----------
    model, hash
        Name and hash of the bundle.
    stars, real
        Description of the stars; whether they are real.
    sample_sizes
        Number of stars in each of SAMPLES; empty where the stars are not divided.
    """

    model: str
    hash: str
    stars: str
    real: bool
    sample_sizes: Mapping[str, int]
    scores: tuple[PanelScore, ...]
    panels: tuple[Panel, ...]
    vocabulary: Vocabulary

    def find(self, panel: str, method: str, quantity: str, sample: str = ALL) -> PanelScore | None:
        """Return one score, or None where it was not computed.

        Parameters
        ----------
        panel, method, quantity
            Letter of the panel, name of the method, key of QUANTITIES.
        sample
            Key of SAMPLES.
        """
        key = (panel, method, quantity, sample)
        found = (x for x in self.scores if (x.panel, x.method, x.score.label, x.sample) == key)
        return next(found, None)


def evaluate_model(
    bundle: Bundle,
    stars: Benchmark,
    config: BenchmarkConfig | None = None,
    progress: Progress | None = None,
    training: Benchmark | None = None,
) -> BenchmarkResult:
    """Evaluate a model on stars with known labels, and on the Kepler giants held out.

    Parameters
    ----------
    bundle
        The model.
    stars
        The test stars.
    config
        Size of the evaluation; a full one by default.
    progress
        Called with (steps done, all steps, note).
    training
        Stars that XGBoost is fitted to, with the same tokens absent; simulated ones by default.
        For the Kepler giants it is fitted to those that are not held out.
    """
    config = config or BenchmarkConfig()
    vocabulary = bundle.vocabulary
    if training is None:
        wanted = Simulated.as_trained(config.tree_stars, config.seed, bundle.training)
        training = simulated(wanted, vocabulary)
    # The library of the limit has stars as the simulator makes them without the correction.
    steps = _Steps(progress, config, stars.real or corrected_stars(bundle.training))
    limit = _InformationLimit(vocabulary, config, steps) if steps.with_limit else None
    evaluator = _Evaluator(Predictor(bundle, config.device), stars, training, config, limit, steps)
    panels = [evaluator.panel(key) for key in config.sets]
    kepler_panel = evaluator.kepler_panel()
    scores = [
        score for panel in [*panels, kepler_panel] for score in score_panel(panel, vocabulary)
    ]
    samples = sample_rows(stars, bundle)
    for panel in panels:
        scores += score_samples(panel, vocabulary, samples)
    return BenchmarkResult(
        bundle.name, bundle.hash, stars.name, stars.real,
        {name: int(rows.sum()) for name, rows in samples.items()},
        tuple(scores), (*panels, kepler_panel), vocabulary,
    )  # fmt: skip


def tree_predictions(
    training: Benchmark,
    inputs: Floats,
    names: Sequence[str],
    trees: Trees,
    progress: Progress | None = None,
) -> Predictions:
    """Fit XGBoost to labelled stars and predict the labels of others.

    Parameters
    ----------
    training
        Stars to fit: ``values`` are the inputs, ``truth`` the labels.
    inputs
        Dense tokens (N, V) of the stars to predict; their columns with any value are read.
    names
        Labels or quantities.
    trees
        XGBoost.
    progress
        Called with (trees grown, all trees, note).
    """
    columns = np.flatnonzero(np.isfinite(inputs).any(axis=0))
    labels = labels_of(names)
    truth = training.truth[:, training.vocabulary.columns(labels)]
    data = TreeData(training.values, truth, labels, columns)
    return Predictions(labels, trees.predict(data, inputs, progress))


def _known(stars: Benchmark) -> list[str]:
    """The quantities of which some true values are known."""
    known = np.asarray(np.isfinite(stars.truth).any(axis=0))
    names = [name for name in EVALUATED if label_of(name) in stars.vocabulary]
    return [name for name in names if known[stars.vocabulary.column(label_of(name))]]


@dataclass(frozen=True, eq=False)
class _Evaluator:
    """Everything that the panels share."""

    predictor: Predictor
    stars: Benchmark
    training: Benchmark
    config: BenchmarkConfig
    limit: _InformationLimit | None
    steps: _Steps

    def panel(self, key: str) -> Panel:
        """Return the predictions for one input set: model, XGBoost, information limit."""
        stars, training, vocabulary = self.stars, self.training, self.stars.vocabulary
        inputs = select_inputs(key, stars.inputs, stars.labels, vocabulary)
        able = self.predictor.bundle.requestable
        asked = [name for name in EVALUATED if label_of(name) in able]
        predictions = {MODEL: predict(self.predictor, inputs, asked)}
        self.steps.next(f"{key}: model")
        if not INPUT_SETS[key].includes(vocabulary.named("label")):
            fitted, read = (
                select_inputs(key, some.tree_inputs, some.labels, vocabulary).values
                for some in (training, stars)
            )
            predictions[TREES] = tree_predictions(
                replace(training, values=fitted),
                read,
                _known(training),
                self.config.trees,
                self.steps.part(key),
            )
            self.steps.next(f"{key}: trees")
            if self.limit is not None:
                predictions[LIMIT] = self.limit.predict(inputs, self.steps.part(key))
                self.steps.next(f"{key}: information limit")
        return Panel(key, predictions, stars.labels)

    def kepler_panel(self) -> Panel:
        """Return the predictions for real giants, held out by KIC: model, XGBoost, g R²."""
        training, test = kepler.parts(self.predictor.bundle.vocabulary)
        predictions = {
            MODEL: predict(self.predictor, test.inputs, ("mass",)),
            TREES: tree_predictions(training, test.values, ("mass",), Trees(KEPLER_TREES)),
            GRAVITY: Predictions(("mass",), kepler.gravity_mass(test)[:, None]),
        }
        self.steps.next("Kepler giants")
        return Panel(KEPLER, predictions, test.labels)


class _InformationLimit:
    """The posterior under the simulator's prior; the library is shared by all panels."""

    def __init__(self, vocabulary: Vocabulary, config: BenchmarkConfig, steps: _Steps) -> None:
        from catalogproc.evaluation.simulator_posterior import NoiselessGiants, build_giant_library
        from catalogproc.simulation.simulator import Simulator

        kinds = ("coefficient", "colour")
        columns = [i for i, token in enumerate(vocabulary.tokens) if token.kind in kinds]
        self._giants = NoiselessGiants(Simulator(), vocabulary, np.array(columns))
        self._library = build_giant_library(
            self._giants, config.library_stars, config.seed + 1, steps.part("library")
        )
        self._stars = config.limit_stars
        steps.next("library")

    def predict(self, inputs: StarTokens, progress: Progress | None) -> Predictions:
        """Return the posterior of the first stars; NaN for the others."""
        from catalogproc.evaluation.simulator_posterior import LABELS, information_limit

        found = information_limit(
            self._library,
            self._giants,
            inputs.values[: self._stars],
            inputs.errors[: self._stars],
            progress,
        )
        padding = ((0, len(inputs) - len(found.mean)), (0, 0))
        mean, sigma = (
            np.pad(x, padding, constant_values=np.nan) for x in (found.mean, found.sigma)
        )
        return Predictions(LABELS, mean, sigma)


class _Steps:
    """Progress over all parts, STEPS_PER_PART steps each."""

    def __init__(self, report: Progress | None, config: BenchmarkConfig, unlike: bool) -> None:
        self._report, self._done = report, 0
        self.with_limit = bool(config.limit_stars and config.library_stars) and not unlike
        compared = [key for key in config.sets if not INPUT_SETS[key].includes(("teff",))]
        parts = len(config.sets) + len(compared) * (1 + self.with_limit) + self.with_limit + 1
        self._total = STEPS_PER_PART * parts

    def next(self, note: str) -> None:
        """Report that a part is done."""
        self._done += STEPS_PER_PART
        if self._report is not None:
            self._report(self._done, self._total, note)

    def part(self, name: str) -> Progress | None:
        """Return a progress function for the inside of the next part."""
        if self._report is None:
            return None
        report = self._report

        def inner(done: int, total: int, note: str) -> None:
            within = done * (STEPS_PER_PART - 1) // max(total, 1)
            report(self._done + within, self._total, f"{name}: {note}")

        return inner
