"""Holdout stars: stars outside the training data, as a run reads them, with their true labels."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from catalogproc.datasets.star_table import StarTable
from catalogproc.features.extinction import ln_ebv
from catalogproc.job import Job
from catalogproc.network.star_tokens import StarTokens
from catalogproc.simulation.simulated_stars import LABELS
from catalogproc.simulation.simulator import Simulator
from catalogproc.vocabulary import BANDS, Vocabulary

Floats = NDArray[np.float64]

WITHOUT_AUXILIARY, OTHER_COEFFICIENTS = 0.35, 0.25
"""Fractions of the stars that are read without auxiliary tables, and with another number of
coefficients than the default job reads; a job may ask for either."""


@dataclass(frozen=True, eq=False)
class Holdout:
    """N stars that the network was not trained on.

    Attributes
    ----------
    values, errors
        (N, V) tokens that a run reads, NaN where absent, and their published errors.
    truth, truth_errors
        (N, V) true labels, NaN where unknown, and their errors.
    g_mag
        (N,) magnitude G, NaN where unknown.
    default_read
        (N,), True for stars that are read with the default job's number of coefficients.
    """

    values: Floats
    errors: Floats
    truth: Floats
    truth_errors: Floats
    g_mag: Floats
    default_read: NDArray[np.bool_]

    @property
    def inputs(self) -> StarTokens:
        """The tokens that a run reads, with their published errors."""
        return StarTokens(self.values, self.errors)


def simulated_holdout(simulator: Simulator, vocabulary: Vocabulary, n: int, seed: int) -> Holdout:
    """Return simulated giants as runs read them; their true labels are exact.

    Parameters
    ----------
    simulator
        Draws the stars.
    vocabulary
        Defines the V tokens.
    n
        Number of stars.
    seed
        Seed of the stars and of what is read of each.
    """
    stars = simulator.draw(n, seed)
    values, errors = (x.cpu().double().numpy() for x in stars.tokens(vocabulary))
    column = {name: stars[name].cpu().double().numpy() for name in ("ebv", "mg", "g_mag")}
    truth = np.full_like(values, np.nan)
    for label in [label for label in LABELS if label in stars.columns]:
        truth[:, vocabulary.column(label)] = stars[label].cpu().double().numpy()
    truth[:, vocabulary.column("logebv")] = ln_ebv(column["ebv"])
    truth[:, vocabulary.column("g_fakemag")] = 10.0 ** (0.2 * column["mg"] + 2.0)
    all_default = np.ones(n, dtype=bool)
    stars_read_fully = Holdout(
        values, errors, truth, np.zeros_like(truth), column["g_mag"], all_default
    )
    return _as_runs_read(stars_read_fully, vocabulary, seed)


def real_holdout(
    table: StarTable, g_mag: NDArray[np.floating], vocabulary: Vocabulary, seed: int
) -> Holdout:
    """Return real stars of a dataset as runs read them.

    Labels that a run reads as inputs have no truth here.

    Parameters
    ----------
    table
        The stars, labels included.
    g_mag
        Their magnitude G (n,), NaN where unknown.
    vocabulary
        Defines the V tokens.
    seed
        Seed of what is read of each star.
    """
    values, errors = table.values.astype(np.float64), table.errors.astype(np.float64)
    truth = np.full_like(values, np.nan)
    labels = vocabulary.columns(vocabulary.named("label"))
    truth[:, labels] = values[:, labels]
    inputs = vocabulary.columns([name for name in Job("default").inputs if name in vocabulary])
    truth[:, inputs] = np.nan
    all_default = np.ones(len(values), dtype=bool)
    stars_read_fully = Holdout(
        values, errors, truth, np.nan_to_num(errors), g_mag.astype(np.float64), all_default
    )
    return _as_runs_read(stars_read_fully, vocabulary, seed)


def _as_runs_read(stars: Holdout, vocabulary: Vocabulary, seed: int) -> Holdout:
    """Keep the tokens that runs read: those of the default job for most stars."""
    random = np.random.default_rng(seed)
    job, size = Job("default"), len(stars.values)
    counts = np.full((size, 2), job.coefficients)
    other = random.random(size) < OTHER_COEFFICIENTS
    most = max(vocabulary.coefficients(band) for band in BANDS)
    counts[other] = random.integers(5, most + 1, (int(other.sum()), 1))
    read = np.zeros(stars.values.shape, dtype=bool)
    for place, band in enumerate(BANDS):
        at = vocabulary.coefficient_columns(band)
        read[:, at] = np.arange(len(at)) < counts[:, place : place + 1]
    read[:, vocabulary.columns([name for name in job.inputs if name in vocabulary])] = True
    without = random.random(size) < WITHOUT_AUXILIARY
    auxiliary = vocabulary.columns([n for n in ("jh", "jk", "logebv") if n in vocabulary])
    read[np.ix_(without, auxiliary)] = False
    return replace(stars, values=np.where(read, stars.values, np.nan), default_read=~other)
