"""How long a training will take on this machine, from a few steps that are timed."""

from __future__ import annotations

import statistics
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

from catalogproc.datasets.star_table import StarTable
from catalogproc.training.trainer import Trainer


@dataclass(frozen=True)
class TimeEstimate:
    """Time that a training will take, from steps that were timed on this machine.

    Attributes
    ----------
    stars
        Number of training stars, 0 where every step has new ones.
    batch, steps
        Stars per step, and number of steps.
    seconds_per_step
        Measured time.
    validations, validation_stars
        Number of validations, and of stars in each.
    done
        Steps done already.
    """

    stars: int
    batch: int
    steps: int
    seconds_per_step: float
    validations: int
    validation_stars: int
    done: int = 0

    @property
    def seconds(self) -> float:
        """Time that is left. Validation costs a third of a step per star: it has no gradient."""
        validated = self.validations * self.validation_stars / self.batch / 3
        left = max(self.steps - self.done, 0) / self.steps
        return left * (self.steps + validated) * self.seconds_per_step

    def text(self) -> str:
        """Return the estimate as a line of text."""
        stars = f"{self.stars:,} stars" if self.stars else "new stars in every step"
        done = f", {self.done:,} of them done" if self.done else ""
        return (
            f"{stars}, {self.steps:,} steps of {self.batch:,}{done}; "
            f"{self.seconds_per_step:.3g} s per step on this machine: "
            f"{_duration(self.seconds)} if all steps are done"
        )


def estimate_time(trainer: Trainer, star_count: int) -> TimeEstimate:
    """Time a few steps of a training, whose results are discarded.

    Parameters
    ----------
    trainer
        The training.
    star_count
        Number of training stars, 0 where every step has new ones.
    """
    settings, validation = trainer.settings, trainer.stars.validation
    steps = 15 if trainer.device.startswith("cuda") else 1
    brief = replace(
        settings, steps=3 * steps, report_steps=steps, checkpoint_steps=3 * steps, patience_steps=0
    )
    stars = trainer.stars
    if validation is not None:
        few = StarTable(validation.ids[:8], validation.values[:8], validation.errors[:8])
        stars = replace(stars, validation=few)
    with tempfile.TemporaryDirectory() as folder:
        history = replace(trainer, stars=stars, settings=brief).fit(Path(folder)).history
    # The first report includes the device's warm-up.
    rate = statistics.median(row["stars_per_second"] for row in history[1:])
    return TimeEstimate(
        stars=star_count,
        batch=settings.batch,
        steps=settings.steps,
        seconds_per_step=settings.batch / rate,
        validations=-(-settings.steps // settings.checkpoint_steps),
        validation_stars=0 if validation is None else len(validation.ids),
    )


def _duration(seconds: float) -> str:
    """Return a duration in its two largest units."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, hours = round(seconds / 60), round(seconds / 3600)
    if hours >= 24:
        return f"{hours // 24:,} d {hours % 24} h"
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min"
