"""Two questions about each star: some labels are predicted without some of its tokens.

A label that is compared with a measurement must not depend on it: it is independent, and
predicted without the tokens that are made of that measurement. A star that has none of these
tokens is asked once. A network in which they are late tokens (see
:class:`~catalogproc.network.transformer.Shape`) answers both questions from one encoding of a star,
because a late token changes no other in the encoder: hiding it from the decoder is enough. Other
networks encode such a star twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from catalogproc.network.batch_function import BatchFunction
from catalogproc.network.error_propagation import Jacobian, differentiate
from catalogproc.network.mixture import Mixture
from catalogproc.network.packed_tokens import PackedTokens
from catalogproc.network.predictor import Prediction, Predictor
from catalogproc.network.star_tokens import StarTokens
from catalogproc.network.transformer import summary

Mask = NDArray[np.bool_]
Rows = NDArray[np.integer]
Labels = tuple[str, ...]
Part = tuple[Rows, Prediction]
"""Rows of a table and their predictions."""


@dataclass(frozen=True, eq=False)
class Questions:
    """A predictor of which some labels do not depend on some tokens of N stars.

    Attributes
    ----------
    predictor
        The model.
    hidden
        Tokens (N, V) that independent labels are predicted without.
    independent
        Names of these labels.
    """

    predictor: Predictor
    hidden: Mask
    independent: Labels

    def predict(self, tokens: StarTokens, labels: Sequence[str]) -> Prediction:
        """Predict labels, the independent ones among them without the hidden tokens.

        Parameters
        ----------
        tokens
            Of the N stars, or of the N stars several times, one after another.
        labels
            Names of the K tokens to predict.
        """
        return self.ask(tokens, labels)[0]

    def ask(
        self, tokens: StarTokens, labels: Sequence[str], context: Sequence[str] = ()
    ) -> tuple[Prediction, Prediction]:
        """Predict labels, and with the independent ones a context.

        Parameters
        ----------
        tokens, labels
            As for :meth:`predict`.
        context
            Others of the labels, which are predicted with all tokens and without the hidden ones.

        Returns
        -------
        The labels as :meth:`predict` returns them, and those of the context without the hidden
        tokens. The positions in the latent space are those with all tokens, if any label is
        predicted from all.
        """
        given, apart = self._divided(labels)
        second, hidden = (*apart, *context), self._hidden(tokens)
        if not (second and hidden.any()):
            every, found = np.arange(len(tokens)), self.predictor.predict(tokens, labels)
            return found, merged(len(tokens), context, [(every, found)])
        late = np.zeros(hidden.shape[1], dtype=bool)
        late[np.array(self.predictor.bundle.shape.late, dtype=np.int64) - 1] = True
        if np.array_equal(hidden, tokens.present & late):
            parts = self._one_encoding(tokens, given, second)
        else:
            parts = self._two_encodings(tokens, hidden, given, second)
        return merged(len(tokens), labels, parts), merged(len(tokens), context, parts[::-1])

    def _two_encodings(
        self, tokens: StarTokens, hidden: Mask, given: Labels, second: Labels
    ) -> list[Part]:
        """Return the predictions with all tokens, and then those without the hidden ones."""
        once, rows = (np.flatnonzero(which) for which in (~hidden.any(1), hidden.any(1)))
        ask, shown = self.predictor.predict, tokens.rows(rows)
        every = tuple(dict.fromkeys((*given, *second)))
        parts = [(once, ask(tokens.rows(once), every))]
        parts += [(rows, ask(shown, given))] if given else []
        return [*parts, (rows, ask(shown.only(~hidden[rows]), second))]

    def _one_encoding(self, tokens: StarTokens, given: Labels, second: Labels) -> list[Part]:
        """Return what :meth:`_two_encodings` does, where the hidden tokens are the late ones."""
        predictor, count = self.predictor, len(given)
        network, requests = predictor.forward, predictor.requests((*given, *second))
        apart = torch.arange(len(requests), device=requests.device) >= count

        def forward(packed: PackedTokens) -> tuple[Tensor, ...]:
            memory, present = network.encode(packed)
            early = predictor.network.attended(packed)
            shown = torch.where(apart[:, None], early[:, None], present[:, None])  # (n, K, T)
            found = network.decode_components(memory, shown, requests)
            return *predictor.outputs(found), predictor.latent(summary(memory, present), packed.ids)

        shapes = predictor.prediction_shapes(len(requests))
        function = BatchFunction(("ask", given, second), forward, shapes, len(requests))
        *outputs, latent = predictor.map_batches(tokens, function)
        every = np.arange(len(tokens))
        return [
            (every, predictor.prediction(names, *(part[:, which] for part in outputs), latent))
            for names, which in ((given, slice(count)), (second, slice(count, None)))
            if names
        ]

    def differentiate(
        self, tokens: StarTokens, labels: Sequence[str]
    ) -> tuple[Prediction, Jacobian]:
        """Predict labels, with the derivatives with respect to the tokens.

        An independent label has no derivative with respect to a hidden token.

        Parameters
        ----------
        tokens, labels
            As for :meth:`predict`.
        """
        (given, apart), hidden = self._divided(labels), self._hidden(tokens)
        if not (apart and hidden.any()):
            return differentiate(self.predictor, tokens, labels)
        once, rows = (np.flatnonzero(which) for which in (~hidden.any(1), hidden.any(1)))
        shown = tokens.rows(rows)
        asked = [(once, tokens.rows(once), tuple(labels))]
        asked += [(rows, shown, given)] if given else []
        asked += [(rows, shown.only(~hidden[rows]), apart)]
        parts, derivatives = [], []
        for which, some, names in asked:
            prediction, jacobian = differentiate(self.predictor, some, names)
            parts.append((which, prediction))
            derivatives.append((which, jacobian))
        return merged(len(tokens), labels, parts), _merged_jacobian(
            len(tokens), labels, derivatives
        )

    def without_hidden(
        self, tokens: StarTokens, found: Prediction, labels: Sequence[str]
    ) -> Prediction:
        """Return labels predicted without the hidden tokens.

        Parameters
        ----------
        tokens
            As for :meth:`predict`.
        found
            Predictions of the labels with all tokens, which are those of stars that have no
            hidden ones.
        labels
            Names of labels.
        """
        hidden, every = self._hidden(tokens), np.arange(len(tokens))
        rows = np.flatnonzero(hidden.any(axis=1))
        parts = [(every, found)]
        if len(rows) and labels:
            shown = tokens.rows(rows).only(~hidden[rows])
            parts.insert(0, (rows, self.predictor.predict(shown, labels)))
        return merged(len(tokens), labels, parts)

    def _divided(self, labels: Sequence[str]) -> tuple[Labels, Labels]:
        """Return the labels that are predicted from all tokens, and the independent ones."""
        given = tuple(label for label in labels if label not in self.independent)
        return given, tuple(label for label in labels if label in self.independent)

    def _hidden(self, tokens: StarTokens) -> Mask:
        """Return the hidden tokens that the stars have."""
        repeats = len(tokens) // max(1, len(self.hidden))
        return tokens.present & np.tile(self.hidden, (repeats, 1))


def merged(size: int, labels: Sequence[str], parts: Sequence[Part]) -> Prediction:
    """Return predictions put together from those of some rows and labels.

    Parameters
    ----------
    size
        N, the number of stars.
    labels
        Names of the K labels of the result; each is predicted for every row by one of the parts.
    parts
        Rows and their predictions; of two with the same row and label the first counts.
    """
    mean, sigma = np.full((2, size, len(labels)), np.nan, dtype=np.float32)
    distance = np.full(size, np.nan, dtype=np.float32)
    closeness = None
    mixtures: dict[str, Mixture] = {}
    for rows, part in reversed(parts):
        for place, label in enumerate(labels):
            if label in part.labels:
                of = part.labels.index(label)
                mean[rows, place], sigma[rows, place] = part.mean[:, of], part.sigma[:, of]
        if part.distance is not None:
            distance[rows] = part.distance
        if part.closeness is not None:
            if closeness is None:
                closeness = np.full((size, part.closeness.shape[1]), np.nan, dtype=np.float32)
            closeness[rows] = part.closeness
        for label in part.mixtures.keys() & set(labels):
            mixtures[label] = _filled(size, rows, part.mixtures[label], mixtures.get(label))
    return Prediction(tuple(labels), mean, sigma, distance, mixtures, closeness)


def _filled(size: int, rows: Rows, part: Mixture, others: Mixture | None) -> Mixture:
    arrays = {}
    for name, values in vars(part).items():
        whole = np.full((size, values.shape[1]), np.nan) if others is None else vars(others)[name]
        whole[rows] = values
        arrays[name] = whole
    return Mixture(**arrays)


def _merged_jacobian(
    size: int, labels: Sequence[str], parts: Sequence[tuple[Rows, Jacobian]]
) -> Jacobian:
    """Return derivatives put together as :func:`merged` does with predictions."""
    first = parts[0][1]
    values = np.zeros((size, len(labels), first.values.shape[2]), dtype=np.float32)
    for rows, part in parts:
        for of, label in enumerate(part.labels):
            values[rows, labels.index(label)] = part.values[:, of]
    return Jacobian(tuple(labels), values, first.scale, first.units)
