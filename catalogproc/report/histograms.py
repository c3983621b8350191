"""Histograms of a catalog for the report, filled in one pass in bounded memory."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from catalogproc.contract import load_contract
from catalogproc.flags import FlagSet, load_flags, load_input_flags
from catalogproc.rundir.receipts import Receipt

Counts = NDArray[np.int64]
Float = NDArray[np.float64]

SKY_ORDER = 6
"""HEALPix order of the sky map."""
ID_SMALLEST, ID_SHIFT = 1 << 32, 35
"""The smallest source_id of Gaia, and the bits below its HEALPix pixel of order 12."""
MAX_POINTS = 5_000
"""Catalogs of up to so many stars are drawn star by star."""
POINT_COLUMNS = (
    "teff", "logg", "m_h", "age", "alpha_m", "rc_prob", "good_params", "good_mass_age",
)  # fmt: skip
QUANTILES = (0.16, 0.5, 0.84)
MAX_TIME_BINS = 80


@dataclass(frozen=True)
class Axis:
    """Bins of equal width over a range; values outside of it are not counted."""

    low: float
    high: float
    bins: int

    @property
    def edges(self) -> Float:
        return np.linspace(self.low, self.high, self.bins + 1)

    @property
    def centres(self) -> Float:
        return 0.5 * (self.edges[1:] + self.edges[:-1])

    def bin_of(self, values: Float) -> Counts:
        """Return the bin of each value; -1 outside of the range and for NaN.

        Parameters
        ----------
        values
            (N,), in the unit of the axis.
        """
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

UNCERTAINTIES = {
    "e_teff": ("Teff", "e_teff [K]"),
    "e_logg": ("log g", "e_logg [dex]"),
    "e_m_h": ("[M/H]", "e_m_h [dex]"),
    "e_mass": ("mass", "e_mass / mass"),
    "e_age": ("age", "e_age / age"),
}
"""Column: (name of the quantity, label of the axis)."""
RELATIVE_TO = {"e_mass": "mass", "e_age": "age"}

RANGES = {
    "phot_g_mean_mag": Axis(2.0, 22.0, 400),
    "bp_rp": Axis(-1.0, 7.0, 400),
    "n_tokens": Axis(0.0, 200.0, 200),
    "ebv": Axis(0.0, 5.0, 500),
    "teff": Axis(2_500.0, 22_500.0, 1_000),
    "logg": Axis(-1.0, 6.0, 350),
    "m_h": Axis(-4.0, 1.5, 275),
    "mass": Axis(0.0, 8.0, 320),
    "log_age": Axis(7.0, 11.0, 400),
}
"""Columns that are compared with the model's training; outermost bins count all beyond them."""
MOST_BINS = max(axis.bins for axis in RANGES.values())

COLUMNS = (
    "teff", "logg", "m_h", "mass", "age", *UNCERTAINTIES, "phot_g_mean_mag",
    "quality_flags", "input_flags", "good_params", "good_mass_age", "_healpix_29", "bp_rp",
    "n_tokens", "ebv", "log_age", "source_id", "alpha_m", "rc_prob",
)  # fmt: skip
"""The columns of the catalog that are read."""


@dataclass(frozen=True)
class Histograms:
    """Numbers of stars.

    Attributes
    ----------
    stars, good_params, good_mass_age
        Of all stars, and of those in either sample.
    kiel, kiel_m_h
        Stars in cells of (Teff, log g), and the sum of their [M/H]; ``kiel_good`` and
        ``kiel_good_m_h`` for good_params only; ``kiel_rc`` and ``kiel_rc_prob`` for those of
        them with a probability of the red clump, and its sum.
    mass, mass_good, age, age_good
        In bins of mass and of age; all stars, and good_mass_age.
    age_m_h, age_m_h_good
        In cells of (age, [M/H]).
    sky
        In each nested HEALPix pixel of order :data:`SKY_ORDER`, ICRS. Where no position was
        given, that of the pixel in the source_id; ``sky_by_id`` counts these stars.
    uncertainties
        For each of :data:`UNCERTAINTIES`, in cells of (G, log10 of the uncertainty).
    ranges
        For each of :data:`RANGES`, in bins of its axis.
    flags
        Stars with each bit of quality_flags, by its name; ``input_flags`` likewise.
    alone_params, alone_mass_age
        Stars that each flag alone excludes from good_params and from good_mass_age.
    points
        The columns :data:`POINT_COLUMNS` of all stars if there are at most
        :data:`MAX_POINTS`, else empty arrays.
    """

    stars: int
    good_params: int
    good_mass_age: int
    kiel: Counts
    kiel_m_h: Float
    kiel_good: Counts
    kiel_good_m_h: Float
    kiel_rc: Counts
    kiel_rc_prob: Float
    mass: Counts
    mass_good: Counts
    age: Counts
    age_good: Counts
    age_m_h: Counts
    age_m_h_good: Counts
    sky: Counts
    sky_by_id: int
    uncertainties: Mapping[str, Counts]
    ranges: Mapping[str, Counts]
    flags: Mapping[str, int]
    alone_params: Mapping[str, int]
    alone_mass_age: Mapping[str, int]
    input_flags: Mapping[str, int]
    points: Mapping[str, NDArray[Any]]

    @cached_property
    def with_position(self) -> int:
        """Number of stars that have a position."""
        return int(self.sky.sum())

    @property
    def with_rc_prob(self) -> int:
        """Number of stars with good_params that have a probability of the red clump."""
        return int(self.kiel_rc.sum())


def count_stars(batches: Iterable[pa.RecordBatch]) -> Histograms:
    """Count the stars of a catalog.

    Parameters
    ----------
    batches
        Rows with the columns :data:`COLUMNS`.
    """
    total = _count(_empty_batch())
    points = [_points(_empty_batch())]
    for batch in batches:
        for name, counts in _count(batch).items():
            total[name] = total[name] + counts
        # Beyond the limit none is kept, or memory would grow with the catalog.
        few = int(total["stars"]) <= MAX_POINTS
        points = [*points, _points(batch)] if few else [_points(_empty_batch())]
    uncertainties, ranges = total.pop("uncertainties"), total.pop("ranges")
    flags, facts = total.pop("flags"), total.pop("input_flags")
    alone = {name: total.pop(name) for name in ("alone_params", "alone_mass_age")}
    scalars = ("stars", "good_params", "good_mass_age", "sky_by_id")
    fields: dict[str, Any] = {name: int(total.pop(name)) for name in scalars} | total
    return Histograms(
        **fields,
        flags=_by_name(load_flags(), flags),
        ranges={n: row[: a.bins] for (n, a), row in zip(RANGES.items(), ranges, strict=True)},
        alone_params=_by_name(load_flags(), alone["alone_params"]),
        alone_mass_age=_by_name(load_flags(), alone["alone_mass_age"]),
        input_flags=_by_name(load_input_flags(), facts),
        uncertainties=dict(zip(UNCERTAINTIES, uncertainties, strict=True)),
        points={name: np.concatenate([part[name] for part in points]) for name in POINT_COLUMNS},
    )


def percentiles(counts: Counts, axis: Axis, min_stars: int = 20) -> Float:
    """Return the 16th, 50th and 84th percentiles (3, N) of N histograms.

    Parameters
    ----------
    counts
        The histograms (N, bins); within a bin stars are taken as evenly distributed.
    axis
        Their bins.
    min_stars
        Histograms with fewer stars give NaN.
    """
    result = np.full((len(QUANTILES), len(counts)), np.nan)
    for row in np.flatnonzero(counts.sum(axis=1) >= min_stars):
        cumulative = np.concatenate([[0], np.cumsum(counts[row])])
        result[:, row] = np.interp(np.array(QUANTILES) * cumulative[-1], cumulative, axis.edges)
    return result


def _type(name: str) -> pa.DataType:
    return load_contract("catalog")[name].arrow_type


def _points(batch: pa.RecordBatch) -> dict[str, NDArray[Any]]:
    return {name: _numpy(batch.column(name)) for name in POINT_COLUMNS}


def _empty_batch() -> pa.RecordBatch:
    return pa.RecordBatch.from_arrays(
        [pa.array([], _type(name)) for name in COLUMNS], names=list(COLUMNS)
    )


def _count(batch: pa.RecordBatch) -> dict[str, Any]:
    """Return what one batch adds to each field of Histograms."""
    values = {name: _numpy(batch.column(name)) for name in COLUMNS}
    good_params, good_mass_age = values["good_params"], values["good_mass_age"]
    m_h = values["m_h"]
    teff, logg = TEFF.bin_of(values["teff"]), LOGG.bin_of(values["logg"])
    mass, age = MASS.bin_of(values["mass"]), AGE.bin_of(values["age"])
    metal, g = METALLICITY.bin_of(m_h), MAGNITUDE.bin_of(values["phot_g_mean_mag"])
    known = np.isfinite(m_h)
    kiel = (teff, logg)
    shape = (TEFF.bins, LOGG.bins)
    pixel, by_id = _sky_pixels(values["_healpix_29"], values["source_id"])
    clump = known & good_params & np.isfinite(values["rc_prob"])
    return {
        "stars": np.array(len(m_h)),
        "good_params": np.count_nonzero(good_params),
        "good_mass_age": np.count_nonzero(good_mass_age),
        "kiel": _grid(kiel, shape, known),
        "kiel_m_h": _grid(kiel, shape, known, m_h),
        "kiel_good": _grid(kiel, shape, known & good_params),
        "kiel_good_m_h": _grid(kiel, shape, known & good_params, m_h),
        "kiel_rc": _grid(kiel, shape, clump),
        "kiel_rc_prob": _grid(kiel, shape, clump, values["rc_prob"]),
        "mass": _grid((mass,), (MASS.bins,)),
        "mass_good": _grid((mass,), (MASS.bins,), good_mass_age),
        "age": _grid((age,), (AGE.bins,)),
        "age_good": _grid((age,), (AGE.bins,), good_mass_age),
        "age_m_h": _grid((age, metal), (AGE.bins, METALLICITY.bins)),
        "age_m_h_good": _grid((age, metal), (AGE.bins, METALLICITY.bins), good_mass_age),
        "sky": _grid((pixel,), (12 << 2 * SKY_ORDER,)),
        "sky_by_id": np.count_nonzero(by_id),
        "uncertainties": np.stack([_uncertainties(name, values, g) for name in UNCERTAINTIES]),
        "ranges": np.array([_clipped(values[name], axis) for name, axis in RANGES.items()]),
        "flags": _bits(load_flags(), values["quality_flags"]),
        "alone_params": _alone(values["quality_flags"], load_flags().good_params),
        "alone_mass_age": _alone(values["quality_flags"], load_flags().good_mass_age),
        "input_flags": _bits(load_input_flags(), values["input_flags"]),
    }


def _sky_pixels(
    healpix_29: NDArray[np.int64], source_id: NDArray[np.int64]
) -> tuple[Counts, NDArray[np.bool_]]:
    """Return the pixel of each star, -1 without any, and for which stars it is the source_id's.

    A Gaia source_id is the nested pixel of order 12 times 2^35 and more; the smallest is above
    2^32. Smaller numbers are somebody's own.
    """
    by_id = (healpix_29 < 0) & (source_id >= ID_SMALLEST) & (source_id < 12 << ID_SHIFT + 24)
    own = healpix_29 >> 2 * (29 - SKY_ORDER)
    return np.where(by_id, source_id >> ID_SHIFT + 2 * (12 - SKY_ORDER), own), by_id


def _bits(declared: FlagSet, values: NDArray[Any]) -> Counts:
    """Return the number of stars with each bit of a column of flags."""
    return np.array([np.count_nonzero(values & flag.value) for flag in declared.flags])


def _alone(values: NDArray[Any], mask: int) -> Counts:
    """Return the number of stars for which each flag is the only one of a mask."""
    found = values & mask
    return np.array([np.count_nonzero(found == flag.value) for flag in load_flags().flags])


def _clipped(values: NDArray[Any], axis: Axis) -> Counts:
    """Return a histogram (MOST_BINS,) whose outermost bins count all that is beyond them."""
    known = values[np.isfinite(values)].astype(np.float64)
    place = ((known - axis.low) * (axis.bins / (axis.high - axis.low))).astype(np.int64)
    return np.bincount(np.clip(place, 0, axis.bins - 1), minlength=MOST_BINS)


def _by_name(declared: FlagSet, counts: Counts) -> dict[str, int]:
    return {flag.name: int(n) for flag, n in zip(declared.flags, counts, strict=True)}


def _uncertainties(name: str, values: Mapping[str, NDArray[Any]], g: Counts) -> Counts:
    """Return the histogram of one uncertainty over (G, log10)."""
    sigma = values[name].astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        if name in RELATIVE_TO:
            sigma = sigma / values[RELATIVE_TO[name]].astype(np.float64)
        log_sigma = LOG_ERROR.bin_of(np.log10(np.where(sigma > 0, sigma, np.nan)))
    counts: Counts = _grid((g, log_sigma), (MAGNITUDE.bins, LOG_ERROR.bins))
    return counts


def _grid(
    bins: tuple[NDArray[np.int64], ...],
    shape: tuple[int, ...],
    selected: NDArray[np.bool_] | None = None,
    weights: Float | None = None,
) -> NDArray[Any]:
    """Return a histogram over one or two axes; a star outside of either is not counted."""
    inside = np.logical_and.reduce([index >= 0 for index in bins])
    if selected is not None:
        inside &= selected
    flat = np.ravel_multi_index(tuple(index[inside] for index in bins), shape)
    inside_weights = None if weights is None else weights[inside]
    return np.bincount(flat, inside_weights, minlength=int(np.prod(shape))).reshape(shape)


def _numpy(column: pa.Array) -> NDArray[Any]:
    array: NDArray[Any] = column.to_numpy(zero_copy_only=False)
    return array.astype(np.float64) if array.dtype.kind == "f" else array


@dataclass(frozen=True)
class Throughput:
    """Speed of a run over the time in which at least one chunk was being processed.

    Attributes
    ----------
    seconds
        Edges of the time bins (N + 1,).
    rate
        Stars per second in each bin (N,).
    breaks
        Seconds at which the run had been interrupted and was resumed.
    """

    seconds: Float
    rate: Float
    breaks: tuple[float, ...]


def measure_throughput(receipts: Sequence[Receipt]) -> Throughput:
    """Return the speed of a run.

    Parameters
    ----------
    receipts
        Of the finished chunks; each chunk's rows are taken as evenly spread over its time.
    """
    if not receipts:
        return Throughput(np.array([0.0, 1.0]), np.zeros(1), ())
    start = np.array([datetime.fromisoformat(r.started).timestamp() for r in receipts])
    duration = np.maximum(np.array([r.seconds for r in receipts]), 1e-3)
    rows = np.array([r.rows_read for r in receipts], dtype=np.float64)
    order = np.argsort(start)
    start, stop, rows = start[order], (start + duration)[order], rows[order]
    latest_stop = np.maximum.accumulate(stop)
    # The time between the end of all earlier chunks and the start of the next is idle.
    idle = np.concatenate([[0.0], np.maximum(start[1:] - latest_stop[:-1], 0.0)])
    removed = np.cumsum(idle) + start[0]
    start, stop = start - removed, stop - removed
    edges = np.linspace(0.0, stop.max(), min(MAX_TIME_BINS, max(4, 4 * len(rows))) + 1)
    # Rows finished until each edge, summed over chunks: each rises evenly from 0 to its rows.
    done = np.zeros(len(edges))
    for a, b, count in zip(start, stop, rows, strict=True):
        done += count * np.clip((edges - a) / (b - a), 0.0, 1.0)
    breaks = tuple(float(moment) for moment in start[idle > 1.0])
    return Throughput(edges, np.diff(done) / np.diff(edges), breaks)
