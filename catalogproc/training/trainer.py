"""Train a network of any shape on tokens of any vocabulary: steps, reports and checkpoints.

The method is that of Leung & Bovy (2024): a random subset of a star's tokens is shown, others
are predicted under a Gaussian likelihood with the errors of the true values, by AdamW with cosine
warm restarts. Unlike there, many targets are requested of one encoding, and stars without targets
contribute nothing. Every step depends on the seed and its number alone: a training that was
interrupted and resumed gives the same weights, bit for bit, as an uninterrupted one (on the same
type of device, with the same number of threads). Several processes may train together
(distributed.py).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from catalogproc.errors import CatalogprocError, JobError, ResumeError
from catalogproc.io.hashes import sha256
from catalogproc.network.shape import Shape
from catalogproc.network.transformer import Transformer
from catalogproc.training.checkpoint import LearningCurve, load_checkpoint, save_checkpoint
from catalogproc.training.config import MixedPrecision, Settings
from catalogproc.training.distributed import ProcessGroup
from catalogproc.training.schedule import Schedule
from catalogproc.training.token_sampling import BatchSource, TrainingStars, derived_seeds
from catalogproc.training.training_step import TrainingState

Progress = Callable[[int, int, Mapping[str, float]], None]
"""(step, steps, metrics): loss, validation_loss, rate, stars_per_second."""

LENGTH_SETTINGS = ("steps", "seconds", "report_steps", "checkpoint_steps", "patience_steps")
"""Settings that may differ when a training is resumed."""


@dataclass(frozen=True, eq=False)
class Trained:
    """Result of a training.

    Attributes
    ----------
    network
        The network, ready for inference.
    history
        The learning curve.
    request_counts
        (V,) how often each token was requested.
    is_first
        False in all but one of several processes; those write no files.
    """

    network: Transformer
    history: tuple[dict[str, float], ...]
    request_counts: NDArray[np.int64]
    is_first: bool = True


@dataclass(frozen=True, eq=False)
class Trainer:
    """Trains a network.

    Attributes
    ----------
    initial
        Shape of a network with random initial weights, or a network to fine-tune.
    stars
        Training stars and validation stars.
    settings
        Settings of the optimisation.
    device
        Name of the device.
    threads
        Number of threads that draw the stars of the next steps; the result is the same.
    """

    initial: Shape | Transformer
    stars: TrainingStars
    settings: Settings
    device: str = "cpu"
    threads: int = 0

    @property
    def shape(self) -> Shape:
        """Shape of the network."""
        return self.initial.shape if isinstance(self.initial, Transformer) else self.initial

    def fit(
        self, folder: Path, *, resume: bool = False, progress: Progress | None = None
    ) -> Trained:
        """Train, and write checkpoints and learning_curve.csv.

        Parameters
        ----------
        folder
            Where the files are written.
        resume
            Continue from the folder's checkpoint, if it has one.
        progress
            Called after every report.

        Raises
        ------
        JobError
            The weights of the stars are invalid; or the network reads errors and none are drawn,
            or the other way round.
        ResumeError
            The folder holds a checkpoint and ``resume`` is False, or that of another training.
        CatalogprocError
            The loss is no longer finite. The last checkpoint is from before.
        """
        if self.shape.reads_errors != (self.stars.errors is not None):
            raise JobError(
                "errors are drawn for networks that read them, and only for these",
                found=f"reads_errors = {self.shape.reads_errors}",
            )
        stars = replace(self.stars, weights=self._weights())
        precision = MixedPrecision.choose(self.device, self.settings.precision)
        group = ProcessGroup.join(precision.device)
        folder.mkdir(parents=True, exist_ok=True)
        checkpoint = _load(folder, resume)
        with torch.random.fork_rng(devices=_gpus(precision.device)):
            torch.manual_seed(derived_seeds(self.settings.seed, 0, 2)[0])
            state = TrainingState(self.initial, self.settings, precision, group)
            identity, step, passed = self._identity(stars), 0, 0.0
            if checkpoint:
                _refuse_other_training(checkpoint[1]["identity"], identity, folder)
                step, passed = state.restore(*checkpoint), checkpoint[1].get("seconds", 0.0)
            schedule = Schedule(self.settings, step, passed, processes=group.size)
            report = _Report(state, schedule, identity, folder, progress)
            with BatchSource(stars, self.settings, precision.device, self.threads) as source:
                _train(state, source, schedule, report)
        counts = state.request_counts[1:].cpu().numpy()
        return Trained(state.outcome().eval(), tuple(report.history), counts, group.is_first)

    def _weights(self) -> NDArray[np.float64]:
        """Return the validated weights (V,) of requests."""
        given, tokens = self.stars.weights, self.shape.tokens
        weights = np.ones(tokens) if given is None else np.asarray(given, dtype=np.float64)
        if weights.shape != (tokens,) or not (weights >= 0).all() or not weights.any():
            raise JobError("wrong weights", wanted=f"{tokens}, none below 0", found=weights)
        return weights

    def _identity(self, stars: TrainingStars) -> dict[str, Any]:
        """Return what must be equal to resume; the number of steps and reports may change."""
        content = asdict(self.settings)
        for name in LENGTH_SETTINGS:
            del content[name]
        content |= {f"network.{name}": value for name, value in self.shape.to_dict().items()}
        scales = stars.standardisation
        arrays = {"center": scales.center, "scale": scales.scale, "weights": stars.weights}
        if stars.errors is not None:
            content |= {f"errors.{name}": x for name, x in asdict(stars.errors.options).items()}
            arrays |= {f"error_{name}": x for name, x in vars(stars.errors.scaling).items()}
        if isinstance(self.initial, Transformer):
            content["start"] = _digest(self.initial)
        return content | {
            name: sha256(np.asarray(array).tobytes()) for name, array in arrays.items()
        }


def _train(state: TrainingState, source: BatchSource, schedule: Schedule, report: _Report) -> None:
    """Do the steps of a training, and report them."""
    step, every = schedule.first, state.settings.report_steps
    losses: list[Tensor] = []
    began, over = time.perf_counter(), schedule.is_over(step)
    while not over and not state.is_exhausted(step):
        batch, seed = source.batch(step)
        torch.manual_seed(seed + state.group.rank)
        losses.append(state.step(batch, step, schedule.rate(step)))
        step += 1
        over = schedule.is_over(step)
        if over or step % every == 0:
            report.write(step, losses, time.perf_counter() - began, source, over)
            losses, began = [], time.perf_counter()


class _Report:
    """Writes learning curve and checkpoints; only the first process of a group does."""

    def __init__(
        self,
        state: TrainingState,
        schedule: Schedule,
        identity: Mapping[str, Any],
        folder: Path,
        progress: Progress | None,
    ) -> None:
        self._state, self._schedule = state, schedule
        self._identity, self._folder = identity, folder
        self._progress = progress
        self._curve = LearningCurve(folder, schedule.first) if state.group.is_first else None
        self.history = [] if self._curve is None else list(self._curve.rows)

    def write(
        self, step: int, losses: list[Tensor], seconds: float, source: BatchSource, over: bool
    ) -> None:
        """Report the steps since the last report, and write a checkpoint where one is due."""
        state, settings = self._state, self._state.settings
        metrics = {
            "loss": _finite(torch.stack(losses).mean(), step),
            "rate": self._schedule.rate(step - 1),
            "stars_per_second": len(losses) * settings.batch / seconds,
        }
        is_checkpoint = over or step % settings.checkpoint_steps == 0
        if is_checkpoint:
            _finite(state.largest(), step)
            if source.validation is not None:
                loss = state.validate(source, *source.validation)
                metrics["validation_loss"] = state.group.broadcast(loss, state.precision.device)
                state.keep_best(step, metrics["validation_loss"])
        self.history.append({"step": step, **metrics})
        if self._curve is None:
            return
        self._curve.append(step, metrics)
        if is_checkpoint:
            facts = {"identity": self._identity, **state.facts(step)}
            if settings.seconds:
                facts["seconds"] = self._schedule.passed
            save_checkpoint(self._folder, state.tensors(), facts)
        if self._progress is not None:
            self._progress(step, settings.steps, metrics)


def _load(folder: Path, resume: bool) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """Return the checkpoint to resume from, if any; refuse one that must not be continued."""
    checkpoint = load_checkpoint(folder)
    if checkpoint and not resume:
        raise ResumeError(
            "the folder holds the checkpoint of a training",
            where=folder,
            advice="resume it, or choose another folder",
        )
    return checkpoint


def _refuse_other_training(
    saved: Mapping[str, Any], current: Mapping[str, Any], folder: Path
) -> None:
    """Raise ResumeError where a checkpoint has another identity than this training."""
    for name in [*current, *sorted({*saved} - {*current})]:
        if saved.get(name) != current.get(name):
            raise ResumeError(
                "the checkpoint is of another training",
                wanted=f"{name} = {saved.get(name)}, as in the checkpoint",
                found=f"{name} = {current.get(name)}",
                where=folder,
                advice="choose another folder",
            )


def _digest(network: Transformer) -> str:
    """Return the SHA-256 (hex) of all weights."""
    return sha256(
        name.encode() + tensor.detach().cpu().numpy().tobytes()
        for name, tensor in network.state_dict().items()
    )


def _gpus(device: torch.device) -> list[torch.device]:
    """Return the devices, besides the CPU, whose random state must be kept."""
    return [device] if device.type == "cuda" else []


def _finite(number: Tensor, step: int) -> float:
    """Return a number, or raise CatalogprocError if the training diverged."""
    value = float(number)
    if not math.isfinite(value):
        raise CatalogprocError(
            "the training diverged",
            found=f"a loss or a weight of {value} before step {step}",
            advice="resume with a lower rate, or with clip set",
        )
    return value
