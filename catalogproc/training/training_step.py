"""One step of a training: the loss, the update of the weights, and the state that it changes."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from catalogproc.network.components import Components, joined
from catalogproc.network.memory import keep_freed_memory
from catalogproc.network.shape import Shape
from catalogproc.network.transformer import Transformer
from catalogproc.training.config import MixedPrecision, Settings
from catalogproc.training.distributed import ProcessGroup
from catalogproc.training.token_sampling import BatchSource, TokenBatch, derived_seeds


def likelihood_loss(
    predicted: Components, batch: TokenBatch, count: Tensor | None = None
) -> Tensor:
    """Return the mean negative log likelihood, up to a constant; 0 without requests.

    See :meth:`~catalogproc.network.components.Components.surprise`.

    Parameters
    ----------
    predicted
        Predictions (N, K).
    batch
        True values and errors (N, K).
    count
        Number of requests to divide by; by default those of the batch.
    """
    predicted = predicted.float()
    # Where nothing is requested the log variance is replaced: 0 times infinity would be NaN.
    requested = batch.requested.unsqueeze(-1)
    safe = replace(predicted, log_variances=torch.where(requested, predicted.log_variances, 0.0))
    each = safe.surprise(batch.truth, batch.error)
    divisor = batch.requested.sum() if count is None else count
    return torch.where(batch.requested, each, 0.0).sum() / divisor.clamp(min=1)


class TrainingState:
    """State that a step changes: weights, their average, the optimiser, the scale of the loss.

    Parameters
    ----------
    initial
        Shape of a network with random weights, or a network whose weights are copied.
    settings
        Settings of the optimisation.
    precision
        Device and number type.
    group
        The processes that train together; by default this one alone.
    """

    def __init__(
        self,
        initial: Shape | Transformer,
        settings: Settings,
        precision: MixedPrecision,
        group: ProcessGroup | None = None,
    ) -> None:
        self.settings = settings
        self.group = group or ProcessGroup()
        self.precision = precision
        shape = initial.shape if isinstance(initial, Transformer) else initial
        self.network = Transformer(shape).to(precision.device)
        if isinstance(initial, Transformer):
            self.network.load_state_dict(initial.state_dict())
        self.best: dict[str, Tensor] = {}
        self.best_step, self.best_loss = 0, math.inf
        if precision.device.type == "cpu":
            keep_freed_memory()
        self.average = copy.deepcopy(self.network).requires_grad_(False)
        self.optimiser = torch.optim.AdamW(
            self.network.parameters(),
            lr=settings.rate,
            weight_decay=settings.weight_decay,
            fused=True,
        )
        self.scaler = precision.scaler()
        self.request_counts = torch.zeros(
            shape.tokens + 1, dtype=torch.int64, device=precision.device
        )

    def step(self, batch: TokenBatch, step: int, rate: float | None = None) -> Tensor:
        """Update the weights once and return the loss before the update.

        Parameters
        ----------
        batch
            All stars of the step; of several processes each uses its share.
        step
            Number of the step, from 0.
        rate
            Learning rate; by default that of the step.
        """
        for group in self.optimiser.param_groups:
            group["lr"] = self.settings.rate_at(step) if rate is None else rate
        self.network.train()
        self.optimiser.zero_grad()
        loss = self.loss(self.network, self.group.shard(batch), batch.requested.sum())
        self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        loss = loss.detach()
        self.group.all_reduce([loss, *(weight.grad for weight in self.network.parameters())])
        if self.settings.clip:
            self.scaler.unscale_(self.optimiser)
            torch.nn.utils.clip_grad_norm_(self.network.parameters(), self.settings.clip)
        self.scaler.step(self.optimiser)
        self.scaler.update()
        if self.settings.average:
            # At first the average is over few steps, so that it forgets the initial weights.
            share = 1 - min(self.settings.average, (1 + step) / (10 + step))
            averages: list[Tensor] = list(self.average.parameters())
            with torch.no_grad():
                torch._foreach_lerp_(averages, list(self.network.parameters()), share)
        self.request_counts.scatter_add_(
            0, batch.requests.flatten(), batch.requested.flatten().long()
        )
        return loss

    def loss(self, network: Transformer, batch: TokenBatch, count: Tensor | None = None) -> Tensor:
        """Return the loss of a network; see :func:`likelihood_loss`.

        Parameters
        ----------
        network
            The network.
        batch
            Shown and requested tokens.
        count
            Number of requests to divide by; by default those of the batch.
        """
        rows = -(-len(batch.shown) // self.settings.parts)
        widths = batch.shown.present[::rows].sum(1).clamp(min=1).tolist()
        predictions = []
        with self.precision.autocast():
            for part, width in enumerate(widths):
                at = slice(part * rows, (part + 1) * rows)
                predictions.append(
                    network.distributions(batch.shown.rows(at, width), batch.requests[at])
                )
        return likelihood_loss(joined(predictions), batch, count)

    @torch.no_grad()
    def validate(self, source: BatchSource, values: Tensor, errors: Tensor) -> float:
        """Return the loss on validation stars; shown and requested tokens are always the same.

        Parameters
        ----------
        source
            Chooses the tokens.
        values, errors
            (N, V), standardised.
        """
        network = self.result().eval()
        total, count = 0.0, 0
        for start in range(0, len(values), self.settings.batch):
            rows = slice(start, start + self.settings.batch)
            seed = derived_seeds(self.settings.seed, start, 1)[0]
            batch = source.tokens(values[rows], errors[rows], seed)
            requests = int(batch.requested.sum())
            total += float(self.loss(network, batch)) * requests
            count += requests
        return total / max(count, 1)

    def keep_best(self, step: int, loss: float) -> None:
        """Store the weights if the validation loss is the lowest so far.

        Parameters
        ----------
        step
            Number of steps done.
        loss
            The validation loss.
        """
        if self.settings.patience_steps and loss < self.best_loss:
            self.best_step, self.best_loss = step, loss
            weights = self.result().state_dict()
            self.best = {name: value.clone() for name, value in weights.items()}

    def is_exhausted(self, step: int) -> bool:
        """Return whether the validation loss has not fallen for ``patience_steps``.

        Parameters
        ----------
        step
            Number of steps done.
        """
        patience = self.settings.patience_steps
        return bool(patience and self.best and step - self.best_step >= patience)

    def largest(self) -> Tensor:
        """Return the largest absolute weight: NaN or infinite if any is."""
        return torch.stack([w.detach().abs().max() for w in self.network.parameters()]).max()

    def result(self) -> Transformer:
        """Return the averaged network, or the current one without averaging."""
        return self.average if self.settings.average else self.network

    def outcome(self) -> Transformer:
        """Return the result of the training: with patience the network of the lowest loss."""
        network = self.result()
        if self.settings.patience_steps and self.best:
            network.load_state_dict(self.best)
        return network

    def tensors(self) -> dict[str, Tensor]:
        """Return the tensors of the state by name, for :meth:`restore`."""
        tensors = {"request_counts": self.request_counts}
        for part, network in (("network", self.network), ("average", self.average)):
            tensors |= {f"{part}/{key}": value for key, value in network.state_dict().items()}
        for name, parameter in self.network.named_parameters():
            state = self.optimiser.state.get(parameter, {})
            tensors |= {f"optimiser/{name}/{key}": value for key, value in state.items()}
        return tensors | {f"best/{key}": value for key, value in self.best.items()}

    def facts(self, step: int) -> dict[str, Any]:
        """Return the rest of the state, for :meth:`restore`.

        Parameters
        ----------
        step
            Number of steps done.
        """
        best = {"step": self.best_step, "loss": self.best_loss} if self.best else None
        return {"step": step, "scaler": self.scaler.state_dict(), "best": best}

    def restore(self, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> int:
        """Load the state of a checkpoint and return its number of steps.

        Parameters
        ----------
        tensors, facts
            What :meth:`tensors` and :meth:`facts` returned.
        """
        groups: dict[str, dict[str, Tensor]] = {}
        for name, tensor in tensors.items():
            part, _, key = name.rpartition("/")
            groups.setdefault(part, {})[key] = tensor
        self.network.load_state_dict(groups["network"])
        self.average.load_state_dict(groups["average"])
        self.request_counts.copy_(groups[""]["request_counts"])
        state = self.optimiser.state_dict()
        names = [name for name, _ in self.network.named_parameters()]
        state["state"] = {
            number: groups[f"optimiser/{name}"]
            for number, name in enumerate(names)
            if f"optimiser/{name}" in groups
        }
        self.optimiser.load_state_dict(state)
        self.scaler.load_state_dict(facts["scaler"])
        if best := facts.get("best"):
            self.best_step, self.best_loss = int(best["step"]), float(best["loss"])
            device = self.precision.device
            self.best = {name: tensor.to(device) for name, tensor in groups["best"].items()}
        return int(facts["step"])
