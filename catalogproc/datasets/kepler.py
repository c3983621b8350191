"""Kepler red giants with asteroseismic masses, for training and evaluation on real stars.

1,785 Kepler giants with APOGEE Teff and [M/H], Gaia and 2MASS photometry, and oscillations
(Li et al. 2024; Yu et al. 2018). The table has no XP spectra.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from catalogproc.datasets.benchmark_stars import Benchmark
from catalogproc.datasets.folds import TEST_FOLD, StarNames
from catalogproc.datasets.seismic import read_seismic
from catalogproc.features import astrometry, photometry
from catalogproc.release import load_release
from catalogproc.resources import shipped
from catalogproc.vocabulary import Vocabulary, load_vocabulary

Floats = NDArray[np.float64]
Measured = tuple[Floats, Floats]
"""Values and their 1-sigma errors (N,)."""

FILE = "kepler_red_giants.parquet"

SUN = {"numax": 3090.0, "dnu": 135.1, "teff": 5777.0, "logg": 4.438}
"""Solar values in µHz, µHz, K (Huber et al. 2011) and dex."""

HELD_OUT, SPLIT_SEED = 0.25, 20260303
"""Fraction of the giants that is never trained on, and the seed that selects them."""

INPUTS = ("bprp", "jh", "jk", "teff", "logg", "m_h", "g_fakemag")
"""Tokens of these stars, apart from the mass."""

TMASS_WORST = 1.0
"""Errors in mag that are valid are below this: 2MASS writes negative values or about 10 for
unknown errors."""


def seismic_mass(numax: Measured, dnu: Measured, teff: Measured) -> Measured:
    """Return the asteroseismic mass and its error in solar masses (N,).

    M = numax^3 dnu^-4 Teff^1.5 in solar units (Kjeldsen & Bedding 1995), with the values of
    SUN, without the model-dependent correction of dnu, which would lower the masses of stars on
    the giant branch by 5 to 10 % and hardly change those of helium-burning stars
    (Sharma et al. 2016).

    Parameters
    ----------
    numax
        Frequency of maximum power in µHz, and its error.
    dnu
        Large frequency separation in µHz, and its error.
    teff
        Effective temperature in K, and its error.
    """
    powers = ((numax, SUN["numax"], 3.0), (dnu, SUN["dnu"], -4.0), (teff, SUN["teff"], 1.5))
    mass, relative = np.ones_like(numax[0]), np.zeros_like(numax[0])
    for (value, error), sun, power in powers:
        mass = mass * (value / sun) ** power
        relative = relative + (power * error / value) ** 2
    return mass, mass * np.sqrt(relative)


def kepler_giants(vocabulary: Vocabulary | None = None, path: Path | None = None) -> Benchmark:
    """Return the shipped Kepler giants: tokens INPUTS with errors, and the seismic mass as truth.

    ``ids`` are KIC numbers. Teff, [M/H] and log g are inputs and also part of the truth: Teff
    and [M/H] are APOGEE's, log g follows from numax and Teff. Colours and parallaxes are
    computed by the same functions as in a run.

    Parameters
    ----------
    vocabulary
        Defines the tokens; by default the shipped one.
    path
        The table; by default the shipped one.
    """
    vocabulary = vocabulary or load_vocabulary()
    table = pq.read_table(path or shipped("grids") / FILE)
    tokens = _tokens(table)
    values = np.full((table.num_rows, len(vocabulary)), np.nan)
    errors, truth = values.copy(), values.copy()
    for name, (value, error) in tokens.items():
        column = vocabulary.column(name)
        known = np.isfinite(value)
        values[:, column], errors[:, column] = value, np.where(known, error, np.nan)
    for name in ("teff", "logg", "m_h", "mass"):
        truth[:, vocabulary.column(name)] = tokens[name][0]
    truth_errors = np.where(np.isfinite(truth), errors, np.nan)
    values[:, vocabulary.column("mass")] = errors[:, vocabulary.column("mass")] = np.nan
    return Benchmark(
        name="Kepler red giants, seismic masses",
        real=True,
        ids=table["kic"].to_numpy(),
        values=values,
        errors=errors,
        truth=truth,
        truth_errors=truth_errors,
        vocabulary=vocabulary,
    )


def parts(vocabulary: Vocabulary | None = None) -> tuple[Benchmark, Benchmark]:
    """Return the giants that may be trained on, and those held out, divided by KIC number.

    Parameters
    ----------
    vocabulary
        Defines the tokens; by default the shipped one.
    """
    return kepler_giants(vocabulary).split(HELD_OUT, SPLIT_SEED)


def training_giants(vocabulary: Vocabulary | None = None) -> Benchmark:
    """Return the giants of the first of :func:`parts` that are not in the test fold.

    The test fold is that of datasets/folds.py: such stars may have spectra on which models are
    evaluated.

    Parameters
    ----------
    vocabulary
        Defines the tokens; by default the shipped one.
    """
    giants = parts(vocabulary)[0]
    names = StarNames.concatenate([names_of(giants), read_seismic().names])
    fold = names.folds(names.stars())[: len(giants.ids)]
    return giants.rows(fold != TEST_FOLD)


def names_of(giants: Benchmark) -> StarNames:
    """Return the names (N,) of Kepler giants: KIC numbers.

    Parameters
    ----------
    giants
        N stars of :func:`kepler_giants`.
    """
    size = len(giants.ids)
    return StarNames(
        np.zeros(size, dtype=np.int64),
        pa.nulls(size, pa.string()),
        pa.array([f"KIC {number}" for number in giants.ids]),
        np.zeros(size, dtype=bool),
    )


def gravity_mass(stars: Benchmark, path: Path | None = None) -> Floats:
    """Return the mass (N,) in solar masses as g R^2, from log g, Teff and the table's luminosity.

    This is a baseline: it uses the same inputs and no training.

    Parameters
    ----------
    stars
        Kepler giants.
    path
        The table; by default the shipped one.
    """
    table = pq.read_table(path or shipped("grids") / FILE, columns=["kic", "luminosity"])
    order = np.argsort(table["kic"].to_numpy())
    row = order[np.searchsorted(table["kic"].to_numpy(), stars.ids, sorter=order)]
    luminosity = table["luminosity"].to_numpy()[row]
    logg, teff = (
        stars.values[:, stars.vocabulary.column(name)].astype(np.float64)
        for name in ("logg", "teff")
    )
    radius_squared = luminosity * (SUN["teff"] / teff) ** 4
    return np.asarray(10 ** (logg - SUN["logg"]) * radius_squared)


def _tokens(table: pa.Table) -> dict[str, tuple[Floats, Floats]]:
    """Return values and errors (N,) by token, the mass included."""
    column = {name: table[name].cast(pa.float64()).to_numpy() for name in table.column_names}
    g = column["phot_g_mean_mag"]
    zero_point = astrometry.zero_point(
        g,
        column["nu_eff_used_in_astrometry"],
        column["pseudocolour"],
        column["ecl_lat"],
        column["astrometric_params_solved"],
    )
    j, h, k = (
        (
            photometry.tmass_magnitude(column[f"{band}_m"], good),
            photometry.tmass_magnitude(column[f"{band}_msigcom"], good),
        )
        for band in ("j", "h", "ks")
        for good in [(column[f"{band}_msigcom"] > 0) & (column[f"{band}_msigcom"] < TMASS_WORST)]
    )
    bp_rp = column["phot_bp_mean_mag"] - column["phot_rp_mean_mag"]
    # The table has no flux errors; at these magnitudes the errors of the zero-points are larger.
    flux_over_error = np.full(len(g), np.inf)
    teff, e_teff = column["teff"], column["e_teff"]
    e_logg = np.hypot(column["e_numax"] / column["numax"], 0.5 * e_teff / teff) / np.log(10)
    return {
        "bprp": (bp_rp, photometry.bp_rp_error(flux_over_error, flux_over_error, load_release())),
        "jh": photometry.colour(j[0], h[0], j[1], h[1]),
        "jk": photometry.colour(j[0], k[0], j[1], k[1]),
        "teff": (teff, e_teff),
        "logg": (column["logg"], e_logg),
        "m_h": (column["m_h"], column["e_m_h"]),
        "g_fakemag": astrometry.pseudo_luminosity(
            column["parallax"] - zero_point, column["parallax_error"], g
        ),
        "mass": seismic_mass(
            *((column[name], column[f"e_{name}"]) for name in ("numax", "dnu", "teff"))
        ),
    }
