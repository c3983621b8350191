"""Conversion from the units that files state to those that are wanted."""

from __future__ import annotations

import re
import warnings
from functools import cache
from typing import Any

import numpy as np

from catalogproc.errors import InputError

COUNTED = ("electron", "ct", "count", "photon", "ph", "adu")
"""Units of what is counted: a flux per second is stated with any of these, or with none."""

_DIALECTS = (None, "cds", "vounit", "fits")


@cache
def conversion(stated: str, wanted: str, logarithm: str = "") -> tuple[float, float] | None:
    """Return (a, b) with wanted = a stated + b.

    Parameters
    ----------
    stated
        A unit as files state it; "" counts as the wanted one.
    wanted
        A unit of Astropy, "dex", or "" for a pure number.
    logarithm
        The unit of a logarithm, such as "dex(cm / s2)", where "dex" is wanted.

    Returns
    -------
    (float, float) or None
        None where the unit cannot be converted, or no standard has it.
    """
    if not stated.strip() or stated in (wanted, logarithm):
        return 1.0, 0.0
    from astropy import units

    found = _parsed(stated)
    if found is None:
        return None
    try:
        if wanted not in ("", "dex"):
            return float(_without_counts(found).to(_without_counts(units.Unit(wanted)))), 0.0
        if found in (units.dex, units.dimensionless_unscaled):
            return 1.0, 0.0
        if wanted == "dex" and isinstance(found, units.DexUnit) and logarithm:
            inner = units.Unit(logarithm).physical_unit
            return 1.0, float(np.log10(found.physical_unit.to(inner)))
        if wanted == "" and not isinstance(found, units.function.FunctionUnitBase):
            return float(_without_counts(found).to(units.dimensionless_unscaled)), 0.0
    except (units.UnitConversionError, units.UnitTypeError):
        pass
    return None


def unit_factor(stated: str, wanted: str, where: object) -> float | None:
    """Return the factor from a stated unit to the wanted one.

    Parameters
    ----------
    stated
        The unit that the file states; empty where it states none.
    wanted
        The unit of the contract; empty where the contract has none.
    where
        The file and column, for the message.

    Returns
    -------
    float or None
        None where the file states no unit: then the contract's is to be assumed.

    Raises
    ------
    InputError
        The unit cannot be converted.
    """
    if not stated.strip():
        return None
    found = conversion(stated, wanted)
    if found is None:
        raise InputError(
            "a column has a unit that cannot be converted",
            wanted=wanted or "a number without a unit",
            found=stated,
            where=where,
            advice="convert the column, or correct the unit that the file states",
        )
    return found[0]


def _parsed(text: str) -> Any:
    """A unit of Astropy, in the dialects of the archives; None where it is none."""
    from astropy import units

    # Gaia's VOTables quote 'electron'; logarithms are log(x), log.x or [x].
    plain = text.strip().replace("'", "")
    logarithm = re.fullmatch(r"\[(.+)\]|log(?:10)?(?:\((.+)\)|\.(.+))", plain)
    if logarithm:
        plain = f"dex({next(filter(None, logarithm.groups()))})"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for dialect in _DIALECTS:
            try:
                return units.Unit(plain, format=dialect)
            except (ValueError, TypeError):
                continue
    return None


def _without_counts(unit: Any) -> Any:
    """The unit with what is counted left out: electron / s is 1 / s."""
    from astropy.units import CompositeUnit

    if not hasattr(unit, "bases"):  # a logarithmic unit such as mag(AB)
        return unit
    kept = [
        (base, power)
        for base, power in zip(unit.bases, unit.powers, strict=True)
        if base.name not in COUNTED
    ]
    return CompositeUnit(unit.scale, [base for base, _ in kept], [power for _, power in kept])
