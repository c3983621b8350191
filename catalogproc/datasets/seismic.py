"""Masses, ages and stages of red giants from asteroseismology; ages of Hasselquist et al. (2020).

Several papers have measured the same stars; a star takes each quantity from the first paper of
SOURCES that has it. Papers must agree on the stage. grids/README.md names the papers.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from catalogproc.datasets.folds import StarNames
from catalogproc.resources import shipped

Floats = NDArray[np.float64]

SEISMIC, HASSELQUIST = "seismic_labels.parquet", "hasselquist_ages.parquet"

SOURCES = (
    "APO-K2",
    "APO-K2 ages RGB",
    "APO-K2 ages low [Fe/H]",
    "APOKASC-2 RGB (Warfield+24)",
    "Miglio+21",
    "Montalban+21",
    "CoRoGEE (Anders+17)",
    "APOKASC-2 (astroNN_ages)",
    "K2-GALAH (Zinn+22; mass StarHorse)",
    "APO-K2 ages RC",
)
"""Papers by preference. Ages of clump stars in APO-K2 come last: they ignore mass loss."""

AGE = (0.3, 14.0)
"""Limits in Gyr: the papers' ages reach 70 Gyr, and are clipped."""

MASS_FLOOR, AGE_FLOOR = 0.038, 0.11
"""Smallest relative errors: systematic ones of asteroseismology (Pinsonneault et al. 2025)."""

WORST_LOG_AGE = 0.5
"""Largest error of log age in dex: ages between 0.3 and 14 Gyr scatter by no more."""

AGES_AS_IF_CLUMP = "APO-K2 ages RC"
"""Its ``ev`` says for which stage the ages were computed and not what the stars are: APO-K2 has
1,587 of its 1,850 stars on the giant branch, and "APO-K2 ages RGB" has these too."""

AGREED = ("rc_prob",)
"""A star has these only if all papers that have it say the same."""

ATMOSPHERE = ("teff", "logg", "m_h", "alpha_m")
"""Labels of APOGEE from which the teacher predicts; m_h is [Fe/H]."""


@dataclass(frozen=True, eq=False)
class SeismicTable:
    """R rows, one a star and paper.

    Attributes
    ----------
    names
        Names of the rows.
    source
        (R,) the papers, one of SOURCES.
    values, errors
        (R,) by name: ATMOSPHERE, ``mass`` in solar masses, ``log_age`` in dex of years,
        ``rc_prob``: 1 in the red clump, 0 on the giant branch; NaN where unknown.
    """

    names: StarNames
    source: NDArray[np.object_]
    values: dict[str, Floats]
    errors: dict[str, Floats]

    def by_star(self, stars: NDArray[np.int64], count: int) -> SeismicStars:
        """Merge the rows of each star.

        Parameters
        ----------
        stars
            (R,) number of the star of each row.
        count
            Number S of stars.
        """
        rank = np.array([SOURCES.index(name) for name in self.source])
        order = np.lexsort((rank, stars))
        merged = SeismicStars({}, {}, {})
        for name, value in self.values.items():
            known = order[np.isfinite(value[order])]
            if name in AGREED:
                known = known[~_disagree(stars, value)[stars[known]]]
            star, first = np.unique(stars[known], return_index=True)
            row = known[first]
            for store, given in ((merged.values, value), (merged.errors, self.errors[name])):
                store[name] = np.full(count, np.nan)
                store[name][star] = given[row]
            merged.source[name] = np.full(count, None, dtype=object)
            merged.source[name][star] = self.source[row]
        return merged


@dataclass(frozen=True, eq=False)
class SeismicStars:
    """Values, errors and papers (S,) of each quantity of S stars, NaN and None where unknown."""

    values: dict[str, Floats]
    errors: dict[str, Floats]
    source: dict[str, NDArray[np.object_]]


def read_seismic() -> SeismicTable:
    """Read the shipped table of seismic masses and ages."""
    table = pq.read_table(shipped("grids") / SEISMIC)
    column = {
        field.name: table[field.name].to_numpy().astype(np.float64)
        for field in table.schema
        if pa.types.is_floating(field.type)
    }
    mass, e_mass = column["mass"], _half_width(column["mass_lo"], column["mass_hi"])
    e_mass = np.maximum(np.nan_to_num(e_mass), MASS_FLOOR * mass)
    values = {name: column[name] for name in ("teff", "logg", "alpha_m")}
    values |= {"m_h": np.where(np.isfinite(column["fe_h"]), column["fe_h"], column["m_h"])}
    values |= {"mass": mass, "log_age": log_age(column["age"]), "rc_prob": _in_clump(table)}
    errors = {name: np.full(len(table), np.nan) for name in ATMOSPHERE}
    errors["mass"] = e_mass
    errors["rc_prob"] = np.where(np.isfinite(values["rc_prob"]), 0.0, np.nan)
    errors["log_age"] = _log_age_error(column["age"], column["age_lo"], column["age_hi"])
    return SeismicTable(_names(table, "star"), _objects(table["source"]), values, errors)


def read_hasselquist() -> tuple[StarNames, dict[str, Floats]]:
    """Read the shipped ages of Hasselquist et al. (2020) for stars of the library.

    Returns
    -------
    names
        Names of the rows.
    columns
        ``log_age`` and ``e_log_age`` (R,) in dex of years.
    """
    table = pq.read_table(shipped("grids") / HASSELQUIST)
    columns = {name: table[name].to_numpy().astype(np.float64) for name in ("log_age", "e_log_age")}
    limits = np.log10(AGE) + 9.0
    columns["log_age"] = np.clip(columns["log_age"], *limits)
    return _names(table, None), columns


def log_age(age: Floats) -> Floats:
    """Return log10 of ages in years (N,), clipped to AGE.

    Parameters
    ----------
    age
        (N,) in Gyr.
    """
    return np.asarray(np.log10(np.clip(age, *AGE)) + 9.0)


def _log_age_error(age: Floats, low: Floats, high: Floats) -> Floats:
    """Return the error of log age in dex from lengths of error bars in Gyr."""
    with np.errstate(divide="ignore", invalid="ignore"):
        up = np.where(high > 0, np.log10((age + high) / age), np.nan)
        down = np.where((low > 0) & (low < age), np.log10(age / (age - low)), np.nan)
    error = _half_width(down, up)
    floor = np.log10(1 + AGE_FLOOR)
    return np.where(np.isfinite(age), np.clip(np.nan_to_num(error), floor, WORST_LOG_AGE), np.nan)


def _in_clump(table: pa.Table) -> Floats:
    """Return 1 for rows (R,) of the red clump, 0 for the giant branch, NaN where it is not said."""
    stage = {"RC": 1.0, "RGB": 0.0}
    value = np.array([stage.get(said, np.nan) for said in table["ev"].to_pylist()])
    return np.where(_objects(table["source"]) == AGES_AS_IF_CLUMP, np.nan, value)


def _disagree(stars: NDArray[np.int64], value: Floats) -> NDArray[np.bool_]:
    """Return which stars (S,) have different values (R,) in their rows."""
    known = np.isfinite(value)
    low, high = np.full((2, int(stars.max(initial=-1)) + 1), np.nan)
    np.fmin.at(low, stars[known], value[known])
    np.fmax.at(high, stars[known], value[known])
    return np.asarray(high > low)


def _half_width(low: Floats, high: Floats) -> Floats:
    """Return the mean of two error bars, or the one that is a positive length."""
    bars = np.stack([low, high])
    bars = np.where(bars > 0, bars, np.nan)
    count = np.isfinite(bars).sum(axis=0)
    return np.asarray(np.where(count > 0, np.nansum(bars, axis=0) / np.maximum(count, 1), np.nan))


def _names(table: pa.Table, name: str | None) -> StarNames:
    size = len(table)
    return StarNames(
        pc.fill_null(table["source_id"], 0).to_numpy(),
        table["apogee_id"].combine_chunks().cast(pa.string()),
        table[name].combine_chunks().cast(pa.string()) if name else pa.nulls(size, pa.string()),
        table["test"].to_numpy(),
    )


def _objects(column: pa.ChunkedArray) -> NDArray[np.object_]:
    return np.asarray(column.to_pylist(), dtype=object)
