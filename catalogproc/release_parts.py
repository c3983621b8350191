"""The parts of a Gaia release (release.py): tables of its TOML file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

ZERO_POINTS = ("lindegren2021", "tentative_parallax_bias")
"""Rules for the zero-point of the parallax: by position, colour and magnitude (Lindegren et al.
2021), or a column of the table itself."""


@dataclass(frozen=True)
class Band:
    """The spectra of one band.

    Attributes
    ----------
    coefficients
        Number of coefficients of a spectrum.
    basis_function_id
        The archive's number of the basis functions; None is not known.
    instrument
        Instrument model of the design matrices.
    """

    coefficients: int
    basis_function_id: int | None = None
    instrument: str | None = None


@dataclass(frozen=True)
class Design:
    """The file of matrices that turn coefficients into flux and magnitudes.

    Attributes
    ----------
    file
        Name of a file beside the release's own, or of a grid that ships.
    sha256
        SHA-256 (hex) of the file.
    """

    file: str
    sha256: str


@dataclass(frozen=True)
class Magnitude:
    """The zero-point of a magnitude: that of one electron per second, and its error (mag)."""

    zero_point: float
    zero_point_error: float


@dataclass(frozen=True)
class Photometry:
    """The photometric system by its name in GaiaXPy, and its magnitudes G, BP and RP."""

    system: str | None = None
    magnitudes: Mapping[str, Magnitude] = field(default_factory=dict)


@dataclass(frozen=True)
class Extinction:
    """A_G / A_0 as a polynomial in X = Teff / 5040 K and A = A_0.

    Attributes
    ----------
    terms
        (coefficient, power of X, power of A).
    teff, a_0
        Range of the relation, K and mag.
    """

    terms: tuple[tuple[float, int, int], ...]
    teff: tuple[float, float]
    a_0: tuple[float, float]


@dataclass(frozen=True)
class Parallax:
    """The parallax.

    Attributes
    ----------
    zero_point
        How the release's own zero-point is found, one of ZERO_POINTS. A star with the column
        tentative_parallax_bias is corrected by it whatever the release of its spectra.
    parallax_bit, pseudocolour_bit
        Bits of the column of solved parameters: a parallax, a pseudo-colour was solved for.
    """

    zero_point: str
    parallax_bit: int
    pseudocolour_bit: int


@dataclass(frozen=True)
class Product:
    """A DataLink product: the table that it holds, and the structures that it comes in."""

    table: str
    structures: tuple[str, ...] = ()


@dataclass(frozen=True)
class Gone:
    """Columns (our names) that earlier releases have and this one has not."""

    columns: tuple[str, ...] = ()
