"""Conversion between the units that files state and those that are wanted."""

from __future__ import annotations

import re
import warnings
from typing import Any

import numpy as np


def conversion(stated: str, wanted: str, logarithm: str = "") -> tuple[float, float] | None:
    """Return (a, b) with wanted = a stated + b, or None where units cannot be converted.

    Parameters
    ----------
    stated
        A unit as files state it; "" counts as the wanted one.
    wanted
        A unit of Astropy, "dex", or "" for a pure number.
    logarithm
        The unit of a logarithm, such as "dex(cm / s2)", where "dex" is wanted.
    """
    if not stated.strip() or stated in (wanted, logarithm):
        return 1.0, 0.0
    from astropy import units

    found = _parsed(stated)
    if found is None:
        return None
    try:
        if wanted not in ("", "dex"):
            return float(found.to(units.Unit(wanted))), 0.0
        if found in (units.dex, units.dimensionless_unscaled):
            return 1.0, 0.0
        if wanted == "dex" and isinstance(found, units.DexUnit) and logarithm:
            inner = units.Unit(logarithm).physical_unit
            return 1.0, float(np.log10(found.physical_unit.to(inner)))
        if wanted == "" and not isinstance(found, units.function.FunctionUnitBase):
            return float(found.to(units.dimensionless_unscaled)), 0.0
    except (units.UnitConversionError, units.UnitTypeError):
        pass
    return None


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
        for dialect in (None, "cds", "vounit"):
            try:
                return units.Unit(plain, format=dialect)
            except (ValueError, TypeError):
                continue
    return None
