"""Training steps against the peer's, which draws one target from each encoding."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from statistics import median

import numpy as np
import torch
from torch import Tensor

from bench.kit import Kit
from bench.measure import Figures, Noted, Row, Target, times
from bench.plain import plain_copy, slots
from catalogproc.datasets.star_table import Table
from catalogproc.training.token_sampling import sample, standardise
from catalogproc.training.trainer import Settings, gaussian_loss, train

TITLE = "training"
ROWS = (
    Row("stars", "stars/s"),
    Row("samples: stars times targets", "samples/s"),
    Row("the peer's way: 64 slots, one target", "samples/s"),
    Row("samples against the peer's way", "×", Target(20)),
)


def measure(kit: Kit) -> Figures:
    sizes, bundle = kit.sizes, kit.bundle
    device = "cuda" if torch.cuda.is_available() else "cpu"
    table = _table(kit)
    settings = Settings(
        batch=sizes.batch, steps=sizes.steps + 1, report_steps=1, checkpoint_steps=10**6
    )
    rates: list[float] = []

    def told(step: int, steps: int, metrics: Mapping[str, float]) -> None:
        rates.append(metrics["stars_per_second"])

    folder = kit.folder / "training"
    trained = train(
        bundle.shape,
        bundle.standardisation,
        table.draw,
        settings,
        folder,
        device=device,
        progress=told,
    )
    shutil.rmtree(folder)
    stars = median(rates[1:])  # the first step burns in
    targets = float(trained.asked.sum()) / (settings.batch * settings.steps)
    theirs = _peer(kit, table, settings, device)
    return {
        "stars": Noted(stars, f"batch {settings.batch}, stars drawn beforehand"),
        "samples: stars times targets": Noted(stars * targets, f"{targets:.2f} targets a star"),
        "the peer's way: 64 slots, one target": theirs,
        "samples against the peer's way": stars * targets / theirs,
    }


def _peer(kit: Kit, table: Table, settings: Settings, device: str) -> float:
    """Samples a second of the plain network, trained as the peer does, less its Python loops."""
    plain = plain_copy(kit.bundle.network()).to(device).train()
    optimiser = torch.optim.AdamW(plain.parameters(), lr=1e-4)
    values, errors = standardise(
        *table.draw(0, settings.batch), kit.bundle.standardisation, torch.device(device)
    )

    def step() -> None:
        batch = sample(
            values,
            errors,
            torch.ones(len(kit.bundle.vocabulary), device=device),
            tokens=(settings.min_tokens, settings.max_tokens),
            targets=1,
            repeat=1.0,
            labels=None,
            unlabelled=0.0,
            generator=torch.Generator(device).manual_seed(0),
        )
        memory, padded = plain.encode(*slots(batch.ids, batch.values))
        answer: tuple[Tensor, Tensor] = plain.decode(memory, padded, batch.requests[:, 0])
        mean, log_variance = (column[:, None] for column in answer)
        optimiser.zero_grad()
        gaussian_loss(mean, log_variance, batch.truth, batch.error, batch.asked).backward()
        optimiser.step()

    return settings.batch / median(times(step, kit.sizes.repeats, kit.sizes.budget))


def _table(kit: Kit) -> Table:
    from catalogproc.simulation.simulator import Simulator

    n = max(kit.sizes.batch, kit.sizes.simulate // 4)
    values, errors = Simulator().draw(n, 2).tokens(kit.bundle.vocabulary)
    return Table(np.arange(n), values.numpy(), errors.numpy())
