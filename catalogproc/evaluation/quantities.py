"""The quantities that are evaluated: labels of the vocabulary, and what is computed from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]


@dataclass(frozen=True)
class Quantity:
    """A label of the vocabulary, or a quantity computed from one.

    Attributes
    ----------
    name, text
        Name in code, and in tables and figures.
    token
        The label that it is computed from.
    unit
        Unit of the quantity and of its residuals.
    relative
        Whether residuals are in per cent of the true value.
    """

    name: str
    token: str
    unit: str
    text: str
    relative: bool = False

    def from_token(self, token: Floats) -> Floats:
        """Return the quantity (N,), NaN where it is undefined.

        Parameters
        ----------
        token
            Values (N,) of the label, in its unit.
        """
        value = np.asarray(token, dtype=np.float64)
        with np.errstate(over="ignore", divide="ignore"):
            if self.name in ("age", "age_percent"):
                return np.asarray(10.0 ** (value - 9.0))
            if self.name == "ebv":
                return np.exp(value)
            if self.name == "dist":
                # Up to the factor 10^(0.2 G), which cancels in relative residuals.
                return np.where(value > 0, 1.0 / value, np.nan)
        return value

    def residual(self, predicted: Floats, true: Floats) -> Floats:
        """Return predicted minus true (N,), in ``unit``.

        Parameters
        ----------
        predicted, true
            Values (N,) of the label, in its unit.
        """
        found, expected = self.from_token(predicted), self.from_token(true)
        return 100.0 * (found / expected - 1.0) if self.relative else found - expected


QUANTITIES = {
    item.name: item
    for item in (
        Quantity("teff", "teff", "K", "Teff"),
        Quantity("logg", "logg", "dex", "log g"),
        Quantity("m_h", "m_h", "dex", "[M/H]"),
        Quantity("alpha_m", "alpha_m", "dex", "[alpha/M]"),
        Quantity("mass", "mass", "Msun", "mass"),
        Quantity("age", "log_age", "Gyr", "age"),
        Quantity("log_age", "log_age", "dex", "log age"),
        Quantity("mass_percent", "mass", "%", "mass, relative", relative=True),
        Quantity("age_percent", "log_age", "%", "age, relative", relative=True),
        Quantity("ebv", "logebv", "mag", "E(B-V)"),
        Quantity("dist", "g_fakemag", "%", "distance", relative=True),
    )
}

RELATIVE = {"mass": "mass_percent", "log_age": "age_percent"}
"""By label, the quantity with relative residuals: those that the seismic floor is given in."""


def label_of(name: str) -> str:
    """Return the label that a quantity is computed from; a label itself.

    Parameters
    ----------
    name
        Key of QUANTITIES, or a label.
    """
    return QUANTITIES[name].token if name in QUANTITIES else name


def labels_of(names: Sequence[str]) -> tuple[str, ...]:
    """Return the labels that quantities are computed from, each once.

    Parameters
    ----------
    names
        Keys of QUANTITIES, or labels.
    """
    return tuple(dict.fromkeys(label_of(name) for name in names))
