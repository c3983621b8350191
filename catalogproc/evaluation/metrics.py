"""Scores of predictions against true labels: the same numbers for any method and any stars."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from catalogproc.evaluation.quantities import QUANTITIES, label_of, labels_of
from catalogproc.evaluation.scores import DecileScore, Score, by_decile, score
from catalogproc.network.predictor import Predictor
from catalogproc.network.star_tokens import StarTokens
from catalogproc.vocabulary import Vocabulary

Floats = NDArray[np.floating]

ATMOSPHERE_AND_AGE = ("teff", "logg", "m_h", "mass", "log_age")


@dataclass(frozen=True)
class InputSet:
    """The tokens that a model is given: a panel of figures 4 and 5 of Zhang, Bu et al. (2026).

    Attributes
    ----------
    first, end
        Range of the coefficients of each band.
    others
        Names of the other tokens.
    n_random
        Number of tokens drawn at random for each star; 0 takes all.
    """

    name: str
    first: int
    end: int
    others: tuple[str, ...]
    n_random: int = 0

    def select(self, values: Floats, vocabulary: Vocabulary, seed: int = 0) -> Floats:
        """Return a copy of the tokens in which all that are not in this set are absent.

        Parameters
        ----------
        values
            Dense tokens (N, V).
        vocabulary
            Of the tokens' columns.
        seed
            Random seed of ``n_random``.
        """
        names = [
            token.name
            for token in vocabulary.tokens
            if token.kind == "coefficient" and self.first <= token.index < self.end
        ]
        selected = np.full_like(values, np.nan)
        columns = vocabulary.columns([*names, *(o for o in self.others if o in vocabulary)])
        selected[:, columns] = values[:, columns]
        if self.n_random:
            order = np.random.default_rng(seed).random(selected.shape)
            order[:, columns] -= 1.0  # tokens of the set come before all others
            left_out = np.argsort(order, axis=1)[:, self.n_random :]
            np.put_along_axis(selected, left_out, np.nan, axis=1)
        return selected

    def includes(self, labels: Sequence[str]) -> bool:
        """Return whether any of the labels is among the inputs.

        Parameters
        ----------
        labels
            Names of tokens.
        """
        return bool(set(self.others) & set(labels))


_COLOURS = ("bprp", "jh", "jk")

INPUT_SETS = {
    "b": InputSet("63 tokens: 30 + 30 coefficients, 3 colours", 0, 30, _COLOURS),
    "c": InputSet("13 tokens: 5 + 5 coefficients, 3 colours", 0, 5, _COLOURS),
    "d": InputSet("64 random tokens of 113", 0, 10_000, _COLOURS, n_random=64),
    "e": InputSet("noisy tokens: coefficients from 25 on", 25, 10_000, ()),
    "f": InputSet("noisy tokens and the truth", 25, 10_000, ATMOSPHERE_AND_AGE),
}
"""Zhang, Bu et al. 2026, figures 4 and 5; panel a is XGBoost on the inputs of b."""


@dataclass(frozen=True, eq=False)
class Predictions:
    """Predicted tokens (N, K) of any method, and their sigmas where it gives them."""

    labels: tuple[str, ...]
    mean: Floats
    sigma: Floats | None = None

    def scores(
        self, truth: StarTokens, vocabulary: Vocabulary, names: Sequence[str]
    ) -> list[Score]:
        """Return one score a label or quantity.

        A label that was not predicted, or is not known of any star, has a score of 0 stars.

        Parameters
        ----------
        truth
            True tokens of N stars with their errors, NaN where unknown.
        vocabulary
            Of the tokens' columns.
        names
            Labels or keys of QUANTITIES.
        """
        found = []
        for name in names:
            label = label_of(name)
            if label not in self.labels or label not in vocabulary:
                found.append(Score(name, 0))
                continue
            k, column = self.labels.index(label), vocabulary.column(label)
            sigma = None if self.sigma is None else self.sigma[:, k]
            true, error = truth.values[:, column], truth.errors[:, column]
            found.append(score(name, self.mean[:, k], true, sigma, error))
        return found

    def deciles(
        self, truth: StarTokens, vocabulary: Vocabulary, names: Sequence[str]
    ) -> dict[str, tuple[DecileScore, ...]]:
        """Return the scores in ten ranges of the true value, by label or quantity.

        Parameters
        ----------
        truth, vocabulary, names
            As for :meth:`scores`.
        """
        found = {}
        for name in names:
            label = label_of(name)
            if label not in self.labels or label not in vocabulary:
                continue
            k, column = self.labels.index(label), vocabulary.column(label)
            sigma = None if self.sigma is None else self.sigma[:, k]
            true, error = truth.values[:, column], truth.errors[:, column]
            found[name] = by_decile(name, self.mean[:, k], true, sigma, error)
        return found

    def rows(self, which: slice) -> Predictions:
        """Return the predictions of some of the stars.

        Parameters
        ----------
        which
            Rows.
        """
        sigma = None if self.sigma is None else self.sigma[which]
        return Predictions(self.labels, self.mean[which], sigma)


def resolve_device(device: str) -> str:
    """Return the name of a device; "auto" is a GPU where there is one.

    Parameters
    ----------
    device
        "auto", or the name of a torch device.
    """
    import torch

    if device != "auto":
        return device
    return "cuda" if torch.cuda.is_available() else "cpu"


def predict(predictor: Predictor, inputs: StarTokens, names: Sequence[str]) -> Predictions:
    """Return a model's predictions of labels or quantities.

    Parameters
    ----------
    predictor
        The model.
    inputs
        Tokens of N stars.
    names
        Labels or keys of QUANTITIES.
    """
    predicted = predictor.predict(inputs, labels_of(names))
    return Predictions(predicted.labels, predicted.mean, predicted.sigma)


def evaluate_input_sets(
    predictor: Predictor,
    inputs: StarTokens,
    truth: StarTokens,
    labels: Sequence[str] = ATMOSPHERE_AND_AGE,
    sets: Sequence[str] = ("b",),
) -> dict[str, list[Score]]:
    """Return a model's scores by input set.

    Parameters
    ----------
    predictor
        The model.
    inputs, truth
        Tokens of N stars, observed and true; labels among an input set come from the truth.
    labels
        Labels or keys of QUANTITIES.
    sets
        Keys of INPUT_SETS.
    """
    vocabulary = predictor.bundle.vocabulary
    return {
        name: predict(predictor, select_inputs(name, inputs, truth, vocabulary), labels).scores(
            truth, vocabulary, labels
        )
        for name in sets
    }


def select_inputs(
    name: str, inputs: StarTokens, truth: StarTokens, vocabulary: Vocabulary
) -> StarTokens:
    """Return the tokens of an input set; labels among them come from the truth.

    Parameters
    ----------
    name
        Key of INPUT_SETS.
    inputs, truth
        Tokens of N stars, observed and true.
    vocabulary
        Of the tokens' columns.
    """
    chosen = INPUT_SETS[name]
    known = inputs
    if chosen.includes(vocabulary.named("label")):
        known = inputs.filled_from(truth)
    return StarTokens(chosen.select(known.values, vocabulary), known.errors)


def markdown(scores: dict[str, list[Score]]) -> str:
    """Return scores in Markdown: a small table a quantity, one row an input set.

    Parameters
    ----------
    scores
        By key of INPUT_SETS, as :func:`evaluate_input_sets` returns them.
    """
    lines = []
    for number, first in enumerate(next(iter(scores.values()))):
        spread = f"{first.spread:.3g} {QUANTITIES[first.label].unit}"
        lines += [
            f"### {_heading(first.label)}: true values spread by {spread}",
            "",
            "| inputs | scatter | R2 | slope | slope of truth | bias | 16 % | 84 % | z's sd "
            "| within 1 σ |",
            "|---|---|---|---|---|---|---|---|---|---|",
        ]
        for name, rows in scores.items():
            row = rows[number]
            numbers = (
                row.scatter, row.r2, row.slope, row.slope_of_truth, row.bias, row.p16, row.p84,
                row.z_std, row.within_1_sigma,
            )  # fmt: skip
            cells = " | ".join(f"{number:.3g}" for number in numbers)
            lines.append(f"| {INPUT_SETS[name].name} | {cells} |")
        lines.append("")
    return "\n".join(lines).rstrip()


def _heading(name: str) -> str:
    return f"{QUANTITIES[name].text} [{QUANTITIES[name].unit}]"


def decile_markdown(deciles: Mapping[str, tuple[DecileScore, ...]]) -> str:
    """Return bias, scatter and coverage along the true values: a small table a quantity.

    Parameters
    ----------
    deciles
        By quantity, as :meth:`Predictions.deciles` returns them.
    """
    lines = []
    for name, rows in deciles.items():
        lines += [f"### {_heading(name)}, by true value", ""]
        lines.append("| true value | stars | bias | scatter | within 1 σ |")
        lines.append("|---|---|---|---|---|")
        for row in rows:
            cells = " | ".join(f"{x:.3g}" for x in (row.bias, row.scatter, row.within_1_sigma))
            lines.append(f"| {row.low:.4g} to {row.high:.4g} | {row.stars:,} | {cells} |")
        lines.append("")
    return "\n".join(lines).rstrip()
