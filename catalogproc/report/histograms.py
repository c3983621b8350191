"""A catalog of any size, counted into the histograms that the report draws, in one pass."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from catalogproc.contract import load_contract, load_flags

Counts = NDArray[np.int64]
Float = NDArray[np.float64]

SKY_ORDER = 6
FEW = 5_000
"""Up to so many stars are kept one by one, to be drawn as points."""
POINTS = ("teff", "logg", "m_h", "age", "good_params", "good_mass_age")
LEVELS = (0.16, 0.5, 0.84)


@dataclass(frozen=True)
class Axis:
    """Bins of equal width over a range; what lies outside is left out."""

    low: float
    high: float
    bins: int

    @property
    def edges(self) -> Float:
        return np.linspace(self.low, self.high, self.bins + 1)

    @property
    def middles(self) -> Float:
        return 0.5 * (self.edges[1:] + self.edges[:-1])

    def place(self, values: Float) -> Counts:
        """The bin of each value, -1 outside and for NaN."""
        with np.errstate(invalid="ignore"):
            scaled = (values - self.low) * (self.bins / (self.high - self.low))
            inside = (scaled >= 0) & (scaled < self.bins)
        return np.where(inside, np.nan_to_num(scaled, posinf=0, neginf=0), -1).astype(np.int64)


TEFF = Axis(2_500.0, 10_000.0, 300)
LOGG = Axis(-1.0, 6.0, 140)
METALLICITY = Axis(-4.0, 1.5, 110)
MASS = Axis(0.0, 8.0, 320)
AGE = Axis(0.0, 20.0, 160)
MAGNITUDE = Axis(2.0, 22.0, 80)
LOG_ERROR = Axis(-4.0, 5.0, 450)

ERRORS = {
    "e_teff": ("effective temperature", "e_teff [K]"),
    "e_logg": ("log g", "e_logg [dex]"),
    "e_m_h": ("[M/H]", "e_m_h [dex]"),
    "e_mass": ("mass", "e_mass / mass"),
    "e_age": ("age", "e_age / age"),
}
"""What is told of errors, and how it is called; two are divided by their value."""
RELATIVE = {"e_mass": "mass", "e_age": "age"}

COLUMNS = (
    "teff", "logg", "m_h", "mass", "age", *ERRORS, "phot_g_mean_mag",
    "quality_flags", "good_params", "good_mass_age", "_healpix_29",
)  # fmt: skip
"""The columns that are read."""


@dataclass(frozen=True)
class Tally:
    """Counts of stars.

    Attributes
    ----------
    stars, good_params, good_mass_age
        In all, and of them those whose answers may be used.
    kiel, kiel_m_h
        Stars over (Teff, log g) and the sum of their [M/H]; of all stars and, in
        ``kiel_good``, ``kiel_good_m_h``, of those with good_params.
    mass, mass_good, age, age_good
        Over mass and age; all, and good_mass_age.
    age_m_h, age_m_h_good
        Over (age, [M/H]).
    sky
        Stars in each nested HEALPix pixel of order :data:`SKY_ORDER`, ICRS.
    errors
        Of each of :data:`ERRORS` over (G, log10 of the error).
    flags
        Stars that have each bit of quality_flags, by its name.
    points
        The columns :data:`POINTS` of all stars, where they are few; else empty.
    """

    stars: int
    good_params: int
    good_mass_age: int
    kiel: Counts
    kiel_m_h: Float
    kiel_good: Counts
    kiel_good_m_h: Float
    mass: Counts
    mass_good: Counts
    age: Counts
    age_good: Counts
    age_m_h: Counts
    age_m_h_good: Counts
    sky: Counts
    errors: Mapping[str, Counts]
    flags: Mapping[str, int]
    points: Mapping[str, NDArray[Any]]

    @cached_property
    def placed(self) -> int:
        """Stars that have a position."""
        return int(self.sky.sum())


def tally(batches: Iterable[pa.RecordBatch]) -> Tally:
    """Count stars, given in batches with the columns :data:`COLUMNS`."""
    total = _count(_none())
    points = [_points(_none())]
    for batch in batches:
        for name, counted in _count(batch).items():
            total[name] = total[name] + counted
        # Beyond so many none is kept, or memory would grow with the catalog.
        points = [*points, _points(batch)] if int(total["stars"]) <= FEW else [_points(_none())]
    whole = ("stars", "good_params", "good_mass_age")
    flags, errors = total.pop("flags"), total.pop("errors")
    few = {name: np.concatenate([part[name] for part in points]) for name in POINTS}
    counts: dict[str, Any] = {name: int(total.pop(name)) for name in whole} | total
    return Tally(
        **counts,
        flags={
            flag.name: int(count) for flag, count in zip(load_flags().flags, flags, strict=True)
        },
        errors=dict(zip(ERRORS, errors, strict=True)),
        points=few,
    )


def percentiles(counts: Counts, axis: Axis, least: int = 20) -> Float:
    """The 16th, 50th and 84th percentiles (3, N) of N histograms (N, bins) over an axis.

    NaN where a histogram holds fewer than ``least`` stars. Within a bin, stars are taken
    to lie evenly.
    """
    found = np.full((len(LEVELS), len(counts)), np.nan)
    for row in np.flatnonzero(counts.sum(axis=1) >= least):
        summed = np.concatenate([[0], np.cumsum(counts[row])])
        found[:, row] = np.interp(np.array(LEVELS) * summed[-1], summed, axis.edges)
    return found


def _type(name: str) -> pa.DataType:
    return load_contract("catalog")[name].arrow_type


def _points(batch: pa.RecordBatch) -> dict[str, NDArray[Any]]:
    return {name: _numpy(batch.column(name)) for name in POINTS}


def _none() -> pa.RecordBatch:
    """A batch without a star."""
    return pa.RecordBatch.from_arrays(
        [pa.array([], _type(name)) for name in COLUMNS], names=list(COLUMNS)
    )


def _count(batch: pa.RecordBatch) -> dict[str, Any]:
    """What one batch adds to each field of a Tally."""
    values = {name: _numpy(batch.column(name)) for name in COLUMNS}
    good, settled = values["good_params"], values["good_mass_age"]
    m_h = values["m_h"]
    teff, logg = TEFF.place(values["teff"]), LOGG.place(values["logg"])
    mass, age = MASS.place(values["mass"]), AGE.place(values["age"])
    metal, g = METALLICITY.place(m_h), MAGNITUDE.place(values["phot_g_mean_mag"])
    known = np.isfinite(m_h)
    kiel = (teff, logg)
    shape = (TEFF.bins, LOGG.bins)
    pixel = values["_healpix_29"] >> 2 * (29 - SKY_ORDER)
    return {
        "stars": np.array(len(m_h)),
        "good_params": np.count_nonzero(good),
        "good_mass_age": np.count_nonzero(settled),
        "kiel": _grid(kiel, shape, known),
        "kiel_m_h": _grid(kiel, shape, known, m_h),
        "kiel_good": _grid(kiel, shape, known & good),
        "kiel_good_m_h": _grid(kiel, shape, known & good, m_h),
        "mass": _grid((mass,), (MASS.bins,)),
        "mass_good": _grid((mass,), (MASS.bins,), settled),
        "age": _grid((age,), (AGE.bins,)),
        "age_good": _grid((age,), (AGE.bins,), settled),
        "age_m_h": _grid((age, metal), (AGE.bins, METALLICITY.bins)),
        "age_m_h_good": _grid((age, metal), (AGE.bins, METALLICITY.bins), settled),
        "sky": _grid((pixel,), (12 << 2 * SKY_ORDER,)),
        "errors": np.stack([_errors(name, values, g) for name in ERRORS]),
        "flags": np.array(
            [np.count_nonzero(values["quality_flags"] & flag.value) for flag in load_flags().flags]
        ),
    }


def _errors(name: str, values: Mapping[str, NDArray[Any]], g: Counts) -> Counts:
    error = values[name].astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        if name in RELATIVE:
            error = error / values[RELATIVE[name]].astype(np.float64)
        place = LOG_ERROR.place(np.log10(np.where(error > 0, error, np.nan)))
    counted: Counts = _grid((g, place), (MAGNITUDE.bins, LOG_ERROR.bins))
    return counted


def _grid(
    places: tuple[NDArray[np.int64], ...],
    shape: tuple[int, ...],
    chosen: NDArray[np.bool_] | None = None,
    weights: Float | None = None,
) -> NDArray[Any]:
    """A histogram over one or two axes of the stars that lie inside all of them."""
    inside = np.logical_and.reduce([place >= 0 for place in places])
    if chosen is not None:
        inside &= chosen
    flat = np.ravel_multi_index(tuple(place[inside] for place in places), shape)
    weighed = None if weights is None else weights[inside]
    return np.bincount(flat, weighed, minlength=int(np.prod(shape))).reshape(shape)


def _numpy(column: pa.Array) -> NDArray[Any]:
    array: NDArray[Any] = column.to_numpy(zero_copy_only=False)
    return array.astype(np.float64) if array.dtype.kind == "f" else array
