"""Stars that a network was not trained on, as a run reads them, and what is true of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from catalogproc.datasets.star_table import Table
from catalogproc.features.extinction import ln_ebv
from catalogproc.job import Job
from catalogproc.simulation.simulator import Simulator
from catalogproc.vocabulary import BANDS, Vocabulary

Floats = NDArray[np.float64]

ALONE, OTHERWISE = 0.35, 0.25
"""Shares of stars that are shown as a run without a companion table shows them, and with
another number of coefficients than usual: a job may ask for that."""


@dataclass(frozen=True, eq=False)
class Held:
    """N stars that the network was not trained on.

    ``values`` and ``errors`` (N, V) is what a run reads, errors as published;
    ``truth`` and ``truth_errors`` (N, V) what is true of the labels, NaN where it is not
    known; ``g_mag`` (N,), NaN where not known; ``usual`` (N,) are stars that are read as the
    default job reads them.
    """

    values: Floats
    errors: Floats
    truth: Floats
    truth_errors: Floats
    g_mag: Floats
    usual: NDArray[np.bool_]


def simulated_held(simulator: Simulator, vocabulary: Vocabulary, n: int, seed: int) -> Held:
    """Simulated giants as the default job reads them, some as it does without a companion."""
    stars = simulator.draw(n, seed)
    seen, errors = (x.cpu().double().numpy() for x in stars.tokens(vocabulary))
    column = {name: stars[name].cpu().double().numpy() for name in ("ebv", "mg", "g_mag")}
    truth = np.full_like(seen, np.nan)
    for label in ("teff", "logg", "m_h", "mass", "log_age"):
        truth[:, vocabulary.column(label)] = stars[label].cpu().double().numpy()
    truth[:, vocabulary.column("logebv")] = ln_ebv(column["ebv"])
    truth[:, vocabulary.column("g_fakemag")] = 10.0 ** (0.2 * column["mg"] + 2.0)
    return _held(seen, errors, truth, np.zeros_like(truth), column["g_mag"], vocabulary, seed)


def real_held(table: Table, vocabulary: Vocabulary, seed: int) -> Held:
    """Real stars of a training's dataset; nothing is true of what they are shown with."""
    seen, errors = table.values.astype(np.float64), table.errors.astype(np.float64)
    truth = np.full_like(seen, np.nan)
    labels = vocabulary.columns(vocabulary.named("label"))
    truth[:, labels] = seen[:, labels]
    shown = vocabulary.columns([name for name in Job("default").inputs if name in vocabulary])
    truth[:, shown] = np.nan
    g_mag = np.full(len(seen), np.nan)
    return _held(seen, errors, truth, np.nan_to_num(errors), g_mag, vocabulary, seed)


def _held(
    seen: Floats,
    errors: Floats,
    truth: Floats,
    truth_errors: Floats,
    g_mag: Floats,
    vocabulary: Vocabulary,
    seed: int,
) -> Held:
    """Stars as jobs read them, most of them as the default one does."""
    random = np.random.default_rng(seed)
    job, size = Job("default"), len(seen)
    counts = np.full((size, 2), job.coefficients)
    otherwise = random.random(size) < OTHERWISE
    most = max(vocabulary.coefficients(band) for band in BANDS)
    counts[otherwise] = random.integers(5, most + 1, (int(otherwise.sum()), 1))
    read = np.zeros(seen.shape, dtype=bool)
    for place, band in enumerate(BANDS):
        at = vocabulary.coefficient_columns(band)
        read[:, at] = np.arange(len(at)) < counts[:, place : place + 1]
    read[:, vocabulary.columns([name for name in job.inputs if name in vocabulary])] = True
    alone = random.random(size) < ALONE
    beside = vocabulary.columns([n for n in ("jh", "jk", "logebv") if n in vocabulary])
    read[np.ix_(alone, beside)] = False
    values = np.where(read, seen, np.nan)
    return Held(values, errors, truth, truth_errors, g_mag, ~otherwise)
