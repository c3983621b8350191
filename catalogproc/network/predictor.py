"""Prediction of any labels from any tokens, independent of what else is in the batch.

The time goes into arithmetic, so speed comes from what is left out: absent tokens are not
computed, stars with equally many tokens share a batch without padding, all labels of a
star are predicted from one encoding of it, and what depends on a label alone is computed
once per batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from catalogproc.errors import BundleError, ContractError, JobError, did_you_mean
from catalogproc.network.batch_function import BatchFunction
from catalogproc.network.bundle import Bundle
from catalogproc.network.components import Components
from catalogproc.network.inference_pass import InferencePass
from catalogproc.network.jacobian import ReversePass
from catalogproc.network.latent_position import LatentPosition
from catalogproc.network.memory import keep_freed_memory
from catalogproc.network.mixture import Mixture
from catalogproc.network.packed_tokens import PADDING, PackedTokens
from catalogproc.network.precision import PRECISIONS, float32_products, with_precision
from catalogproc.network.star_tokens import StarTokens
from catalogproc.network.static_batches import StaticBatches
from catalogproc.network.transformer import Transformer, summary

# Rows standardised, packed and sorted at a time: bounds memory, whatever the table's length.
SLICE = 16_384
# At most so many tokens, and so many predictions, in one pass through the network: on a CPU
# what keeps the activations in its caches, on a GPU what fills it.
BUDGET = {"cpu": (4_096, 2_048), "cuda": (262_144, 65_536)}
SIMILAR = 0.8
"""A batch that is large enough ends before a star that has fewer tokens than this share of the
first star's."""
TOLERANCE = {"float32": 0.0, "float64": 0.0, "tf32": 0.03, "bfloat16": 0.2}
"""Least tolerance of the self-check in units of sigma, where the bundle's is smaller."""

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Prediction:
    """Predictions of K labels for N stars, in the tokens' units.

    ``mean`` and ``sigma`` are float32 (N, K): mean and standard deviation of the distribution that
    the network predicts, NaN for a star with an infinite input. ``distance`` (N,) is the distance
    from the training stars in the latent space (see
    :class:`~catalogproc.network.uncertainty_calibration.Latent`), NaN where the bundle
    has no latent Gaussian. ``mixtures`` holds the distributions that are no single Gaussian, by
    label. ``closeness`` (N, M) is that to the places of the local calibration (see
    :class:`~catalogproc.network.local_calibration.Places`), None without one.
    """

    labels: tuple[str, ...]
    mean: NDArray[np.float32]
    sigma: NDArray[np.float32]
    distance: NDArray[np.float32] | None = None
    mixtures: Mapping[str, Mixture] = field(default_factory=dict)
    closeness: NDArray[np.float32] | None = None


class Predictor:
    """A bundle on a device, ready to predict; safe to share between threads.

    The prediction for a star does not depend on the other stars, on their order or on the
    batches, except for the rounding of float32: less than 2e-5 of the label's scale in
    the standardisation, and that of the prediction itself. In bfloat16 that rounding is larger:
    network/precision.py says by how much it may be. Derivatives are computed in float32 there.

    Parameters
    ----------
    bundle
        The model.
    device
        Where the network runs, as torch names it.
    precision
        One of :data:`~catalogproc.network.precision.PRECISIONS`.
    static
        Whether batches have few fixed shapes, whose passes are captured
        (network/static_batches.py); by default on GPUs.

    Raises
    ------
    JobError
        There is no such precision.
    """

    def __init__(
        self,
        bundle: Bundle,
        device: str = "cpu",
        precision: str = "float32",
        static: bool | None = None,
    ) -> None:
        if precision not in PRECISIONS:
            raise JobError("unknown precision", wanted=" | ".join(PRECISIONS), found=precision)
        self.bundle = bundle
        self.device = torch.device(device)
        self.precision = precision
        self.dtype = torch.float64 if precision == "float64" else torch.float32
        self.network: Transformer = with_precision(bundle.network(device), precision)
        if self.device.type == "cpu":
            keep_freed_memory()
        self.latent = LatentPosition(bundle.calibration.latent, self.device, self.dtype)
        self.static: StaticBatches | None = None
        if self.device.type == "cuda" if static is None else static:
            self.static = StaticBatches(bundle, self.device, self.dtype, self._budget)
        fewer = self.device.type == "cpu" and self.static is None and precision != "bfloat16"
        self.forward: Transformer | InferencePass = (
            InferencePass(self.network) if fewer else self.network
        )

    @property
    def _budget(self) -> tuple[int, int]:
        return BUDGET.get(self.device.type, BUDGET["cuda"])

    @cached_property
    def reverse_pass(self) -> ReversePass:
        """The network's reverse pass, for derivatives of its predictions."""
        network = self.network
        if self.precision == "bfloat16":
            network = self.bundle.network(str(self.device))
        return ReversePass(network, half=self.device.type == "cuda")

    def predict(self, tokens: StarTokens, labels: Sequence[str]) -> Prediction:
        """Predict labels for each star.

        Parameters
        ----------
        tokens
            Of N stars. A star without tokens gets the model's prior.
        labels
            Names of the K tokens to predict.

        Raises
        ------
        ContractError
            A label or a number of columns that the vocabulary does not have.
        BundleError
            A label that the model was not trained to predict.
        """
        requests = self.requests(labels)

        def forward(packed: PackedTokens) -> tuple[Tensor, ...]:
            memory, present = self.forward.encode(packed)
            found = self.forward.decode_components(memory, present, requests)
            return *self.outputs(found), self.latent(summary(memory, present), packed.ids)

        count = len(requests)
        key = ("predict", tuple(labels))
        function = BatchFunction(key, forward, self.prediction_shapes(count), count)
        return self.prediction(labels, *self.map_batches(tokens, function))

    def summaries(self, tokens: StarTokens) -> NDArray[np.float32]:
        """Return the mean over each star's tokens of the encoder's output.

        Parameters
        ----------
        tokens
            Of N stars.

        Returns
        -------
        (N, D), standardised; 0 for a star without tokens.
        """

        def forward(packed: PackedTokens) -> tuple[Tensor, ...]:
            return (summary(*self.forward.encode(packed)),)

        function = BatchFunction("summaries", forward, ((self.bundle.shape.width,),))
        return self.map_batches(tokens, function)[0]

    def outputs(self, components: Components) -> tuple[Tensor, ...]:
        """Return what is kept of predicted distributions: rows of :meth:`output_shapes`.

        Parameters
        ----------
        components
            Of n stars and K labels.
        """
        moments = components.moments()
        if components.log_weights is None:
            return moments
        parts = components.log_weights.exp(), components.means, components.log_variances
        return *moments, *parts

    def output_shapes(self, count: int) -> tuple[tuple[int, ...], ...]:
        """Return the shapes of one star's :meth:`outputs`.

        Parameters
        ----------
        count
            K, the number of labels.
        """
        number = self.bundle.shape.components
        parts = 3 * ((count, number),) if number > 1 else ()
        return (count,), (count,), *parts

    def prediction_shapes(self, count: int) -> tuple[tuple[int, ...], ...]:
        """Return the shapes of one star's rows of what :meth:`prediction` converts.

        Parameters
        ----------
        count
            K, the number of labels.
        """
        return *self.output_shapes(count), (self.latent.columns,)

    def prediction(self, labels: Sequence[str], *outputs: Floats) -> Prediction:
        """Convert standardised predictions to the labels' units.

        Parameters
        ----------
        labels
            K names.
        outputs
            :meth:`outputs` of N stars, and then what ``latent`` returns.
        """
        mean, log_variance, *parts, latent = outputs
        columns = self.bundle.vocabulary.columns(labels)
        scale = self.bundle.standardisation.scale[columns]
        center = self.bundle.standardisation.center[columns]
        sigma = np.exp(0.5 * log_variance.astype(np.float64)) * scale
        return Prediction(
            tuple(labels),
            (mean * scale + center).astype(np.float32),
            sigma.astype(np.float32),
            latent[:, 0],
            self._mixtures(labels, parts),
            latent[:, 1:] if latent.shape[1] > 1 else None,
        )

    def _mixtures(self, labels: Sequence[str], parts: Sequence[Floats]) -> dict[str, Mixture]:
        """Return the distributions of the labels that are several Gaussians."""
        found: dict[str, Mixture] = {}
        chosen, scales = self.bundle.shape.mixture, self.bundle.standardisation
        for k, column in enumerate(self.bundle.vocabulary.columns(labels) if parts else ()):
            if not chosen or column + 1 in chosen:
                weights, means, log_variances = (part[:, k].astype(np.float64) for part in parts)
                found[labels[k]] = Mixture(
                    weights,
                    means * scales.scale[column] + scales.center[column],
                    np.exp(0.5 * log_variances) * scales.scale[column],
                )
        return found

    def requests(self, labels: Sequence[str]) -> Tensor:
        """Return the token numbers (K,) of labels, on the device.

        Parameters
        ----------
        labels
            K names. Raises as :meth:`predict` does.
        """
        return torch.from_numpy(self._columns(labels) + 1).to(self.device)

    @torch.inference_mode()
    def map_batches(self, tokens: StarTokens, function: BatchFunction) -> list[Floats]:
        """Standardise and pack stars, and apply a function to them batch by batch.

        Parameters
        ----------
        tokens
            Of N stars.
        function
            What to compute.

        Returns
        -------
        One float32 array (N, *shape) for each of ``function.shapes``, in the order of the
        stars.
        """
        if tokens.values.shape[1] != len(self.bundle.vocabulary):
            raise ContractError(
                "values must have one column per token",
                wanted=f"(N, {len(self.bundle.vocabulary)})",
                found=tokens.values.shape,
            )
        with float32_products(self.precision, self.device):
            if self.static is not None:
                return self.static.map(tokens, function)
            results = function.results(len(tokens))
            for start in range(0, len(tokens), SLICE):
                outputs = self._map_slice(tokens.rows(slice(start, start + SLICE)), function)
                for result, output in zip(results, outputs, strict=True):
                    result[start : start + SLICE] = output.cpu().numpy()
        return results

    def _map_slice(self, tokens: StarTokens, function: BatchFunction) -> list[Tensor]:
        """Apply the function to the stars of one slice, in batches of equally many tokens."""
        packed = self.bundle.pack(tokens)
        counts = np.count_nonzero(packed.ids.numpy() != PADDING, axis=1)
        order = np.argsort(-counts, kind="stable")
        outputs = [
            torch.empty((len(tokens), *shape), dtype=torch.float32, device=self.device)
            for shape in function.shapes
        ]
        for batch in self._batches(
            counts[order] * function.cost, function.requests * function.cost
        ):
            rows = order[batch]
            width = max(1, counts[rows[0]])
            parts = function.forward(packed.rows(rows, width).to(self.device, self.dtype))
            for output, part in zip(outputs, parts, strict=True):
                output[rows] = part.float()
        return outputs

    def self_check(self) -> None:
        """Raise BundleError unless the bundle's stored predictions are reproduced on the device."""
        check = self.bundle.self_check
        found = self.predict(check.tokens, check.labels)
        error = np.abs(found.mean - check.mean) / check.sigma
        error = np.fmax(error, np.abs(found.sigma / check.sigma - 1))
        tolerance = max(check.tolerance, TOLERANCE[self.precision])
        if not (error <= tolerance).all():  # also where it is NaN
            star, label = np.unravel_index(np.argmax(np.nan_to_num(error, nan=np.inf)), error.shape)
            raise BundleError(
                "the model does not reproduce its stored predictions on this device",
                wanted=f"{check.labels[label]} = {check.mean[star, label]:.6g}"
                f" ± {check.sigma[star, label]:.3g}, within {tolerance:g} sigma",
                found=f"{found.mean[star, label]:.6g} ± {found.sigma[star, label]:.3g}",
                where=f"{self.bundle.path}, check {star}, on {self.device} in {self.precision}",
            )

    def _columns(self, labels: Sequence[str]) -> NDArray[np.int64]:
        columns = self.bundle.vocabulary.columns(labels)
        untrained = sorted(set(labels) - set(self.bundle.requestable))
        if untrained:
            raise BundleError(
                "the model was not trained to predict this",
                wanted=", ".join(self.bundle.requestable),
                found=", ".join(untrained),
                where=self.bundle.path,
                advice=did_you_mean(untrained[0], self.bundle.requestable),
            )
        return columns

    def _batches(self, counts: NDArray[np.int64], requests: int) -> Iterator[slice]:
        """Yield slices of stars, which are sorted by decreasing number of tokens."""
        tokens, predictions = self._budget
        start = 0
        while start < len(counts):
            most = int(counts[start])
            size = min(tokens // max(1, most), predictions // max(1, requests))
            # Slots without a token cost as much as others; a batch costs as much as some stars.
            similar = np.count_nonzero(counts[start : start + max(1, size)] >= SIMILAR * most)
            size = min(size, max(int(similar), tokens // 8 // max(1, most)))
            yield slice(start, start + max(1, size))
            start += max(1, size)
