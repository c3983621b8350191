"""Any tokens in, any labels out, fast, and the same whatever else is in the batch.

Where the time goes is the arithmetic (SCIENCE.md 4.3), so speed comes from what is left
out: absent tokens are not computed, stars with as many tokens share a batch without
padding, all labels of a star are answered from one encoding of it, and what depends on
a label alone is computed once a batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from catalogproc.errors import BundleError, ContractError, JobError
from catalogproc.network.bundle import Bundle
from catalogproc.network.cpu_kernels import use_onednn
from catalogproc.network.jacobian import Reverse
from catalogproc.network.memory import keep_freed_memory
from catalogproc.network.transformer import PADDING, Transformer, summary

# Rows standardised, packed and sorted at a time: bounds memory, whatever the table's length.
SLICE = 16_384
# At most so many tokens, and so many answers, in one pass through the network: on a CPU
# what keeps the activations in its caches, on a GPU what fills it.
BUDGET = {"cpu": (4_096, 1_024), "cuda": (262_144, 65_536)}
PRECISIONS = {"float32": torch.float32}

Floats = NDArray[np.float32]
Ask = Callable[[NDArray[np.int64], Tensor, Tensor], tuple[Tensor, ...]]
"""What is made of n stars in one pass: from their rows in the table, their token numbers and
standardised values (n, T), tensors of n rows each."""


@dataclass(frozen=True)
class Prediction:
    """Answers for N stars and K labels, in the tokens' units.

    ``mean`` and ``sigma`` are float32 (N, K). ``sigma`` is one standard deviation of the
    Gaussian that the network states. Both are NaN for a star with an infinite input.
    ``distance`` (N,) is how far the star lies from the training stars as the network sees
    them (see :class:`~catalogproc.network.uncertainty_calibration.Latent`), NaN where the
    bundle does not know them.
    """

    labels: tuple[str, ...]
    mean: NDArray[np.float32]
    sigma: NDArray[np.float32]
    distance: NDArray[np.float32] | None = None


class Predictor:
    """A bundle on a device, ready to answer; safe to share between threads.

    The answer for a star does not depend on the other stars, on their order or on the
    batches, except for the rounding of float32: less than 2e-5 of the label's scale in
    the standardisation, and that of the answer itself.
    """

    def __init__(self, bundle: Bundle, device: str = "cpu", precision: str = "float32") -> None:
        if precision not in PRECISIONS:
            raise JobError("unknown precision", wanted=" | ".join(PRECISIONS), found=precision)
        self.bundle = bundle
        self.device = torch.device(device)
        self.dtype = PRECISIONS[precision]
        self.network: Transformer = bundle.network(device).to(self.dtype)
        if self.device.type == "cpu":
            keep_freed_memory()
            use_onednn(self.network)
        latent = bundle.reliability.latent
        self._latent: list[Tensor] = [
            torch.tensor(x, dtype=self.dtype, device=self.device)
            for x in ((latent.mean, latent.shifts, latent.factor) if latent else ())
        ]

    @cached_property
    def reverse(self) -> Reverse:
        """The way back through the network, for derivatives of its answers."""
        return Reverse(self.network, half=self.device.type == "cuda")

    def predict(self, values: NDArray[np.floating], labels: Sequence[str]) -> Prediction:
        """Answer ``labels`` for each star.

        ``values`` (N, V) holds tokens in their physical units, in the vocabulary's order;
        NaN where a token is absent. A star without any token gets the model's prior.

        Raises
        ------
        ContractError
            A label or a number of columns that the vocabulary does not have.
        BundleError
            A label that the model was not trained to answer.
        """
        requests = self.requests(labels)

        def ask(_: NDArray[np.int64], ids: Tensor, x: Tensor) -> tuple[Tensor, ...]:
            memory, present = self.network.encode(ids, x)
            mean, log_variance = self.network.decode(memory, present, requests)
            return mean, log_variance, self.distance(summary(memory, present), ids)

        count = len(requests)
        return self.prediction(labels, *self.gather(values, ((count,), (count,), ()), ask, count))

    def summaries(self, values: NDArray[np.floating]) -> NDArray[np.float32]:
        """What the encoder makes of each star (N, D): its output's mean over the tokens."""

        def ask(_: NDArray[np.int64], ids: Tensor, x: Tensor) -> tuple[Tensor, ...]:
            return (summary(*self.network.encode(ids, x)),)

        return self.gather(values, ((self.bundle.shape.width,),), ask)[0]

    def prediction(
        self, labels: Sequence[str], mean: Floats, log_variance: Floats, distance: Floats
    ) -> Prediction:
        """Standardised answers (N, K), float32, in the labels' own units."""
        columns = self.bundle.vocabulary.columns(labels)
        scale = self.bundle.standardisation.scale[columns]
        center = self.bundle.standardisation.center[columns]
        sigma = np.exp(0.5 * log_variance.astype(np.float64)) * scale
        return Prediction(
            tuple(labels),
            (mean * scale + center).astype(np.float32),
            sigma.astype(np.float32),
            distance,
        )

    def distance(self, summaries: Tensor, ids: Tensor) -> Tensor:
        """How far encoded stars (n, D) lie from the training stars (n,); NaN if not known.

        ``ids`` (n, T) are the numbers of the tokens that they have.
        """
        if not self._latent:
            return torch.full_like(summaries[:, 0], torch.nan)
        mean, shifts, factor = self._latent
        present = summaries.new_zeros(len(ids), len(shifts) + 1).scatter_(1, ids, 1.0)[:, 1:]
        off = summaries - mean - present @ shifts
        distance: Tensor = torch.linalg.vector_norm(off @ factor.T, dim=1)
        return distance

    def requests(self, labels: Sequence[str]) -> Tensor:
        """The numbers (K,) of labels, on the device. Raises as :meth:`predict` does."""
        return torch.from_numpy(self._columns(labels) + 1).to(self.device)

    @torch.inference_mode()
    def gather(
        self,
        values: NDArray[np.floating],
        shapes: Sequence[tuple[int, ...]],
        ask: Ask,
        requests: int = 1,
        load: int = 1,
    ) -> list[Floats]:
        """Standardise and pack stars, pass them through the network, gather what comes out.

        Parameters
        ----------
        values
            (N, V), as :meth:`predict` has them.
        shapes
            Of one star's share of each tensor that ``ask`` returns.
        requests, load
            How many answers a star is asked for, and how many times as large it is as in
            plain inference: both bound how many stars make a pass.

        Returns
        -------
        One float32 array (N, *shape) for each shape, in the order of the stars.
        """
        if values.ndim != 2 or values.shape[1] != len(self.bundle.vocabulary):
            raise ContractError(
                "values must have one column a token",
                wanted=f"(N, {len(self.bundle.vocabulary)})",
                found=values.shape,
            )
        standardisation = self.bundle.standardisation
        results = [np.empty((len(values), *shape), dtype=np.float32) for shape in shapes]
        for start in range(0, len(values), SLICE):
            piece = values[start : start + SLICE]
            # An infinity is the caller's fault; it must make its own star NaN and nothing else.
            with np.errstate(over="ignore", invalid="ignore"):
                z = (piece - standardisation.center) / standardisation.scale
                ids, x = pack(z)
            counts = np.count_nonzero(ids != PADDING, axis=1)
            order = np.argsort(-counts, kind="stable")
            kept = [
                torch.empty((len(piece), *shape), dtype=torch.float32, device=self.device)
                for shape in shapes
            ]
            for batch in self._batches(counts[order] * load, requests * load):
                rows = order[batch]
                width = max(1, counts[rows[0]])
                answers = ask(
                    rows + start,
                    torch.from_numpy(ids[rows, :width]).to(self.device),
                    torch.from_numpy(x[rows, :width]).to(self.device, self.dtype),
                )
                for whole, part in zip(kept, answers, strict=True):
                    whole[rows] = part.float()
            for result, whole in zip(results, kept, strict=True):
                result[start : start + SLICE] = whole.cpu().numpy()
        return results

    def self_check(self) -> None:
        """Raise BundleError if a stored question does not get its stored answer here."""
        check = self.bundle.self_check
        answer = self.predict(check.values, check.labels)
        error = np.abs(answer.mean - check.mean) / check.sigma
        error = np.fmax(error, np.abs(answer.sigma / check.sigma - 1))
        if not (error <= check.tolerance).all():  # also where it is NaN
            star, label = np.unravel_index(np.argmax(np.nan_to_num(error, nan=np.inf)), error.shape)
            raise BundleError(
                "the model does not give its stored answers on this device",
                wanted=f"{check.labels[label]} = {check.mean[star, label]:.6g}"
                f" ± {check.sigma[star, label]:.3g}, within {check.tolerance:g} of the latter",
                found=f"{answer.mean[star, label]:.6g} ± {answer.sigma[star, label]:.3g}",
                where=f"{self.bundle.path}, check {star}, on {self.device}",
            )

    def _columns(self, labels: Sequence[str]) -> NDArray[np.int64]:
        columns = self.bundle.vocabulary.columns(labels)
        untrained = sorted(set(labels) - set(self.bundle.requestable))
        if untrained:
            raise BundleError(
                "the model was not trained to answer this",
                wanted=", ".join(self.bundle.requestable),
                found=", ".join(untrained),
                where=self.bundle.path,
            )
        return columns

    def _batches(self, counts: NDArray[np.int64], requests: int) -> Iterator[slice]:
        """Slices of stars that are sorted by falling number of tokens."""
        tokens, answers = BUDGET.get(self.device.type, BUDGET["cuda"])
        start = 0
        while start < len(counts):
            size = min(tokens // max(1, int(counts[start])), answers // max(1, requests))
            yield slice(start, start + max(1, size))
            start += max(1, size)


def pack(values: NDArray[np.floating]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Leave out what is absent: dense (N, V) to token numbers and values, both (N, T).

    NaN is absent. Tokens keep their order; T is the largest number of tokens of a star,
    at least 1; the rest of a shorter row is padding, number 0 and value 0.
    """
    present = ~np.isnan(values)
    counts = np.count_nonzero(present, axis=1)
    width = max(1, int(counts.max(initial=0)))
    filled = np.arange(width) < counts[:, None]  # (N, T), as many a row as present (N, V) has
    numbers = np.broadcast_to(np.arange(1, values.shape[1] + 1), values.shape)
    ids = np.full(filled.shape, PADDING, dtype=np.int64)
    x = np.zeros(filled.shape, dtype=np.float32)
    ids[filled] = numbers[present]
    x[filled] = values[present]
    return ids, x
