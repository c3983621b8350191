"""Cuts that select the stars of a dataset, and the reason why each row is left out.

The defaults are those of Zhang, Bu et al. (2026) and of the sample that it
starts from (Leung & Bovy 2024): mass, age and [M/H] known and within the labels' range, ages
up to the age of the universe; good photometry and astrometry; no spectrum with an extreme
coefficient.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from catalogproc.errors import JobError

Mask = NDArray[np.bool_]
Range = tuple[float, float]

YEARS_PER_GYR = 1e9


@dataclass(frozen=True)
class Cuts:
    """Limits of a dataset's stars; they are inclusive, and unknown values pass unless required.

    Attributes
    ----------
    required
        Columns of the contract ``training`` that must be known.
    mass, age, m_h
        Limits of the labels in solar masses, Gyr and dex.
    g, bprp
        Limits in mag.
    distmass_bits
        Rows with any of these bits in DistMass's BITMASK are left out; 2 means "outside the
        training domain of DistMass", and such rows are kept and counted by default.
    spectrum
        Whether a spectrum and a Gaia source_id are required.
    both_bands
        Whether both BP and RP of a spectrum are required.
    ruwe, excess
        Upper limits of ruwe and phot_bp_rp_excess_factor.
    box
        Percentiles: spectra with a coefficient outside of these are left out. None: no limit.
    bad_aspcap
        Bits of ASPCAPFLAG that make the labels of a spectrum unknown; so does any STARFLAG.
    bad_star
        Bits of STARFLAG that exclude the star: neighbours in the fibre.

    The last five apply to surveys; in Leung & Bovy's sets they have been applied already.
    """

    required: tuple[str, ...] = ("mass", "log_age", "m_h")
    mass: Range = (0.3, 8.0)
    age: Range = (0.0, 13.8)
    m_h: Range = (-2.5, 1.0)
    g: Range = (6.0, 17.5)
    bprp: Range = (0.0, 4.0)
    distmass_bits: int = 0
    spectrum: bool = True
    both_bands: bool = True
    ruwe: float = 1.4
    excess: float = 2.0
    box: Range | None = (0.2, 99.8)
    bad_aspcap: tuple[int, ...] = (19, 23)
    bad_star: tuple[int, ...] = (2, 3)

    def to_dict(self) -> dict[str, Any]:
        """Return the cuts by name, for the facts of a dataset."""
        return asdict(self)

    def rejection_reasons(self, rows: Mapping[str, NDArray[Any]]) -> NDArray[np.object_]:
        """Return why each row (N,) is left out, "" where it is kept.

        Parameters
        ----------
        rows
            Columns (N,) of the contract ``training`` by name, and two more: ``spectra``, the
            number of bands of each row, and ``reason``, "" or why it was rejected earlier.
        """
        with np.errstate(over="ignore", invalid="ignore"):
            age = 10.0 ** rows["log_age"].astype(np.float64) / YEARS_PER_GYR
        reasons: list[tuple[str, Mask]] = [
            ("no Gaia source", rows["source_id"] <= (0 if self.spectrum else -np.inf)),
            ("no XP spectrum", self.spectrum & (rows["spectra"] == 0)),
            ("a band of the spectrum is missing", self.both_bands & (rows["spectra"] == 1)),
        ]
        rejected = _first(reasons)
        rejected = np.where(rejected == "", rows["reason"], rejected)
        reasons = [(f"{name} is not known", np.isnan(rows[name])) for name in self.required]
        reasons += [
            _outside("mass", "solar masses", rows["mass"], self.mass),
            _outside("age", "Gyr", age, self.age),
            _outside("[M/H]", "dex", rows["m_h"], self.m_h),
            _outside("G", "mag", rows["phot_g_mean_mag"], self.g),
            _outside("BP - RP", "mag", rows["bprp"], self.bprp),
            ("DistMass's bits", (rows["distmass_bitmask"] & self.distmass_bits) != 0),
        ]
        return np.where(rejected == "", _first(reasons), rejected)

    def with_options(self, options: Sequence[str]) -> Cuts:
        """Return the cuts with some of them changed.

        Parameters
        ----------
        options
            NAME=VALUE each: ``age=0:12``, ``ruwe=1.2``, ``required=mass``, ``box=none``.

        Raises
        ------
        JobError
            An unknown cut, or a value of the wrong form.
        """
        changes: dict[str, Any] = {}
        known = {field.name: field.type for field in fields(self)}
        for option in options:
            name, separator, value = option.partition("=")
            if not separator or name not in known:
                raise JobError(
                    "no such cut", wanted="NAME=VALUE with NAME one of " + ", ".join(known),
                    found=option,
                )  # fmt: skip
            try:
                changes[name] = _parsed(value.strip(), str(known[name]))
            except ValueError:
                raise JobError(
                    "a cut cannot be read", wanted=f"{name}={_EXAMPLES[str(known[name])]}",
                    found=option,
                ) from None  # fmt: skip
        return replace(self, **changes)


_EXAMPLES = {
    "Range": "LOW:HIGH",
    "Range | None": "LOW:HIGH, or none",
    "int": "a number",
    "float": "a number",
    "bool": "yes or no",
    "tuple[int, ...]": "numbers with commas between, or none",
    "tuple[str, ...]": "names with commas between, or none",
}


def _parsed(value: str, kind: str) -> Any:
    if kind.startswith("Range"):
        if value == "none" and kind.endswith("None"):
            return None
        low, separator, high = value.partition(":")
        if not separator:
            raise ValueError(value)
        return (float(low or "-inf"), float(high or "inf"))
    if kind.startswith("tuple"):
        items = [] if value == "none" else [item.strip() for item in value.split(",")]
        return tuple(int(item) if "int" in kind else item for item in items)
    if kind == "bool":
        if value not in ("yes", "no"):
            raise ValueError(value)
        return value == "yes"
    return int(value) if kind == "int" else float(value)


def _outside(name: str, unit: str, values: NDArray[Any], limits: Range) -> tuple[str, Mask]:
    with np.errstate(invalid="ignore"):
        return f"{name} outside {limits[0]:g} to {limits[1]:g} {unit}", (
            (values < limits[0]) | (values > limits[1])
        )


def _first(reasons: Sequence[tuple[str, Mask]]) -> NDArray[np.object_]:
    """Return the first reason (N,) that is true for each row, else ""."""
    first: NDArray[np.object_] = np.full(len(reasons[0][1]), "", dtype=object)
    for reason, rows in reversed(reasons):
        first[rows] = reason
    return first


def has_bits(flags: NDArray[np.integer[Any]], bits: Sequence[int]) -> Mask:
    """Return which flags have any of the bits.

    Parameters
    ----------
    flags
        (N,) integers.
    bits
        Numbers of the bits, 0 is the lowest.

    Returns
    -------
    (N,) boolean.
    """
    return np.asarray((flags & sum(1 << bit for bit in bits)) != 0)
