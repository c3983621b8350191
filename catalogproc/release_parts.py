"""The parts of a Gaia release (release.py): tables of its TOML file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

BANDS = ("bp", "rp")
MAX_COEFFICIENTS = 10_000
"""A band that declares more coefficients is a mistake."""

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
class Bridge:
    """A map from the coefficients to canonical ones, learned from stars in two releases.

    Attributes
    ----------
    file, sha256
        As of :class:`Design`.
    pairs
        Number of stars that it was learned from.
    learned_from
        The release that it leads to, by name.
    residuals
        Mean squared residual of held-out pairs over its expectation.
    """

    file: str
    sha256: str
    pairs: int
    learned_from: str
    residuals: float


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


@dataclass(frozen=True)
class ArchiveTable:
    """A table that the archive publishes as files, one for each range of HEALPix pixels.

    Attributes
    ----------
    folder
        Its folder below the address of the files.
    prefix
        The start of its files' names, which end in ``FIRST-LAST.csv.gz``.
    keep
        A column that is true in the rows that are kept; None keeps all of them.
    """

    folder: str
    prefix: str
    keep: str | None = None


@dataclass(frozen=True)
class Services:
    """The archive's services: queries by TAP, spectra of listed stars by DataLink.

    Attributes
    ----------
    tap, datalink
        Their addresses.
    release, product, structure, format
        What DataLink is asked for, in its words.
    ids_per_call
        Number of stars that DataLink takes at once.
    source, has_spectra
        The table of all sources, and its column that is true for those with spectra.
    joins
        How other tables of the release (``columns``) are joined to the sources ``g``, in ADQL;
        the alias is our name of the table.
    selections
        Ready conditions on the sources ``g``, in ADQL.
    """

    tap: str
    datalink: str
    release: str
    product: str
    structure: str
    format: str
    ids_per_call: int
    source: str
    has_spectra: str
    joins: Mapping[str, str] = field(default_factory=dict)
    selections: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Archive:
    """Where a release's data are fetched from.

    Attributes
    ----------
    files
        Address of the files of all tables.
    checksums
        Name of the list of MD5 sums in the folder of each table.
    healpix_level
        Level of the pixels in the names of the files.
    tables
        By our name of the contract: xp_continuous, gaia_source.
    services
        None is not known.
    """

    files: str
    checksums: str
    healpix_level: int
    tables: Mapping[str, ArchiveTable] = field(default_factory=dict)
    services: Services | None = None


def spectra_text(bands: Mapping[str, tuple[int, int | None]]) -> str:
    """Return lengths and basis functions of spectra in words.

    Parameters
    ----------
    bands
        By band (bp, rp): number of coefficients; basis_function_id, None where it is not known.
    """
    words = (
        f"{count} {name.upper()}" + (f" (basis {basis})" if basis is not None else "")
        for name, (count, basis) in sorted(bands.items())
    )
    return ", ".join(words) + " coefficients"


def fault(release: Any, version: int) -> dict[str, Any] | None:
    """Return what is wrong with a release, as the fields of an error; None for nothing.

    Parameters
    ----------
    release
        The release.
    version
        The version of its file that is read.
    """
    if release.version != version:
        return {"wanted": f"version = {version}", "found": f"version = {release.version}"}
    if tuple(sorted(release.bands)) != BANDS:
        return {"wanted": "[bands.bp] and [bands.rp]", "found": ", ".join(release.bands) or "none"}
    for name, band in release.bands.items():
        if not 1 <= band.coefficients <= MAX_COEFFICIENTS:
            wanted = f"1 to {MAX_COEFFICIENTS} coefficients in [bands.{name}]"
            return {"wanted": wanted, "found": band.coefficients}
    for table, part in (("design", release.design), ("bridge", release.bridge)):
        if part is not None and Path(part.file).name != part.file:
            return {"wanted": f"[{table}] file: a name without a folder", "found": part.file}
    if release.parallax.zero_point not in ZERO_POINTS:
        return {
            "wanted": "[parallax] zero_point = " + " | ".join(ZERO_POINTS),
            "found": release.parallax.zero_point,
        }
    if not (release.epoch.startswith("J") and _is_number(release.epoch[1:])):
        return {"wanted": 'a Julian epoch: epoch = "J2016.0"', "found": repr(release.epoch)}
    return None


def _is_number(text: str) -> bool:
    return text.replace(".", "", 1).isdecimal()
