"""What a user asks of a training, the settings of the optimisation, and a device's precision."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, ClassVar, Self

import torch

from catalogproc.errors import JobError, did_you_mean
from catalogproc.io.remote_file import File
from catalogproc.job import TrainingJob
from catalogproc.release import Release

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class TrainSpec:
    """What a user asks of one training.

    Attributes
    ----------
    job
        The training job: network, training data and settings.
    output
        Folder of the checkpoint, the learning curve and the bundle.
    data
        Dataset of real stars; for jobs with a table ``data`` only, the others simulate stars.
    base
        Name or folder of a bundle to fine-tune; tokens that it lacks are added.
    spectra
        Files of real spectra without labels, for jobs whose table ``real`` uses them.
    resume
        Continue from the checkpoint in ``output``.
    device
        auto, cpu or cuda.
    processes
        Number of processes on this host that train together.
    release
        The Gaia release whose spectra the model is to read; None for that of ``base``, or of the
        shipped vocabulary.
    """

    job: TrainingJob
    output: Path
    data: Path | None = None
    base: str | Path | None = None
    spectra: tuple[File, ...] = ()
    resume: bool = False
    device: str = "auto"
    processes: int = 1
    release: Release | None = None

    @property
    def bundle_folder(self) -> Path:
        """Folder of the bundle."""
        return self.output / self.job.bundle


class JobTable:
    """A table of a training job whose fields are checked by name and type."""

    TABLE: ClassVar[str]

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Self:
        """Read the table.

        Parameters
        ----------
        content
            Values by field name; absent fields have their default.

        Raises
        ------
        JobError
            An unknown field, a value of the wrong type, or an invalid value.
        """
        known = {item.name: item.default for item in fields(cls)}  # type: ignore[arg-type]
        for name, value in content.items():
            if name not in known:
                raise JobError("unknown field", wanted=", ".join(known), found=name,
                               advice=did_you_mean(name, known),
                               where=f"[{cls.TABLE}]")  # fmt: skip
            wanted = (int, float) if isinstance(known[name], float) else type(known[name])
            if isinstance(value, bool) != isinstance(known[name], bool) or not isinstance(
                value, wanted
            ):
                raise cls.invalid(name, repr(value), "wrong type", wanted=repr(known[name]))
        return cls(**content)

    @classmethod
    def invalid(cls, name: str, value: object, message: str, wanted: str | None = None) -> JobError:
        """Return the error of an invalid value.

        Parameters
        ----------
        name, value
            The field and its value.
        message, wanted
            What is wrong, and what is allowed.
        """
        return JobError(message, wanted=wanted, found=value, where=f"[{cls.TABLE}], {name}")


@dataclass(frozen=True)
class Settings(JobTable):
    """Settings of the optimisation, table ``training`` of a job.

    Attributes
    ----------
    seed
        Seed of the initial weights and, with the number of a step, of its random choices.
    steps, batch
        Number of steps, and stars per step.
    seconds
        Time after which the training ends, if it has not done its steps before. The learning rate
        then falls once and follows the time, so that it ends at ``minimum_rate`` whatever the speed
        of the machine; such a training cannot be repeated bit for bit. 0: no limit.
    rate, minimum_rate, restart_steps, warm_steps
        The learning rate falls from ``rate`` to ``minimum_rate`` as a cosine and restarts every
        ``restart_steps``; it rises linearly during the first ``warm_steps``.
    weight_decay, clip, average
        AdamW's decay; largest norm of a gradient, 0 for no limit; decay of the exponential
        moving average of the weights, which is then the result, 0 for none.
    min_tokens, max_tokens, targets
        Number of tokens of a star that a step shows, and number of tokens that it requests.
    repeat
        Probability of requesting a shown token relative to one that is not shown: 1 treats all
        alike, as in Zhang, Bu et al. (2026); 0 requests only what has to be inferred.
    unlabelled
        Probability that a star is shown without labels, as in a run; its labels may still be
        requested.
    measured
        Probability that such a star shows each label that a run may read, as E(B-V) and the
        pseudo-luminosity.
    labels_alone
        Probability that only labels of a star are shown, so that spectra can be generated from
        labels; ``unlabelled`` + ``labels_alone`` is at most 1.
    as_run
        Probability that a star is shown tokens that the default job reads alone: the first
        coefficients and colours (labels as above).
    parts
        Stars are sorted by the number of shown tokens and encoded in this many parts, which
        avoids computing on padding.
    precision
        float32, bfloat16, float16 (mixed: the weights stay float32), or auto: on a GPU bfloat16
        if supported, else float16; float32 elsewhere. On processors with AVX512-BF16, bfloat16 is
        1.75 times as fast as float32 (measured for `giants`, 63 tokens, 8 targets, one core).
    report_steps, checkpoint_steps
        Steps between lines of the learning curve, and between checkpoints.
    patience_steps
        The training ends when the validation loss, computed at checkpoints, has not fallen for
        this many steps; the result is then the weights of the lowest loss. 0: all steps are
        done, and the result is the last weights.
    """

    TABLE = "training"

    seed: int = 0
    steps: int = 100_000
    seconds: float = 0.0
    batch: int = 1024
    rate: float = 1e-4
    minimum_rate: float = 1e-10
    restart_steps: int = 100_000
    warm_steps: int = 0
    weight_decay: float = 0.01
    clip: float = 0.0
    average: float = 0.0
    min_tokens: int = 5
    max_tokens: int = 64
    targets: int = 8
    repeat: float = 1.0
    unlabelled: float = 0.0
    measured: float = 0.0
    labels_alone: float = 0.0
    as_run: float = 0.0
    parts: int = 4
    precision: str = "auto"
    report_steps: int = 100
    checkpoint_steps: int = 1000
    patience_steps: int = 0

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "restart_steps", "targets", "parts", "report_steps", "rate"):
            self._require(name, getattr(self, name) > 0, "must be positive")
        for name in ("seed", "repeat", "patience_steps", "seconds"):
            self._require(name, getattr(self, name) >= 0, "must not be negative")
        for name in ("unlabelled", "measured", "labels_alone", "as_run"):
            self._require(name, 0 <= getattr(self, name) <= 1, "not a probability", "0 to 1")
        self._require("average", 0 <= self.average < 1, "must be from 0 to below 1")
        self._require("precision", self.precision in ("auto", *PRECISIONS), "unknown precision",
                      f"auto | {' | '.join(PRECISIONS)}")  # fmt: skip
        if not 0 <= self.min_tokens <= self.max_tokens or self.max_tokens < 1:
            raise JobError(
                "the numbers of shown tokens are no range", wanted="0 <= min_tokens <= max_tokens",
                found=(self.min_tokens, self.max_tokens), where=f"[{self.TABLE}]",
            )  # fmt: skip
        if self.unlabelled + self.labels_alone > 1:
            raise JobError(
                "more than all stars", wanted="unlabelled + labels_alone up to 1",
                found=f"{self.unlabelled} + {self.labels_alone}", where=f"[{self.TABLE}]",
            )  # fmt: skip
        self._require(
            "checkpoint_steps",
            self.checkpoint_steps > 0 and self.checkpoint_steps % self.report_steps == 0,
            "checkpoints must coincide with reports",
            f"a multiple of report_steps, {self.report_steps}",
        )

    def _require(self, name: str, valid: bool, message: str, wanted: str | None = None) -> None:
        if not valid:
            raise self.invalid(name, getattr(self, name), message, wanted)

    def rate_at(self, step: int, phase: float | None = None) -> float:
        """Return the learning rate: cosine with warm restarts (Loshchilov & Hutter 2017).

        Parameters
        ----------
        step
            Number of the step, from 0.
        phase
            Where the rate is on its way down, from 0 to 1; by default by the step.
        """
        if phase is None:
            phase = (step % self.restart_steps) / self.restart_steps
        low, high = self.minimum_rate, self.rate
        rate = low + 0.5 * (high - low) * (1 + math.cos(math.pi * phase))
        return rate * min(1.0, (step + 1) / max(1, self.warm_steps))


@dataclass(frozen=True)
class MixedPrecision:
    """A device and its number type; float16 alone needs a scaled loss."""

    device: torch.device
    dtype: torch.dtype

    @classmethod
    def choose(cls, device: str, precision: str) -> MixedPrecision:
        """Return the arithmetic of a device.

        Parameters
        ----------
        device
            Name of the device, such as cpu or cuda:1.
        precision
            One of PRECISIONS, or auto.
        """
        at = torch.device(device)
        if precision != "auto":
            return cls(at, PRECISIONS[precision])
        if at.type != "cuda":
            return cls(at, torch.float32)
        return cls(at, torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16)

    @property
    def is_scaled(self) -> bool:
        """Whether the loss is scaled."""
        return self.dtype is torch.float16

    def autocast(self) -> torch.autocast:
        """Return the context in which operations use ``dtype``."""
        # The type of the device, not its name: the type of "cuda:1" is "cuda".
        return torch.autocast(
            self.device.type, dtype=self.dtype, enabled=self.dtype is not torch.float32
        )

    def scaler(self) -> torch.amp.GradScaler:
        """Return the scaler of the loss; it does nothing where none is needed."""
        return torch.amp.GradScaler(self.device.type, enabled=self.is_scaled)
