"""How far answers are from the truth: the same table for any bundle and any test set."""

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
class InputSet:
    """Which tokens the model is given: a panel of the seed paper's figures 4 and 5.

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
    """Predicted minus true for one label, in its unit.

    ``scatter`` is 1.4826 times the median absolute deviation, ``bias`` the median, ``p16``
    and ``p84`` percentiles. ``z_std`` is the standard deviation of (predicted - true) /
    sigma, ``within_1_sigma`` the share below 1 in absolute value; NaN without sigmas.
    """

    label: str
    stars: int
    scatter: float
    bias: float
    p16: float
    p84: float
    z_std: float
    within_1_sigma: float


def score(label: str, predicted: Floats, true: Floats, sigma: Floats | None = None) -> Score:
    """Score (N,) answers; stars whose truth or answer is NaN do not count."""
    known = np.isfinite(predicted) & np.isfinite(true)
    residual = (predicted - true)[known].astype(np.float64)
    if not len(residual):
        return Score(label, 0, *[float("nan")] * 6)
    p16, bias, p84 = np.percentile(residual, (16, 50, 84))
    scatter = 1.4826 * np.median(np.abs(residual - bias))
    z = np.full(1, np.nan) if sigma is None else residual / sigma[known]
    within = float("nan") if sigma is None else float(np.mean(np.abs(z) < 1))
    return Score(
        label, len(residual), float(scatter), float(bias), float(p16), float(p84),
        float(np.std(z)), within,
    )  # fmt: skip


def evaluate(
    predictor: Predictor,
    inputs: Floats,
    truth: Floats,
    labels: Sequence[str] = ATMOSPHERE_AND_AGE,
    sets: Sequence[str] = ("b",),
) -> dict[str, list[Score]]:
    """Scores by input set.

    ``inputs`` and ``truth`` are dense tokens (N, V); labels that a set gives away are taken
    from the truth.
    """
    vocabulary = predictor.bundle.vocabulary
    known = np.where(np.isnan(inputs), truth, inputs)
    scores = {}
    for name in sets:
        chosen = INPUT_SETS[name]
        given = chosen.select(known if set(chosen.others) & set(labels) else inputs, vocabulary)
        answer = predictor.predict(given, labels)
        scores[name] = [
            score(label, answer.mean[:, k], truth[:, vocabulary.column(label)], answer.sigma[:, k])
            for k, label in enumerate(labels)
        ]
    return scores


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
