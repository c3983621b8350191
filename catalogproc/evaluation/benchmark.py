"""A model before its judges: the seed paper's panels, beside trees and the best possible.

Panels a to f are those of figures 4 and 5 of Zhang, Bu et al. (2026), on simulated stars or on
whatever stars with known answers there are; panel k are real Kepler giants.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from catalogproc.datasets import kepler
from catalogproc.datasets.test_sets import OUTSIDE, Benchmark, simulated
from catalogproc.evaluation.metrics import (
    INPUT_SETS,
    Answers,
    Score,
    ask,
    available,
    given_by,
    tokens_of,
)
from catalogproc.evaluation.xgboost_baseline import KEPLER_TREES, TreeSettings, fit_baseline
from catalogproc.network.bundle import Bundle
from catalogproc.network.predictor import Predictor
from catalogproc.vocabulary import Vocabulary

Floats = NDArray[np.floating]
Progress = Callable[[int, int, str], None]

JUDGED = ("teff", "logg", "m_h", "mass", "age", "log_age", "ebv", "dist")

MODEL, TREES, BEST, GRAVITY = "model", "XGBoost", "best possible", "g R²"

PANELS = {"a": f"{TREES} on the inputs of b"} | {key: s.name for key, s in INPUT_SETS.items()}
KEPLER = "k"
KEPLER_PANEL = "Kepler giants: 3 colours, Teff, log g, [M/H], pseudo-luminosity"

ALL, CLEAN = "all", "neither"
TRAINED_ON, EXTRAPOLATED = "trained on", "labels extrapolated"
SAMPLES = {
    ALL: "every star",
    CLEAN: "those of neither of the next two",
    TRAINED_ON: "stars that the model was trained on",
    EXTRAPOLATED: "labels outside of what DistMass was trained on: [M/H] < -0.5 or its bit 2",
}
"""Of real stars, which are counted apart."""

PART = 1000
"""Steps of progress in each part of the work."""


@dataclass(frozen=True)
class Effort:
    """How much work goes into a judgement.

    sets
        Input sets, keys of INPUT_SETS.
    tree_stars, trees
        Simulated stars that the trees are grown on, and how many a label.
    best_stars, library
        Stars whose best possible answers are computed, the first ones; simulated stars in the
        library for that. 0 leaves it out, and so does a benchmark of real stars.
    seed
        Of the stars for trees and library.
    device
        Where the model runs.
    """

    sets: tuple[str, ...] = tuple(INPUT_SETS)
    tree_stars: int = 100_000
    trees: TreeSettings = field(default_factory=TreeSettings)
    best_stars: int = 1000
    library: int = 100_000
    seed: int = 90_210
    device: str = "cpu"

    @classmethod
    def of(cls, quick: bool, device: str = "cpu") -> Effort:
        """A full judgement, or one in minutes: fewer trees, and a smaller library, than it needs.

        ``device`` "auto" is a GPU where there is one.
        """
        device = available(device)
        if not quick:
            return cls(device=device)
        return cls(
            sets=("b", "c"),
            tree_stars=10_000,
            trees=TreeSettings(trees=200, rate=0.1),
            best_stars=200,
            library=20_000,
            device=device,
        )


@dataclass(frozen=True)
class Line:
    """One method's score for one quantity in one panel.

    ``of_best`` is its scatter over that of the best possible answer, on the same stars; NaN
    where that is not known. ``sample`` is one of SAMPLES.
    """

    panel: str
    inputs: str
    method: str
    score: Score
    of_best: float = float("nan")
    sample: str = ALL


@dataclass(frozen=True, eq=False)
class Panel:
    """Answers (method: Answers) for the stars of a panel, and their truth (N, V)."""

    key: str
    answers: dict[str, Answers]
    truth: Floats


@dataclass(frozen=True, eq=False)
class Judgement:
    """All lines, and the answers that they come from.

    ``apart`` says how many stars are in each of SAMPLES; nothing if none is to be set apart.
    """

    model: str
    hash: str
    stars: str
    real: bool
    apart: Mapping[str, int]
    lines: tuple[Line, ...]
    panels: tuple[Panel, ...]
    vocabulary: Vocabulary

    def find(self, panel: str, method: str, quantity: str, sample: str = ALL) -> Line | None:
        """A line, if there is one."""
        wanted = (panel, method, quantity, sample)
        found = (x for x in self.lines if (x.panel, x.method, x.score.label, x.sample) == wanted)
        return next(found, None)


def judge(
    bundle: Bundle,
    stars: Benchmark,
    effort: Effort | None = None,
    progress: Progress | None = None,
    training: Benchmark | None = None,
) -> Judgement:
    """Judge a model on stars with known answers, and on the Kepler giants held out.

    The trees are grown on the stars ``training``, simulated ones if none are given, with the
    same inputs absent; for the Kepler giants on those of them that are not held out.
    """
    effort = effort or Effort()
    predictor = Predictor(bundle, effort.device)
    steps = _Steps(progress, effort, stars.real)
    panels = []
    best = _Best(bundle.vocabulary, effort, steps) if steps.best else None
    if training is None:
        training = simulated(effort.tree_stars, effort.seed, bundle.vocabulary)
    for key in effort.sets:
        panels.append(_panel(key, predictor, stars, training, best, effort, steps))
    kept, held = kepler.parts(bundle.vocabulary)
    panels.append(_kepler(predictor, kept, held, steps))
    lines = [line for panel in panels for line in _lines(panel, bundle.vocabulary)]
    samples = _samples(stars, bundle)
    for panel in panels[:-1]:
        lines += _apart(panel, bundle.vocabulary, samples)
    return Judgement(
        bundle.name, bundle.hash, stars.name, stars.real,
        {name: int(rows.sum()) for name, rows in samples.items()},
        tuple(lines), tuple(panels), bundle.vocabulary,
    )  # fmt: skip


def _panel(
    key: str,
    predictor: Predictor,
    stars: Benchmark,
    training: Benchmark,
    best: _Best | None,
    effort: Effort,
    steps: _Steps,
) -> Panel:
    vocabulary = stars.vocabulary
    given = given_by(key, stars.values, stars.truth, vocabulary)
    answers = {MODEL: ask(predictor, given, JUDGED)}
    steps.next(f"{key}: the model")
    if not INPUT_SETS[key].tells(vocabulary.named("label")):
        seen = given_by(key, training.values, training.truth, vocabulary)
        answers[TREES] = trees(
            seen, training.truth, given, vocabulary, JUDGED, effort.trees, steps.part(key)
        )
        steps.next(f"{key}: trees")
        if best is not None:
            answers[BEST] = best.answers(given, stars.errors, steps.part(key))
            steps.next(f"{key}: best possible")
    return Panel(key, answers, stars.truth)


def trees(
    seen: Floats,
    truth: Floats,
    given: Floats,
    vocabulary: Vocabulary,
    names: Sequence[str],
    settings: TreeSettings,
    progress: Progress | None = None,
) -> Answers:
    """Answers (N, K) of trees grown on other stars; all are dense tokens (…, V)."""
    columns = np.flatnonzero(np.isfinite(given).any(axis=0))
    labels = tokens_of(names)
    known = truth[:, vocabulary.columns(labels)]
    fitted = fit_baseline(seen, known, labels, columns, settings, progress)
    return Answers(labels, fitted.predict(given))


class _Best:
    """The best possible answers; holds the library for all panels."""

    def __init__(self, vocabulary: Vocabulary, effort: Effort, steps: _Steps) -> None:
        from catalogproc.evaluation.simulator_posterior import Giants, library_of_giants
        from catalogproc.simulation.simulator import Simulator

        kinds = ("coefficient", "colour")
        columns = [i for i, token in enumerate(vocabulary.tokens) if token.kind in kinds]
        self._giants = Giants(Simulator(), vocabulary, np.array(columns))
        self._library = library_of_giants(
            self._giants, effort.library, effort.seed + 1, steps.part("library")
        )
        self._stars = effort.best_stars
        steps.next("library")

    def answers(self, given: Floats, errors: Floats, progress: Progress | None) -> Answers:
        """Of the first stars; the others' are NaN."""
        from catalogproc.evaluation.simulator_posterior import LABELS, best_answers

        found = best_answers(
            self._library, self._giants, given[: self._stars], errors[: self._stars], progress
        )
        rest = ((0, len(given) - len(found.mean)), (0, 0))
        mean, sigma = (np.pad(x, rest, constant_values=np.nan) for x in (found.mean, found.sigma))
        return Answers(LABELS, mean, sigma)


def _kepler(predictor: Predictor, kept: Benchmark, held: Benchmark, steps: _Steps) -> Panel:
    """Real giants, held out by KIC: the model, trees grown on the others, g R²."""
    vocabulary = held.vocabulary
    answers = {
        MODEL: ask(predictor, held.values, ("mass",)),
        TREES: trees(kept.values, kept.truth, held.values, vocabulary, ("mass",), KEPLER_TREES),
        GRAVITY: Answers(("mass",), kepler.gravity_mass(held)[:, None]),
    }
    steps.next("Kepler giants")
    return Panel(KEPLER, answers, held.truth)


def _lines(panel: Panel, vocabulary: Vocabulary) -> list[Line]:
    names = ("mass",) if panel.key == KEPLER else JUDGED
    inputs = KEPLER_PANEL if panel.key == KEPLER else PANELS[panel.key]
    limit: dict[str, Score] = {}
    if BEST in panel.answers:
        limit = {s.label: s for s in panel.answers[BEST].scores(panel.truth, vocabulary, names)}
    lines = []
    for method, answers in panel.answers.items():
        same = _on_the_same(answers, panel.answers.get(BEST))
        for score, beside in zip(
            answers.scores(panel.truth, vocabulary, names),
            same.scores(panel.truth, vocabulary, names),
            strict=True,
        ):
            if not score.stars:
                continue
            best = limit.get(score.label)
            ratio = beside.scatter / best.scatter if best and best.stars else float("nan")
            lines.append(Line(panel.key, inputs, method, score, ratio))
    if panel.key == "b":
        lines += [replace(x, panel="a", inputs=PANELS["a"]) for x in lines if x.method == TREES]
    return lines


def _samples(stars: Benchmark, bundle: Bundle) -> dict[str, NDArray[np.bool_]]:
    """Rows (N,) of each of SAMPLES; none where no star is to be set apart."""
    if not stars.real:
        return {}
    trained_on = bundle.reliability.seen(stars.ids)
    outside = stars.beside.get(OUTSIDE, np.zeros(len(stars))) > 0
    apart = {TRAINED_ON: trained_on, EXTRAPOLATED: outside}
    if not (trained_on | outside).any():
        return {}
    return {ALL: np.ones(len(stars), dtype=bool), CLEAN: ~(trained_on | outside)} | apart


def _apart(
    panel: Panel, vocabulary: Vocabulary, samples: Mapping[str, NDArray[np.bool_]]
) -> list[Line]:
    """The lines of all samples but that of all stars."""
    lines = []
    for sample, rows in samples.items():
        if sample != ALL:
            some = replace(panel, truth=np.where(rows[:, None], panel.truth, np.nan))
            found = _lines(some, vocabulary)
            lines += [replace(line, sample=sample, of_best=float("nan")) for line in found]
    return lines


def _on_the_same(answers: Answers, best: Answers | None) -> Answers:
    """The answers for stars that have a best possible one, NaN for the others."""
    if best is None:
        return answers
    answered = np.isfinite(best.mean).all(axis=1, keepdims=True)
    return replace(answers, mean=np.where(answered, answers.mean, np.nan))


class _Steps:
    """Progress over all parts, PART steps each."""

    def __init__(self, report: Progress | None, effort: Effort, real: bool) -> None:
        self._report, self._done = report, 0
        self.best = bool(effort.best_stars and effort.library) and not real
        asked = [key for key in effort.sets if not INPUT_SETS[key].tells(("teff",))]
        self._total = PART * (len(effort.sets) + len(asked) * (1 + self.best) + self.best + 1)

    def next(self, note: str) -> None:
        """A part is done."""
        self._done += PART
        if self._report is not None:
            self._report(self._done, self._total, note)

    def part(self, name: str) -> Progress | None:
        """What a part reports to."""
        if self._report is None:
            return None
        report = self._report

        def inner(done: int, total: int, note: str) -> None:
            report(self._done + done * (PART - 1) // max(total, 1), self._total, f"{name}: {note}")

        return inner
