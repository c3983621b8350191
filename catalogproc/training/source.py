"""Where a training's questions come from: each step's from the seed and its number alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from catalogproc.datasets.star_table import Draw
from catalogproc.network.bundle import Standardisation
from catalogproc.training.config import Settings
from catalogproc.training.token_sampling import Sample, sample, standardise


class Source:
    """Batches of questions, each from the seed and the step's number alone."""

    def __init__(
        self,
        draw: Draw,
        standardisation: Standardisation,
        weights: NDArray[np.floating],
        labels: NDArray[np.bool_] | None,
        settings: Settings,
        device: torch.device,
    ) -> None:
        self.draw = draw
        self.standardisation = standardisation
        self.weights = torch.tensor(weights, dtype=torch.float32, device=device)
        self.labels = None if labels is None else torch.tensor(labels, device=device)
        self.settings = settings
        self.device = device

    def batch(self, step: int) -> tuple[Sample, int]:
        """A step's questions, and the seed of what else is random in it."""
        seeds = seeds_of(self.settings.seed, step)
        values, errors, *kept = self.draw(seeds[0], self.settings.batch)
        hidden = torch.as_tensor(kept[0]).to(self.device) if kept else None
        return self.questions(*self.prepare(values, errors), seeds[1], hidden), seeds[2]

    def prepare(self, values: Any, errors: Any) -> tuple[Tensor, Tensor]:
        return standardise(values, errors, self.standardisation, self.device)

    def questions(
        self, values: Tensor, errors: Tensor, seed: int, hidden: Tensor | None = None
    ) -> Sample:
        return sample(
            values,
            errors,
            self.weights,
            tokens=(self.settings.min_tokens, self.settings.max_tokens),
            targets=self.settings.targets,
            repeat=self.settings.repeat,
            labels=self.labels,
            unlabelled=self.settings.unlabelled,
            labels_alone=self.settings.labels_alone,
            hidden=hidden,
            generator=torch.Generator(self.device).manual_seed(seed),
        )


def seeds_of(*numbers: int) -> list[int]:
    """Three seeds, independent of those of any other numbers."""
    state = np.random.SeedSequence(numbers).generate_state(3, np.uint64) >> np.uint64(1)
    return [int(seed) for seed in state]
