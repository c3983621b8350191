"""Holdout stars: stars outside the training data, as a run reads them, with their true labels."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from catalogproc.datasets.star_table import StarTable
from catalogproc.features.extinction import ln_ebv
from catalogproc.features.tokens import PARALLAX_TOKENS
from catalogproc.job import Job
from catalogproc.network.star_tokens import StarTokens
from catalogproc.simulation.simulated_stars import LABELS
from catalogproc.simulation.simulator import Simulator
from catalogproc.vocabulary import BANDS, Vocabulary

Floats = NDArray[np.float64]

WITHOUT_AUXILIARY, OTHERWISE = 0.35, 0.35
"""Fractions of the stars that are read without auxiliary tables, and otherwise than by the
default job: with another number of coefficients, one band, or any of AUXILIARY. A band is not left
out of canonical coefficients: in a run the other one's are then made by an operator of its own."""

ONE_BAND = 0.15
"""Fraction of these that have one band."""

COLOURS, MEASURED = ("bprp", "jh", "jk"), ("logebv", "g_fakemag")
"""The colours, and labels that a run may read."""

AUXILIARY = (*COLOURS, *MEASURED)
"""Inputs besides the spectrum."""


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
        (N,), True for stars that are read as by the default job.
    ids
        (N,) identifiers; a star may be there twice, moved to where it is fainter.
    """

    values: Floats
    errors: Floats
    truth: Floats
    truth_errors: Floats
    g_mag: Floats
    default_read: NDArray[np.bool_]
    ids: NDArray[np.int64]

    def latent_only(self) -> Holdout:
        """Return the stars for the latent statistics alone: none counts as read by default."""
        return replace(self, default_read=np.zeros(len(self.values), dtype=bool))

    def joined(self, other: Holdout) -> Holdout:
        """Return these stars and others.

        Parameters
        ----------
        other
            More stars, with the same tokens.
        """
        pairs = zip(vars(self).values(), vars(other).values(), strict=True)
        return Holdout(*(np.concatenate(pair) for pair in pairs))

    def by_parallax(self, vocabulary: Vocabulary) -> NDArray[np.bool_]:
        """Return the tokens (N, V) that are read and made of the parallax.

        Parameters
        ----------
        vocabulary
            Defines the V tokens.
        """
        made_of_it = np.isin(vocabulary.names, PARALLAX_TOKENS)
        return np.asarray(made_of_it & np.isfinite(self.values))

    @property
    def inputs(self) -> StarTokens:
        """The tokens that a run reads, with their published errors."""
        return StarTokens(self.values, self.errors)


def simulated_holdout(
    simulator: Simulator, vocabulary: Vocabulary, n: int, seed: int, *, alike: bool = False
) -> Holdout:
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
    alike
        Read all that the default job reads of each star, and not otherwise of some.
    """
    stars = simulator.draw(n, seed)
    values, errors = (x.cpu().double().numpy() for x in stars.tokens(vocabulary))
    column = {name: stars[name].cpu().double().numpy() for name in ("ebv", "mg", "g_mag")}
    truth = np.full_like(values, np.nan)
    for label in [name for name in LABELS if name in stars.columns and name in vocabulary]:
        truth[:, vocabulary.column(label)] = stars[label].cpu().double().numpy()
    truth[:, vocabulary.column("logebv")] = ln_ebv(column["ebv"])
    truth[:, vocabulary.column("g_fakemag")] = 10.0 ** (0.2 * column["mg"] + 2.0)
    all_default = np.ones(n, dtype=bool)
    stars_read_fully = Holdout(
        values, errors, truth, np.zeros_like(truth), column["g_mag"], all_default, np.arange(n)
    )
    return _as_runs_read(stars_read_fully, vocabulary, seed, alike=alike)


def real_holdout(
    table: StarTable,
    g_mag: NDArray[np.floating],
    vocabulary: Vocabulary,
    seed: int,
    *,
    alike: bool = False,
) -> Holdout:
    """Return real stars of a dataset as runs read them.

    Labels that a run reads as inputs have no truth here, unless they are made of the parallax,
    because these are predicted without it. Of a star without a spectrum a run reads nothing that
    tells its labels: it does not count as read by default.

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
    alike
        As for :func:`simulated_holdout`.
    """
    values, errors = table.values.astype(np.float64), table.errors.astype(np.float64)
    truth = np.full_like(values, np.nan)
    labels = vocabulary.columns(vocabulary.named("label"))
    truth[:, labels] = values[:, labels]
    all_default = np.ones(len(values), dtype=bool)
    stars_read_fully = Holdout(
        values,
        errors,
        truth,
        np.nan_to_num(errors),
        g_mag.astype(np.float64),
        all_default,
        table.ids,
    )
    holdout = _as_runs_read(stars_read_fully, vocabulary, seed, alike=alike)
    known = np.isnan(holdout.values) | holdout.by_parallax(vocabulary)
    spectrum = np.concatenate([vocabulary.coefficient_columns(band) for band in BANDS])
    return replace(
        holdout,
        truth=np.where(known, holdout.truth, np.nan),
        default_read=holdout.default_read & np.isfinite(holdout.values[:, spectrum]).any(axis=1),
    )


def _as_runs_read(stars: Holdout, vocabulary: Vocabulary, seed: int, *, alike: bool) -> Holdout:
    """Keep the tokens that runs read: those of the default job for most stars, or for all."""
    random = np.random.default_rng(seed)
    job, size = Job("default"), len(stars.values)
    otherwise = random.random(size) < (0.0 if alike else OTHERWISE)
    counts = np.full((size, 2), job.coefficients)
    most = max(vocabulary.coefficients(band) for band in BANDS)
    counts[otherwise] = random.integers(5, most + 1, (int(otherwise.sum()), 1))
    alone = otherwise & (random.random(size) < ONE_BAND) & (vocabulary.basis != "canonical")
    counts[alone, random.integers(0, 2, int(alone.sum()))] = 0
    read = np.zeros(stars.values.shape, dtype=bool)
    for place, band in enumerate(BANDS):
        at = vocabulary.coefficient_columns(band)
        read[:, at] = np.arange(len(at)) < counts[:, place : place + 1]
    read[:, vocabulary.columns([name for name in job.inputs if name in vocabulary])] = True
    without = random.random(size) < (0.0 if alike else WITHOUT_AUXILIARY)
    for name in (name for name in AUXILIARY if name in vocabulary):
        column = vocabulary.column(name)
        if name != "bprp":  # a spectrum gives it
            read[without, column] = False
        read[otherwise, column] = random.random(int(otherwise.sum())) < 0.5
    return replace(stars, values=np.where(read, stars.values, np.nan), default_read=~otherwise)
