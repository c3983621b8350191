"""Training, compared with the scheme of astroNN_stars_foundation: one target per encoding."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import replace
from statistics import median

import numpy as np
import torch
from torch import Tensor

from bench.kit import Kit
from bench.measure import Figures, Noted, Row, Target, times
from bench.reference import reference_copy, slots
from catalogproc.datasets.star_table import StarTable
from catalogproc.network.bundle import Bundle
from catalogproc.network.components import Components
from catalogproc.training.config import Settings
from catalogproc.training.error_sampling import ErrorDraws, ErrorOptions, ErrorSampler
from catalogproc.training.token_sampling import TokenSampler, TrainingStars, standardise
from catalogproc.training.trainer import Trainer
from catalogproc.training.training_step import likelihood_loss

TITLE = "training"
ROWS = (
    Row("stars", "stars/s"),
    Row("samples: stars times targets", "samples/s"),
    Row("scheme of astroNN_stars_foundation: 64 slots, one target", "samples/s"),
    Row("samples against that scheme", "×", Target(20)),
)


def measure(kit: Kit) -> Figures:
    sizes, bundle = kit.sizes, kit.bundle
    device = "cuda" if torch.cuda.is_available() else "cpu"
    table = _table(kit)
    settings = Settings(
        batch=sizes.batch, steps=sizes.steps + 1, report_steps=1, checkpoint_steps=10**6
    )
    rates: list[float] = []

    def report(step: int, steps: int, metrics: Mapping[str, float]) -> None:
        rates.append(metrics["stars_per_second"])

    folder = kit.folder / "training"
    stars_drawn = TrainingStars(table.sample, bundle.standardisation, errors=_error_draws(bundle))
    trained = Trainer(bundle.shape, stars_drawn, settings, device).fit(folder, progress=report)
    shutil.rmtree(folder)
    stars = median(rates[1:])  # the first step is a warm-up
    targets = float(trained.request_counts.sum()) / (settings.batch * settings.steps)
    theirs = _one_target(kit, table, settings, device)
    return {
        "stars": Noted(stars, f"batch {settings.batch}, stars simulated beforehand"),
        "samples: stars times targets": Noted(stars * targets, f"{targets:.2f} targets per star"),
        "scheme of astroNN_stars_foundation: 64 slots, one target": theirs,
        "samples against that scheme": stars * targets / theirs,
    }


def _one_target(kit: Kit, table: StarTable, settings: Settings, device: str) -> float:
    """Return the samples per second of the reference trained with one target, vectorised."""
    reference = reference_copy(kit.bundle.network()).to(device).train()
    optimiser = torch.optim.AdamW(reference.parameters(), lr=1e-4)
    values, errors = standardise(
        *table.sample(0, settings.batch), kit.bundle.standardisation, torch.device(device)
    )

    weights = torch.ones(len(kit.bundle.vocabulary), device=device)
    draws, scale = _error_draws(kit.bundle), kit.bundle.standardisation.scale
    errors_drawn = ErrorSampler(draws, scale, torch.device(device)) if draws else None
    tokens = TokenSampler(weights, settings=replace(settings, targets=1), errors=errors_drawn)

    def step() -> None:
        batch = tokens.sample(values, errors, torch.Generator(device).manual_seed(0))
        memory, padded = reference.encode(slots(batch.shown))
        prediction: tuple[Tensor, Tensor] = reference.decode(memory, padded, batch.requests[:, 0])
        found = Components(*(column[:, None, None] for column in prediction))
        optimiser.zero_grad()
        likelihood_loss(found, batch).backward()
        optimiser.step()

    return settings.batch / median(times(step, kit.sizes.repeats, kit.sizes.budget))


def _error_draws(bundle: Bundle) -> ErrorDraws | None:
    """Return how errors are drawn for a network that reads them; None for another."""
    if bundle.error_scaling is None:
        return None
    spectrum = np.array([token.kind == "coefficient" for token in bundle.vocabulary.tokens])
    return ErrorDraws(ErrorOptions(), spectrum, bundle.error_scaling)


def _table(kit: Kit) -> StarTable:
    from catalogproc.simulation.simulator import Simulator

    n = max(kit.sizes.batch, kit.sizes.simulate // 4)
    values, errors = Simulator().draw(n, 2).tokens(kit.bundle.vocabulary)
    return StarTable(np.arange(n), values.numpy(), errors.numpy())
