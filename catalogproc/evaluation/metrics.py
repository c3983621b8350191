"""How far answers are from the truth: the same numbers for any answers and any stars."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from catalogproc.network.predictor import Predictor
from catalogproc.vocabulary import Vocabulary

Floats = NDArray[np.floating]

ATMOSPHERE_AND_AGE = ("teff", "logg", "m_h", "mass", "log_age")


@dataclass(frozen=True)
class Quantity:
    """What is judged: a label of the vocabulary, or what follows from one.

    ``relative`` differences are in per cent of the truth. ``text`` is its name for people.
    """

    name: str
    token: str
    unit: str
    text: str
    relative: bool = False

    def of(self, token: Floats) -> Floats:
        """The quantity (N,) from the token (N,), NaN where it has none."""
        value = np.asarray(token, dtype=np.float64)
        with np.errstate(over="ignore", divide="ignore"):
            if self.name == "age":
                return np.asarray(10.0 ** (value - 9.0))
            if self.name == "ebv":
                return np.exp(value)
            if self.name == "dist":
                # Up to 10^(0.2 G), which the star brings along and which cancels.
                return np.where(value > 0, 1.0 / value, np.nan)
        return value

    def residual(self, predicted: Floats, true: Floats) -> Floats:
        """Predicted minus true (N,), in ``unit``, from tokens (N,)."""
        one, other = self.of(predicted), self.of(true)
        return 100.0 * (one / other - 1.0) if self.relative else one - other


QUANTITIES = {
    item.name: item
    for item in (
        Quantity("teff", "teff", "K", "Teff"),
        Quantity("logg", "logg", "dex", "log g"),
        Quantity("m_h", "m_h", "dex", "[M/H]"),
        Quantity("mass", "mass", "Msun", "mass"),
        Quantity("age", "log_age", "Gyr", "age"),
        Quantity("log_age", "log_age", "dex", "log age"),
        Quantity("ebv", "logebv", "mag", "E(B-V)"),
        Quantity("dist", "g_fakemag", "%", "distance", relative=True),
    )
}


@dataclass(frozen=True)
class InputSet:
    """Which tokens are given: a panel of the seed paper's figures 4 and 5.

    ``first`` and ``end`` bound the coefficients a band; ``others`` are the other tokens.
    ``draw``, where it is not 0, keeps as many tokens, drawn anew for each star.
    """

    name: str
    first: int
    end: int
    others: tuple[str, ...]
    draw: int = 0

    def select(self, values: Floats, vocabulary: Vocabulary, seed: int = 0) -> Floats:
        """A copy of dense tokens (N, V) with all that is not in this set made absent."""
        names = [
            token.name
            for token in vocabulary.tokens
            if token.kind == "coefficient" and self.first <= token.index < self.end
        ]
        given = np.full_like(values, np.nan)
        columns = vocabulary.columns([*names, *(o for o in self.others if o in vocabulary)])
        given[:, columns] = values[:, columns]
        if self.draw:
            order = np.random.default_rng(seed).random(given.shape)
            order[:, columns] -= 1.0  # tokens of the set come before all others
            left_out = np.argsort(order, axis=1)[:, self.draw :]
            np.put_along_axis(given, left_out, np.nan, axis=1)
        return given

    def tells(self, labels: Sequence[str]) -> bool:
        """Whether some of the labels are among what is given."""
        return bool(set(self.others) & set(labels))


_COLOURS = ("bprp", "jh", "jk")

INPUT_SETS = {
    "b": InputSet("63 tokens: 30 + 30 coefficients, 3 colours", 0, 30, _COLOURS),
    "c": InputSet("13 tokens: 5 + 5 coefficients, 3 colours", 0, 5, _COLOURS),
    "d": InputSet("64 random tokens of 113", 0, 10_000, _COLOURS, draw=64),
    "e": InputSet("noisy tokens: coefficients from 25 on", 25, 10_000, ()),
    "f": InputSet("noisy tokens and the truth", 25, 10_000, ATMOSPHERE_AND_AGE),
}
"""Zhang, Bu et al. 2026, figures 4 and 5; panel a is XGBoost on the inputs of b."""


@dataclass(frozen=True)
class Score:
    """Predicted minus true for one quantity, in its unit.

    ``scatter`` is 1.4826 times the median absolute deviation, ``bias`` the median, ``p16``
    and ``p84`` percentiles, ``rms`` the root of the mean square. ``z_std`` is the standard
    deviation of (predicted - true) / sigma, ``within_1_sigma`` and ``within_2_sigma`` the
    shares of stars below 1 and 2 in absolute value; NaN without sigmas.
    """

    label: str
    stars: int
    scatter: float
    bias: float
    p16: float
    p84: float
    rms: float
    z_std: float
    within_1_sigma: float
    within_2_sigma: float


def score(label: str, predicted: Floats, true: Floats, sigma: Floats | None = None) -> Score:
    """Score (N,) answers for a label or quantity, given as tokens with their sigma.

    Stars whose truth or answer is NaN do not count.
    """
    quantity = QUANTITIES.get(label, Quantity(label, label, "", label))
    residual = quantity.residual(predicted, true)
    known = np.isfinite(residual)
    if not known.any():
        return Score(label, 0, *[float("nan")] * 8)
    p16, bias, p84 = np.percentile(residual[known], (16, 50, 84))
    scatter = 1.4826 * np.median(np.abs(residual[known] - bias))
    z = np.full(1, np.nan)
    if sigma is not None:
        # Of the token, in which the model's answer is a Gaussian.
        z = ((predicted - true) / sigma)[known].astype(np.float64)
    shares = [np.nan if sigma is None else float(np.mean(np.abs(z) < limit)) for limit in (1, 2)]
    return Score(
        label, int(known.sum()), float(scatter), float(bias), float(p16), float(p84),
        float(np.sqrt(np.mean(residual[known] ** 2))), float(np.std(z)), *shares,
    )  # fmt: skip


@dataclass(frozen=True, eq=False)
class Answers:
    """Anybody's answers: tokens (N, K) and, if they are known, their sigmas."""

    labels: tuple[str, ...]
    mean: Floats
    sigma: Floats | None = None

    def scores(self, truth: Floats, vocabulary: Vocabulary, names: Sequence[str]) -> list[Score]:
        """Scores of labels or quantities against dense tokens (N, V).

        What was not answered, or is not known of any star, gets a score of no stars.
        """
        made = []
        for name in names:
            token = token_of(name)
            true = truth[:, vocabulary.column(token)]
            if token not in self.labels:
                made.append(score(name, np.full(len(true), np.nan), true))
                continue
            k = self.labels.index(token)
            sigma = None if self.sigma is None else self.sigma[:, k]
            made.append(score(name, self.mean[:, k], true, sigma))
        return made

    def rows(self, which: slice) -> Answers:
        """Those for some of the stars."""
        sigma = None if self.sigma is None else self.sigma[which]
        return Answers(self.labels, self.mean[which], sigma)


def token_of(name: str) -> str:
    """The label that a quantity follows from; a label's own name."""
    return QUANTITIES[name].token if name in QUANTITIES else name


def tokens_of(names: Sequence[str]) -> tuple[str, ...]:
    """The labels that quantities follow from, each once."""
    return tuple(dict.fromkeys(token_of(name) for name in names))


def available(device: str) -> str:
    """What "auto" stands for here: a GPU where there is one; any other name is itself."""
    import torch

    if device != "auto":
        return device
    return "cuda" if torch.cuda.is_available() else "cpu"


def ask(predictor: Predictor, given: Floats, names: Sequence[str]) -> Answers:
    """A model's answers for labels or quantities, from dense tokens (N, V)."""
    answer = predictor.predict(given, tokens_of(names))
    return Answers(answer.labels, answer.mean, answer.sigma)


def evaluate(
    predictor: Predictor,
    inputs: Floats,
    truth: Floats,
    labels: Sequence[str] = ATMOSPHERE_AND_AGE,
    sets: Sequence[str] = ("b",),
) -> dict[str, list[Score]]:
    """A model's scores by input set.

    ``inputs`` and ``truth`` are dense tokens (N, V); ``labels`` are tokens or names of
    QUANTITIES; labels that a set gives away are taken from the truth.
    """
    vocabulary = predictor.bundle.vocabulary
    return {
        name: ask(predictor, given_by(name, inputs, truth, vocabulary), labels).scores(
            truth, vocabulary, labels
        )
        for name in sets
    }


def given_by(name: str, inputs: Floats, truth: Floats, vocabulary: Vocabulary) -> Floats:
    """What an input set gives of stars (N, V); the labels in it come from the truth."""
    chosen = INPUT_SETS[name]
    known = inputs
    if chosen.tells(vocabulary.named("label")):
        known = np.where(np.isnan(inputs), truth, inputs)
    return chosen.select(known, vocabulary)


def markdown(scores: dict[str, list[Score]]) -> str:
    """The scores as a Markdown table, a row a label and input set."""
    lines = [
        "| inputs | label | scatter | bias | 16 % | 84 % | z's sd | within 1 σ |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, rows in scores.items():
        for row in rows:
            numbers = (row.scatter, row.bias, row.p16, row.p84, row.z_std, row.within_1_sigma)
            cells = " | ".join(f"{number:.3g}" for number in numbers)
            lines.append(f"| {INPUT_SETS[name].name} | {row.label} | {cells} |")
    return "\n".join(lines)
