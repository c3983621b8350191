"""Age distributions of samples of real giants, found by ``population``, beside the true ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from catalogproc.errors import JobError
from catalogproc.evaluation.population import Population, population
from catalogproc.flags import load_flags
from catalogproc.network.bundle import Bundle

Floats = NDArray[np.float64]

EDGES = (0.0, 2.0, 4.0, 7.0, 14.0)
"""Edges of the bins of age, Gyr."""

KEPT: Mapping[str, Callable[[Floats], Floats]] = {
    "all": np.ones_like,
    "younger": lambda age: np.minimum(1.0, 2.0 / age),
    "older": lambda age: np.minimum(1.0, age / 9.0),
}
"""Samples, by the probability that a star of some age (N,), Gyr, is in it."""

SEED = 20_261_129
"""Seed of the choice of stars."""

FAINTEST = 15.0
"""G of the faintest stars of the sample: labelled ones end there."""

WHERE = f"phot_g_mean_mag < {FAINTEST:g} and has_tmass"
"""Condition on the stars of the sample and of the prior."""


@dataclass(frozen=True, eq=False)
class KnownPopulation:
    """A sample whose ages are known.

    Attributes
    ----------
    sample
        Key of KEPT.
    true
        Fractions (K,) of true ages in the bins of EDGES.
    found
        What the predictions tell.
    """

    sample: str
    true: Floats
    found: Population


def known_populations(
    catalog: pa.Table, true_log_age: Floats, bundle: Bundle
) -> tuple[KnownPopulation, ...]:
    """Return the age distributions of a sample and of younger and older parts of it.

    Parameters
    ----------
    catalog
        Rows of the contract catalog, of N stars.
    true_log_age
        log10 of the true ages (N,) in years; stars without one are left out.
    bundle
        The model that predicted them.

    Returns
    -------
    None of them if the model has no prior, or if it or the sample has too few stars.
    """
    if bundle.prior() is None:
        return ()
    tmass = (catalog["quality_flags"].to_numpy() & load_flags().mask("NO_TMASS")) == 0
    table = catalog.select(["log_age", "e_log_age", "phot_g_mean_mag"])
    table = table.append_column("has_tmass", pa.array(tmass))
    age = 10.0 ** (true_log_age - 9.0)
    known = np.isfinite(catalog["log_age"].to_numpy()) & (age > EDGES[0]) & (age < EDGES[-1])
    known &= tmass & (catalog["phot_g_mean_mag"].to_numpy() < FAINTEST)
    random, made = np.random.default_rng(SEED), []
    for sample, share in KEPT.items():
        kept = known & (random.random(len(age)) < share(age))
        try:
            found = population(table.filter(pa.array(kept)), EDGES, model=bundle.path, where=WHERE)
        except JobError:  # too few stars in the prior, or none in the sample
            return ()
        made.append(KnownPopulation(sample, np.histogram(age[kept], EDGES)[0] / kept.sum(), found))
    return tuple(made)
