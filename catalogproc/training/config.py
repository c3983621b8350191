"""How a network is trained: what a training job may set, and a device's arithmetic."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import torch

from catalogproc.errors import JobError

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class Settings:
    """How a network is trained; every field may stand in a training job.

    seed
        Of the initial weights, and with a step's number of all that is random in it.
    steps, batch
        How many steps, of how many stars.
    rate, minimum_rate, restart_steps, warm_steps
        The learning rate falls from ``rate`` to ``minimum_rate`` as a cosine, and starts
        again every ``restart_steps``; it first rises linearly over ``warm_steps``.
    weight_decay, clip, average
        AdamW's decay; the largest norm of a gradient, 0 for any; the decay of the
        exponential moving average of the weights, which is then the result, 0 for none.
    min_tokens, max_tokens, targets
        How many tokens of a star a step shows, and how many it asks for.
    repeat
        How likely a token that is shown is asked too, beside one that is not: 1 asks for
        all alike, as in the seed paper; 0 asks only for what has to be inferred.
    unlabelled
        How likely a star is shown without any label, as in a run; the labels are asked all
        the same.
    labels_alone
        How likely a star is shown by some of its labels alone, so that spectra can be made of
        labels; ``unlabelled`` + ``labels_alone`` is at most 1.
    parts
        Stars are sorted by the number of tokens shown and encoded in so many parts, so
        that little is computed on padding.
    precision
        float32, bfloat16, float16 (mixed, the weights stay float32), or auto: bfloat16 or
        float16 on a GPU, whichever it has, float32 elsewhere.
    report_steps, checkpoint_steps
        How often a line is added to the learning curve, and a checkpoint written.
    patience_steps
        The training ends when the validation's loss, which is taken at checkpoints, has not
        fallen for so many steps; the result are then the weights with which it was lowest.
        0: it goes to its end, and the result are the last weights.
    """

    seed: int = 0
    steps: int = 100_000
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
    labels_alone: float = 0.0
    parts: int = 4
    precision: str = "auto"
    report_steps: int = 100
    checkpoint_steps: int = 1000
    patience_steps: int = 0

    def __post_init__(self) -> None:
        positive = ("steps", "batch", "restart_steps", "targets", "parts", "report_steps", "rate")
        for name in positive:
            if not getattr(self, name) > 0:
                raise JobError("must be positive", found=getattr(self, name), where=name)
        if self.seed < 0:
            raise JobError("a seed is not negative", found=self.seed, where="seed")
        if not 0 <= self.min_tokens <= self.max_tokens or self.max_tokens < 1:
            raise JobError(
                "the number of tokens shown must be a range",
                wanted="0 <= min_tokens <= max_tokens",
                found=(self.min_tokens, self.max_tokens),
            )
        if self.repeat < 0:
            raise JobError("must not be negative", found=self.repeat, where="repeat")
        for name in ("unlabelled", "labels_alone"):
            if not 0 <= getattr(self, name) <= 1:
                raise JobError("a likelihood", wanted="0 to 1", found=getattr(self, name),
                               where=name)  # fmt: skip
        if self.unlabelled + self.labels_alone > 1:
            raise JobError(
                "more than all stars", wanted="unlabelled + labels_alone up to 1",
                found=f"{self.unlabelled} + {self.labels_alone}",
            )  # fmt: skip
        if self.patience_steps < 0:
            raise JobError("must not be negative", found=self.patience_steps,
                           where="patience_steps")  # fmt: skip
        if not 0 <= self.average < 1:
            raise JobError("must be from 0 to below 1", found=self.average, where="average")
        if self.checkpoint_steps % self.report_steps or self.checkpoint_steps <= 0:
            raise JobError(
                "a checkpoint falls on a report",
                wanted=f"a multiple of report_steps, {self.report_steps}",
                found=self.checkpoint_steps,
                where="checkpoint_steps",
            )
        if self.precision not in ("auto", *PRECISIONS):
            raise JobError(
                "unknown precision", wanted=f"auto | {' | '.join(PRECISIONS)}", found=self.precision
            )

    def rate_at(self, step: int) -> float:
        """The learning rate of a step: cosine warm restarts (Loshchilov & Hutter 2017)."""
        turn = (step % self.restart_steps) / self.restart_steps
        low, high = self.minimum_rate, self.rate
        rate = low + 0.5 * (high - low) * (1 + math.cos(math.pi * turn))
        return rate * min(1.0, (step + 1) / max(1, self.warm_steps))

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Settings:
        """Raises JobError for a field that trainings do not have, or of the wrong kind."""
        known = {field.name: field.default for field in fields(cls)}
        for name, value in content.items():
            if name not in known:
                raise JobError("unknown field of a training", wanted=", ".join(known), found=name)
            wanted = (int, float) if isinstance(known[name], float) else type(known[name])
            if isinstance(value, bool) or not isinstance(value, wanted):
                raise JobError("wrong type", wanted=known[name], found=repr(value), where=name)
        return cls(**content)


@dataclass(frozen=True)
class Mixed:
    """The arithmetic of a device: float16 alone needs its loss scaled."""

    device: torch.device
    dtype: torch.dtype

    @classmethod
    def choose(cls, device: str, precision: str) -> Mixed:
        at = torch.device(device)
        if precision != "auto":
            return cls(at, PRECISIONS[precision])
        if at.type != "cuda":
            return cls(at, torch.float32)
        return cls(at, torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16)

    @property
    def scaled(self) -> bool:
        return self.dtype is torch.float16

    def autocast(self) -> torch.autocast:
        # The kind of device, not its name: "cuda:1" is a "cuda".
        return torch.autocast(
            self.device.type, dtype=self.dtype, enabled=self.dtype is not torch.float32
        )

    def scaler(self) -> torch.amp.GradScaler:
        return torch.amp.GradScaler(self.device.type, enabled=self.scaled)
