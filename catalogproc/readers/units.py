"""Conversion from the units that a file states to those of our contracts."""

from __future__ import annotations

from functools import cache
from typing import Any

from catalogproc.errors import InputError

_COUNTS = ("electron", "ct", "count", "photon", "ph", "adu")
"""Units of what is counted: a flux per second is stated with any of these, or with none."""

_FORMATS = (None, "vounit", "fits", "cds")


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
        None where the file states no unit, or none that any standard knows: then the
        contract's unit is to be assumed.

    Raises
    ------
    InputError
        The unit cannot be converted.
    """
    if not stated or stated == wanted:
        return 1.0 if stated else None
    factor = _factor(stated, wanted)
    if isinstance(factor, str):
        raise InputError(
            "a column has a unit that cannot be converted",
            wanted=wanted or "a number without a unit",
            found=stated,
            where=where,
            advice="convert the column, or correct the unit that the file states",
        )
    return factor


@cache
def _factor(stated: str, wanted: str) -> float | str | None:
    """The factor; None for an unknown unit; a word where there is no conversion."""
    from astropy.units import UnitConversionError, UnitTypeError

    found, target = _parsed(stated), _parsed(wanted)
    if found is None or target is None:
        return None
    try:
        return float(_without_counts(found).to(_without_counts(target)))
    except (UnitConversionError, UnitTypeError):
        return "no conversion"


def _without_counts(unit: Any) -> Any:
    """The unit with what is counted left out: electron / s is 1 / s."""
    from astropy.units import CompositeUnit

    if not hasattr(unit, "bases"):  # a logarithmic unit such as mag(AB)
        return unit
    kept = [
        (base, power)
        for base, power in zip(unit.bases, unit.powers, strict=True)
        if base.name not in _COUNTS
    ]
    return CompositeUnit(unit.scale, [base for base, _ in kept], [power for _, power in kept])


def _parsed(text: str) -> Any:
    """An astropy unit; None where no standard knows the text."""
    from astropy.units import Unit

    for form in _FORMATS:
        try:
            return Unit(text, format=form)
        except (ValueError, TypeError):
            continue
    return None
