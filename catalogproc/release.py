"""Gaia data releases: all that differs from one to the next, from TOML.

schemas/releases/ holds those that ship; any other TOML file of the same form is a release too.
What is not known of a release has no line there, and :meth:`Release.unknown` is the error that
names the line to write.
"""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from catalogproc.errors import ReleaseError, did_you_mean
from catalogproc.resources import shipped
from catalogproc.toml_values import parsed

VERSION = 1
DEFAULT = "dr3"
BANDS = ("bp", "rp")
ZERO_POINTS = ("lindegren2021", "tentative_parallax_bias")
"""Rules for the zero-point of the parallax: by position, colour and magnitude (Lindegren et al.
2021), or a column of the table itself."""
MAX_COEFFICIENTS = 10_000
"""A band that declares more coefficients is a mistake."""


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
        How its zero-point is found, one of ZERO_POINTS.
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
class Release:
    """A Gaia data release. Attributes are the keys of its TOML file.

    Attributes
    ----------
    name, title
        For programs and for people: dr3, Gaia DR3.
    epoch
        Reference epoch of positions, "J2016.0".
    bands
        bp and rp.
    designations
        Words in front of an identifier in a designation.
    columns
        By table: its name of a column, by our name (schemas/gaia_source.toml, xp_continuous.toml).
    products
        DataLink products by name.
    folder
        The folder of its file, in which the design file is looked for; not part of the release.
    """

    name: str
    title: str
    epoch: str
    bands: Mapping[str, Band]
    parallax: Parallax
    version: int = VERSION
    designations: tuple[str, ...] = ()
    design: Design | None = None
    photometry: Photometry = Photometry()
    extinction: Extinction | None = None
    columns: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    gone: Gone = Gone()
    products: Mapping[str, Product] = field(default_factory=dict)
    folder: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        wrong = _wrong(self)
        if wrong is not None:
            raise ReleaseError(f"the release {self.name} is declared wrongly", **wrong)

    def to_dict(self) -> dict[str, Any]:
        """Return the release as its TOML file states it; what is not known is left out."""
        content = asdict(self)
        del content["folder"]
        stated: dict[str, Any] = _pruned(content)
        return stated

    @cached_property
    def hash(self) -> str:
        """SHA-256 (hex) of :meth:`to_dict` as canonical JSON."""
        text = json.dumps(self.to_dict(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def facts(self) -> dict[str, str]:
        """Name, title, epoch and hash, as files state them."""
        return {
            "release": self.name,
            "release_title": self.title,
            "release_epoch": self.epoch,
            "release_hash": self.hash,
        }

    def coefficients(self, band: str) -> int:
        """Return the number of coefficients of a band, bp or rp."""
        return self.bands[band].coefficients

    def basis_function_id(self, band: str) -> int | None:
        """Return the archive's number of a band's basis; None is not known."""
        return self.bands[band].basis_function_id

    def column(self, name: str) -> str | None:
        """Return what this release calls a column; None where it does not say, or has none.

        Parameters
        ----------
        name
            Our name of the column.
        """
        return next((held[name] for held in self.columns.values() if name in held), None)

    def tables(self, name: str) -> tuple[str, ...]:
        """Return the tables of this release that have a column.

        Parameters
        ----------
        name
            Our name of the column.
        """
        return tuple(table for table, held in self.columns.items() if name in held)

    def magnitude(self, name: str) -> Magnitude:
        """Return the zero-point of a magnitude, G, BP or RP.

        Raises
        ------
        ReleaseError
            It is not known.
        """
        found = self.photometry.magnitudes.get(name)
        if found is None:
            at = f"photometry.magnitudes.{name}"
            raise self.unknown(
                f"the zero-point of {name}", at, "zero_point = …", "zero_point_error = …"
            )
        return found

    def design_file(self) -> Path:
        """Return the file of the design matrices.

        It is looked for beside the release's own file, then among the grids that ship.

        Raises
        ------
        ReleaseError
            Not known, or no such file.
        """
        if self.design is None:
            lines = ('file = "FILE.npz"', 'sha256 = "…"')
            raise self.unknown("its design matrices", "design", *lines)
        places = [Path(self.folder, self.design.file), shipped("grids") / self.design.file]
        for path in places:
            if path.is_file():
                return path
        raise ReleaseError(
            f"the design matrices of {self.title} are missing",
            wanted=" or ".join(map(str, places)),
            advice="copy the file there, or give a --release file that names another one",
        )

    def unknown(self, what: str, table: str, *lines: str) -> ReleaseError:
        """Return the error for a fact that this release does not state.

        Parameters
        ----------
        what
            The fact, as in "its design matrices".
        table
            The TOML table in which it would stand.
        lines
            The lines of TOML.
        """
        stated = "; ".join((f"[{table}]", *lines) if table else lines)
        return ReleaseError(
            f"{self.title} is used without knowing {what}",
            wanted=f"in a release file: {stated}",
            found=f"no such line in the release {self.name}",
            advice=f'write a file with version = {VERSION}, name = "{self.name}", like = '
            f'"{self.name}" and these lines, and give it as --release FILE',
        )

    @classmethod
    def from_dict(
        cls, content: Mapping[str, Any], where: object = None, folder: str = ""
    ) -> Release:
        """Return the release that a file's content declares.

        Parameters
        ----------
        content
            As :meth:`to_dict` gives it.
        where
            The file, for messages.
        folder
            Where its design file is looked for first.

        Raises
        ------
        ReleaseError
            It declares no release.
        """
        try:
            release: Release = parsed(cls, {**content, "folder": folder}, where)
        except ReleaseError as error:
            error.where = error.where or where
            raise ReleaseError.of(error) from None
        return release


def shipped_releases() -> tuple[str, ...]:
    """Return the names of the releases that ship, in alphabetical order."""
    folder = shipped("schemas") / "releases"
    return tuple(sorted(path.stem for path in folder.glob("*.toml")))


def load_release(name_or_path: str | Path = DEFAULT) -> Release:
    """Load a release.

    Parameters
    ----------
    name_or_path
        The name of one that ships, or a TOML file. A file with ``like = "dr4"`` states only
        what differs from that release.

    Raises
    ------
    ReleaseError
        No such release, or a line of its file that is wrong or missing.
    """
    path = Path(name_or_path)
    if str(name_or_path) in shipped_releases():
        path = shipped("schemas") / "releases" / f"{name_or_path}.toml"
    elif not path.is_file():
        raise ReleaseError(
            "no such release",
            wanted=f"{' | '.join(shipped_releases())}, or a TOML file",
            found=str(name_or_path),
            advice=did_you_mean(name_or_path, shipped_releases()),
        )
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError, RecursionError) as error:
        raise ReleaseError("the release file cannot be read", found=error, where=path) from None
    like = content.pop("like", None)
    if like is not None:
        if like not in shipped_releases():
            raise ReleaseError(
                "no such release to begin from",
                wanted=f"like = {' | '.join(shipped_releases())}", found=repr(like), where=path,
                advice=did_you_mean(like, shipped_releases()),
            )  # fmt: skip
        content = _merged(load_release(like).to_dict(), content)
    return Release.from_dict(content, path, str(path.resolve().parent))


def _merged(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """Return a declaration with the values of another one in place of its own."""
    result = dict(old)
    for key, value in new.items():
        both = isinstance(value, dict) and isinstance(result.get(key), dict)
        result[key] = _merged(result[key], value) if both else value
    return result


def _pruned(value: Any) -> Any:
    """Return a declaration without what is not known, tuples as lists."""
    if isinstance(value, dict):
        kept = {key: _pruned(item) for key, item in value.items()}
        return {key: item for key, item in kept.items() if item not in (None, {}, [])}
    return [_pruned(item) for item in value] if isinstance(value, tuple | list) else value


def _wrong(release: Release) -> dict[str, Any] | None:
    """Return what is wrong with a release, as the fields of an error; None for nothing."""
    if release.version != VERSION:
        return {"wanted": f"version = {VERSION}", "found": f"version = {release.version}"}
    if tuple(sorted(release.bands)) != BANDS:
        return {"wanted": "[bands.bp] and [bands.rp]", "found": ", ".join(release.bands) or "none"}
    for name, band in release.bands.items():
        if not 1 <= band.coefficients <= MAX_COEFFICIENTS:
            wanted = f"1 to {MAX_COEFFICIENTS} coefficients in [bands.{name}]"
            return {"wanted": wanted, "found": band.coefficients}
    if release.design is not None and Path(release.design.file).name != release.design.file:
        return {"wanted": "[design] file: a name without a folder", "found": release.design.file}
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
