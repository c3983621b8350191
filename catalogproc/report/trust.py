"""How far a run can be trusted: how many stars are good for what, which flag removes most, and
whether the stars are like those of the model's training."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from catalogproc.errors import plural
from catalogproc.flags import Flag, load_flags
from catalogproc.report.histograms import RANGES, Axis, Counts, Histograms

if TYPE_CHECKING:
    from catalogproc.network.bundle import Bundle

Float = NDArray[np.float64]

FEW_SHARE = 0.2
MIN_GOOD_STARS = 200
"""A sample that is a smaller share of the run than FEW_SHARE, or of fewer stars, gets a banner. Of
fewer stars pictures show the others too, in grey."""

MANY_UNLIKE = 0.05
"""A flag of stars unlike the training that a larger share of the run has gets a banner."""

SHOWN_FLAGS = 6
"""Flags that are listed for each sample."""

PERCENTILES = (0.01, 0.16, 0.5, 0.84, 0.99)

COMPARED = {
    "phot_g_mean_mag": ("G", "mag", ""),
    "bp_rp": ("BP - RP", "mag", "bprp"),
    "n_tokens": ("inputs read", "", ""),
    "ebv": ("E(B-V), predicted", "mag", "logebv"),
    "teff": ("Teff, predicted", "K", "teff"),
    "logg": ("log g, predicted", "dex", "logg"),
    "m_h": ("[M/H], predicted", "dex", "m_h"),
    "mass": ("mass, predicted", "Msun", "mass"),
    "log_age": ("log age, predicted", "dex", "log_age"),
}
"""Column: name, unit, and the token whose range the training has."""

DOMAIN = {
    "G_RANGE": "", "COLOUR_RANGE": "", "FEW_TOKENS": "", "XP_BOX": "0.5 %", "OOD_LATENT": "1 %",
    "SPEC_CHI2": "0.2 %", "NOT_GIANT": "", "EVOL_DOMAIN": "", "LABEL_EDGE": "", "HIGH_EBV": "",
}  # fmt: skip
"""Flags that compare a star with the training, and how many stars of the training have them."""


@dataclass(frozen=True)
class SampleTrust:
    """How many stars are good for a purpose.

    Attributes
    ----------
    purpose, sample
        What they are good for, and the column that selects them.
    good, stars
        Numbers of these stars, and of all.
    removed
        Flags that exclude stars: the flag, the stars with it, and those that it alone excludes;
        the one with most stars first.
    """

    purpose: str
    sample: str
    good: int
    stars: int
    removed: tuple[tuple[Flag, int, int], ...]

    @property
    def few(self) -> bool:
        """Whether a reader must be told at once."""
        return self.good < max(MIN_GOOD_STARS, FEW_SHARE * self.stars)

    @property
    def words(self) -> str:
        """The banner."""
        share = f"{100 * self.good / self.stars:.1f} %" if self.stars else "none"
        text = (
            f"{self.good:,} of {plural(self.stars, 'star')} ({share}) are good for {self.purpose} "
        )
        text += f"({self.sample})."
        if self.removed:
            flag, number, alone = self.removed[0]
            text += f" {flag.name} removes most: {plural(number, 'star')}, {alone:,} of them alone."
        if self.good < MIN_GOOD_STARS:
            text += " Pictures show the other stars too, in grey."
        return text


def samples(stars: Histograms) -> tuple[SampleTrust, ...]:
    """Return how many stars are good for what.

    Parameters
    ----------
    stars
        The histograms of the catalog.
    """
    flags = load_flags()
    return (
        SampleTrust(
            "Teff, log g and [M/H]", "good_params", stars.good_params, stars.stars,
            _removed(stars, flags.good_params, stars.alone_params),
        ),
        SampleTrust(
            "masses and ages", "good_mass_age", stars.good_mass_age, stars.stars,
            _removed(stars, flags.good_mass_age, stars.alone_mass_age),
        ),
    )  # fmt: skip


def _removed(
    stars: Histograms, mask: int, alone: Mapping[str, int]
) -> tuple[tuple[Flag, int, int], ...]:
    found = [
        (flag, stars.flags[flag.name], alone[flag.name])
        for flag in load_flags().flags
        if flag.value & mask and stars.flags[flag.name]
    ]
    return tuple(sorted(found, key=lambda one: (-one[1], -one[2]))[:SHOWN_FLAGS])


@dataclass(frozen=True)
class RangeRow:
    """A quantity of the run's stars beside its range in the training.

    Attributes
    ----------
    name, unit
        Of the quantity.
    run
        The 1st, 16th, 50th, 84th and 99th percentile of the run's stars.
    low, high
        Range of the training stars; NaN where it is not known.
    outside
        Share of the run's stars beyond it; NaN where it is not known.
    """

    name: str
    unit: str
    run: tuple[float, ...]
    low: float
    high: float
    outside: float

    @property
    def scaled(self) -> Float:
        """The percentiles, 0 at the lowest and 1 at the highest value of the training."""
        width = self.high - self.low
        return (np.array(self.run) - self.low) / (width if width > 0 else np.nan)

    def cells(self) -> tuple[str, ...]:
        """Return the row as text: quantity, run, training, share outside."""
        unit = f" [{self.unit}]" if self.unit else ""
        known = np.isfinite(self.low + self.high)
        return (
            f"{self.name}{unit}",
            f"{_number(self.run[0])} to {_number(self.run[-1])}",
            _number(self.run[2]),
            f"{_number(self.low)} to {_number(self.high)}" if known else "not known",
            f"{100 * self.outside:.1f} %" if known else "",
        )


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1_000 else f"{value:.3g}"


def ranges(stars: Histograms, bundle: Bundle | None) -> tuple[RangeRow, ...]:
    """Return the quantities of a run beside their ranges in the training.

    Parameters
    ----------
    stars
        The histograms of the catalog.
    bundle
        The run's model; None where it is not found.
    """
    return tuple(_ranges(stars, bundle))


def _ranges(stars: Histograms, bundle: Bundle | None) -> Iterator[RangeRow]:
    for column, (name, unit, token) in COMPARED.items():
        counts, axis = stars.ranges[column], RANGES[column]
        if not counts.any():
            continue
        cumulative = np.concatenate([[0], np.cumsum(counts)]) / counts.sum()
        run = np.interp(PERCENTILES, cumulative, axis.edges)
        low, high = _training_range(bundle, token)
        outside = _outside(counts, axis, low, high)
        yield RangeRow(name, unit, tuple(float(x) for x in run), low, high, outside)


def _training_range(bundle: Bundle | None, token: str) -> tuple[float, float]:
    if bundle is None or token not in bundle.vocabulary:
        return float("nan"), float("nan")
    column = bundle.vocabulary.column(token)
    low, high = float(bundle.domain.low[column]), float(bundle.domain.high[column])
    return (float(np.exp(low)), float(np.exp(high))) if token == "logebv" else (low, high)


def _outside(counts: Counts, axis: Axis, low: float, high: float) -> float:
    """Share of stars below or above a range, within a bin evenly distributed."""
    if not np.isfinite(low + high):
        return float("nan")
    cumulative = np.concatenate([[0], np.cumsum(counts)]) / counts.sum()
    below, up_to = np.interp((low, high), axis.edges, cumulative)
    return float(1.0 - (up_to - below))


def unlike(stars: Histograms) -> tuple[str, ...]:
    """Return the flags that many more stars of the run have than of the training, in words.

    Parameters
    ----------
    stars
        The histograms of the catalog.
    """
    return tuple(
        f"{name} {share} (training: {expected})"
        for name, _, share, expected in domain_flags(stars)
        if expected and stars.flags[name] > MANY_UNLIKE * stars.stars
    )


def domain_flags(stars: Histograms) -> tuple[tuple[str, str, str, str], ...]:
    """Return flag, number, share and expected share of those that compare with the training.

    Parameters
    ----------
    stars
        The histograms of the catalog.
    """
    known = load_flags()
    return tuple(
        (name, f"{stars.flags[name]:,}", f"{100 * stars.flags[name] / stars.stars:.1f} %", expected)
        for name, expected in DOMAIN.items()
        if any(flag.name == name for flag in known.flags)
    )
