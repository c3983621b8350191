"""Loss, schedule, steps and checkpoints: a network of any shape, trained on any tokens.

The recipe is Leung & Bovy's (2024): a random few of a star's tokens in, its other tokens
out, under a Gaussian likelihood with the labels' own errors, AdamW, cosine warm
restarts. Unlike there, many targets are asked of one encoding, a star without
targets contributes nothing, and a step depends on the seed and its number alone: a
training that was interrupted and resumed gives bit for bit what it would have given
undisturbed (on the same kind of device, with as many threads). Several processes may train
together (ranks.py).
"""

from __future__ import annotations

import copy
import hashlib
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from catalogproc.datasets.star_table import Draw
from catalogproc.errors import CatalogprocError, JobError, ResumeError
from catalogproc.network.bundle import Standardisation
from catalogproc.network.cpu_kernels import use_onednn
from catalogproc.network.memory import keep_freed_memory
from catalogproc.network.transformer import PADDING, Shape, Transformer
from catalogproc.training.checkpoint import Curve, load_checkpoint, save_checkpoint
from catalogproc.training.config import Mixed
from catalogproc.training.config import Settings as Settings
from catalogproc.training.distributed import Ranks
from catalogproc.training.source import Source, seeds_of
from catalogproc.training.token_sampling import Sample

Progress = Callable[[int, int, Mapping[str, float]], None]
"""(step, steps, metrics): loss, validation_loss, rate, stars_per_second."""


@dataclass(frozen=True, eq=False)
class Trained:
    """The network, ready for inference; the learning curve; how often each token was asked.

    ``first`` is False in all but one of several processes: they write no files.
    """

    network: Transformer
    history: tuple[dict[str, float], ...]
    asked: NDArray[np.int64]
    first: bool = True


def train(
    shape: Shape,
    standardisation: Standardisation,
    draw: Draw,
    settings: Settings,
    folder: Path,
    *,
    weights: NDArray[np.floating] | None = None,
    labels: NDArray[np.bool_] | None = None,
    validation: tuple[Any, Any] | None = None,
    start: Transformer | None = None,
    device: str = "cpu",
    resume: bool = False,
    progress: Progress | None = None,
) -> Trained:
    """Train a network, leaving checkpoints and learning_curve.csv in a folder.

    Parameters
    ----------
    draw
        Gives the stars of a step; called with another seed every step.
    weights
        (V,): how likely each token is to be asked, if a star has it; equal by default.
    labels
        (V,): which tokens are labels, for ``settings.unlabelled``.
    validation
        Values and errors of stars that ``draw`` never gives, for the curve and for when to
        end (``settings.patience_steps``).
    start
        A network of that shape whose weights are the first ones; random ones by default.
    resume
        Go on from the folder's checkpoint, if it has one.

    Raises
    ------
    ResumeError
        The folder holds a checkpoint and ``resume`` is False, or one of another training.
    CatalogprocError
        The loss is not finite any more. The last checkpoint is from before.
    """
    likely = np.ones(shape.tokens) if weights is None else np.asarray(weights, dtype=np.float64)
    if likely.shape != (shape.tokens,) or not (likely >= 0).all() or not likely.any():
        raise JobError("wrong weights", wanted=f"{shape.tokens}, none below 0", found=likely)
    mixed = Mixed.choose(device, settings.precision)
    ranks = Ranks.joined(mixed.device)
    identity = _identity(shape, standardisation, settings, likely, start)
    folder.mkdir(parents=True, exist_ok=True)
    found = load_checkpoint(folder)
    if found and not resume:
        raise ResumeError(
            "the folder holds the checkpoint of a training",
            where=folder,
            todo="resume it, or choose another folder",
        )
    with torch.random.fork_rng(devices=[mixed.device] if mixed.device.type == "cuda" else []):
        torch.manual_seed(seeds_of(settings.seed, 0, 2)[0])
        run = _Run(shape, settings, mixed, start, ranks)
        step = run.restore(*found, identity, folder) if found else 0
        source = Source(draw, standardisation, likely, labels, settings, mixed.device)
        held = None if validation is None else source.prepare(*validation)
        curve = Curve(folder, step) if ranks.first else None
        history = [] if curve is None else list(curve.rows)
        losses: list[Tensor] = []
        began = time.perf_counter()
        while step < settings.steps and not run.over(step):
            batch, seed = source.batch(step)
            torch.manual_seed(seed + ranks.rank)
            losses.append(run.step(batch, step))
            step += 1
            last = step == settings.steps
            if step % settings.report_steps and not last:
                continue
            metrics = {
                "loss": _finite(torch.stack(losses).mean(), step),
                "rate": settings.rate_at(step - 1),
                "stars_per_second": len(losses) * settings.batch / (time.perf_counter() - began),
            }
            checkpoint = last or step % settings.checkpoint_steps == 0
            if checkpoint:
                _finite(run.largest(), step)
            if checkpoint and held is not None:
                lost = run.validate(source, *held)
                metrics["validation_loss"] = ranks.agreed(lost, mixed.device)
                run.keep_best(step, metrics["validation_loss"])
            history.append({"step": step, **metrics})
            if curve is not None:
                curve.add(step, metrics)
                if checkpoint:
                    save_checkpoint(folder, run.tensors(), run.facts(step, identity))
                if progress is not None:
                    progress(step, settings.steps, metrics)
            losses, began = [], time.perf_counter()
    return Trained(run.outcome().eval(), tuple(history), run.asked[1:].cpu().numpy(), ranks.first)


def gaussian_loss(
    mean: Tensor,
    log_variance: Tensor,
    truth: Tensor,
    error: Tensor,
    asked: Tensor,
    count: Tensor | None = None,
) -> Tensor:
    """Mean negative log likelihood, less a constant, of what was asked; 0 if nothing was.

    0.5 [(y - mu)^2 / (exp(s) + e^2) + ln(exp(s) + e^2)] with s the log variance that the
    network states and e the label's error (Leung & Bovy 2024). All are (N, K). ``count`` is
    how many questions there are where these are a part of them.
    """
    # Where nothing was asked a finite number must stand in, else 0 times infinity is NaN.
    stated = torch.where(asked, log_variance.float(), 0.0)
    total = torch.logaddexp(stated, 2 * error.log())
    each = 0.5 * ((truth - mean.float()).square() * torch.exp(-total) + total)
    of = asked.sum() if count is None else count
    return torch.where(asked, each, 0.0).sum() / of.clamp(min=1)


class _Run:
    """All that a step changes: weights, their average, the optimiser, the loss's scale."""

    def __init__(
        self,
        shape: Shape,
        settings: Settings,
        mixed: Mixed,
        start: Transformer | None = None,
        ranks: Ranks | None = None,
    ) -> None:
        self.settings = settings
        self.ranks = ranks or Ranks()
        self.mixed = mixed
        self.network = Transformer(shape).to(mixed.device)
        if start is not None:
            self.network.load_state_dict(start.state_dict())
        self.best: dict[str, Tensor] = {}
        self.best_step, self.best_loss = 0, math.inf
        if mixed.device.type == "cpu":
            keep_freed_memory()
            if mixed.dtype is torch.float32:
                use_onednn(self.network)
        self.average = copy.deepcopy(self.network).requires_grad_(False)
        self.optimiser = torch.optim.AdamW(
            self.network.parameters(),
            lr=settings.rate,
            weight_decay=settings.weight_decay,
            fused=True,
        )
        self.scaler = mixed.scaler()
        self.asked = torch.zeros(shape.tokens + 1, dtype=torch.int64, device=mixed.device)

    def step(self, batch: Sample, step: int) -> Tensor:
        """One update of the weights; the loss before it."""
        for group in self.optimiser.param_groups:
            group["lr"] = self.settings.rate_at(step)
        self.network.train()
        self.optimiser.zero_grad()
        loss = self._loss(self.network, self.ranks.share(batch), batch.asked.sum())
        self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        loss = loss.detach()
        self.ranks.add_up([loss, *(weight.grad for weight in self.network.parameters())])
        if self.settings.clip:
            self.scaler.unscale_(self.optimiser)
            torch.nn.utils.clip_grad_norm_(self.network.parameters(), self.settings.clip)
        self.scaler.step(self.optimiser)
        self.scaler.update()
        if self.settings.average:
            # Early on the average is over few steps, else it would remember the first weights.
            share = 1 - min(self.settings.average, (1 + step) / (10 + step))
            averages: list[Tensor] = list(self.average.parameters())
            with torch.no_grad():
                torch._foreach_lerp_(averages, list(self.network.parameters()), share)
        self.asked.scatter_add_(0, batch.requests.flatten(), batch.asked.flatten().long())
        return loss

    def _loss(self, network: Transformer, batch: Sample, count: Tensor | None = None) -> Tensor:
        rows = -(-len(batch.ids) // self.settings.parts)
        widths = (batch.ids[::rows] != PADDING).sum(1).clamp(min=1).tolist()
        answers = []
        with self.mixed.autocast():
            for part, width in enumerate(widths):
                at = slice(part * rows, (part + 1) * rows)
                answers.append(
                    network(batch.ids[at, :width], batch.values[at, :width], batch.requests[at])
                )
        mean, log_variance = (torch.cat(side) for side in zip(*answers, strict=True))
        return gaussian_loss(mean, log_variance, batch.truth, batch.error, batch.asked, count)

    @torch.no_grad()
    def validate(self, source: Source, values: Tensor, errors: Tensor) -> float:
        """The loss on stars held out, asked the same questions every time."""
        network = self.result().eval()
        total, count = 0.0, 0
        for start in range(0, len(values), self.settings.batch):
            rows = slice(start, start + self.settings.batch)
            seed = seeds_of(self.settings.seed, start, 1)[0]
            batch = source.questions(values[rows], errors[rows], seed)
            asked = int(batch.asked.sum())
            total += float(self._loss(network, batch)) * asked
            count += asked
        return total / max(count, 1)

    def keep_best(self, step: int, loss: float) -> None:
        """Remember the weights if the validation's loss was never as low."""
        if self.settings.patience_steps and loss < self.best_loss:
            self.best_step, self.best_loss = step, loss
            weights = (self.average if self.settings.average else self.network).state_dict()
            self.best = {name: value.clone() for name, value in weights.items()}

    def over(self, step: int) -> bool:
        """Whether the validation's loss has not fallen for too long."""
        patience = self.settings.patience_steps
        return bool(patience and self.best and step - self.best_step >= patience)

    def largest(self) -> Tensor:
        """The largest weight: NaN or infinite if any is."""
        return torch.stack([w.detach().abs().max() for w in self.network.parameters()]).max()

    def result(self) -> Transformer:
        return self.average if self.settings.average else self.network

    def outcome(self) -> Transformer:
        """The network that the training gives: the best one, if it was looked for."""
        network = self.result()
        if self.settings.patience_steps and self.best:
            network.load_state_dict(self.best)
        return network

    def tensors(self) -> dict[str, Tensor]:
        """All of it that are tensors, by name; :meth:`restore` takes them back."""
        tensors = {"asked": self.asked}
        for part, network in (("network", self.network), ("average", self.average)):
            tensors |= {f"{part}/{key}": value for key, value in network.state_dict().items()}
        for name, parameter in self.network.named_parameters():
            state = self.optimiser.state.get(parameter, {})
            tensors |= {f"optimiser/{name}/{key}": value for key, value in state.items()}
        return tensors | {f"best/{key}": value for key, value in self.best.items()}

    def facts(self, step: int, identity: Mapping[str, Any]) -> dict[str, Any]:
        """The rest of it, and what a checkpoint must be of to go on from it."""
        best = {"step": self.best_step, "loss": self.best_loss} if self.best else None
        return {
            "step": step,
            "identity": dict(identity),
            "scaler": self.scaler.state_dict(),
            "best": best,
        }

    def restore(
        self,
        tensors: Mapping[str, Tensor],
        facts: Mapping[str, Any],
        identity: Mapping[str, Any],
        folder: Path,
    ) -> int:
        """Take a checkpoint's state; its step. Raises ResumeError if it is of another training."""
        was, now = facts["identity"], dict(identity)
        for name in [*now, *sorted({*was} - {*now})]:
            if was.get(name) != now.get(name):
                raise ResumeError(
                    "the checkpoint is of another training",
                    wanted=f"{name} = {was.get(name)}, as in the checkpoint",
                    found=f"{name} = {now.get(name)}",
                    where=folder,
                    todo="choose another folder",
                )
        groups: dict[str, dict[str, Tensor]] = {}
        for name, tensor in tensors.items():
            part, _, key = name.rpartition("/")
            groups.setdefault(part, {})[key] = tensor
        self.network.load_state_dict(groups["network"])
        self.average.load_state_dict(groups["average"])
        self.asked.copy_(groups[""]["asked"])
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
            at = self.mixed.device
            self.best = {name: tensor.to(at) for name, tensor in groups["best"].items()}
        return int(facts["step"])


def _identity(
    shape: Shape,
    standardisation: Standardisation,
    settings: Settings,
    weights: NDArray[np.floating],
    start: Transformer | None,
) -> dict[str, Any]:
    """What must be the same for a training to go on; how long and how noisily may change."""
    content = asdict(settings)
    for name in ("steps", "report_steps", "checkpoint_steps", "patience_steps"):
        del content[name]
    content |= {f"network.{name}": value for name, value in shape.to_dict().items()}
    arrays = {"center": standardisation.center, "scale": standardisation.scale, "weights": weights}
    if start is not None:
        content["start"] = _digest(start)
    return content | {
        name: hashlib.sha256(array.tobytes()).hexdigest() for name, array in arrays.items()
    }


def _digest(network: Transformer) -> str:
    """SHA-256 (hex) of all weights."""
    digest = hashlib.sha256()
    for name, tensor in network.state_dict().items():
        digest.update(name.encode() + tensor.detach().cpu().numpy().tobytes())
    return digest.hexdigest()


def _finite(number: Tensor, step: int) -> float:
    value = float(number)
    if not math.isfinite(value):
        raise CatalogprocError(
            "the training diverged",
            found=f"a loss or a weight of {value} before step {step}",
            todo="resume with a lower rate, or with clip set",
        )
    return value
