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
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from catalogproc.errors import ReleaseError, did_you_mean
from catalogproc.release_parts import (
    BANDS,
    MAX_COEFFICIENTS,
    Archive,
    Band,
    Bridge,
    Design,
    Extinction,
    Gone,
    Magnitude,
    Parallax,
    Photometry,
    Product,
    fault,
    spectra_text,
)
from catalogproc.resources import shipped
from catalogproc.toml_values import merged, parsed, pruned

__all__ = [
    "BANDS",
    "DEFAULT",
    "MAX_COEFFICIENTS",
    "Release",
    "load_release",
    "shipped_releases",
    "spectra_text",
]

VERSION = 1
DEFAULT = "dr3"
"""The release of files that name none, and that the simulated instrument (grids/) is of."""
ADD = "; `catalogproc release add --design FILE` writes them from the files of GaiaXPy"


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
    archive
        Where its data are fetched from. Like ``folder``, it is not part of what the release is:
        two releases are equal, and have one hash, wherever their files lie.
    folder
        The folder of its file, in which the design file is looked for.
    """

    name: str
    title: str
    epoch: str
    bands: Mapping[str, Band]
    parallax: Parallax
    version: int = VERSION
    designations: tuple[str, ...] = ()
    design: Design | None = None
    bridge: Bridge | None = None
    photometry: Photometry = field(default_factory=Photometry)
    extinction: Extinction | None = None
    columns: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    gone: Gone = field(default_factory=Gone)
    products: Mapping[str, Product] = field(default_factory=dict)
    archive: Archive | None = field(default=None, compare=False)
    folder: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        wrong = fault(self, VERSION)
        if wrong is not None:
            raise ReleaseError(f"the release {self.name} is declared wrongly", **wrong)

    def to_dict(self) -> dict[str, Any]:
        """Return the release as its TOML file states it; what is not known is left out.

        The addresses of the archive are left out too.
        """
        content = asdict(self)
        del content["folder"], content["archive"]
        stated: dict[str, Any] = pruned(content)
        return stated

    @cached_property
    def hash(self) -> str:
        """SHA-256 (hex) of :meth:`to_dict` as canonical JSON."""
        text = json.dumps(self.to_dict(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    def __hash__(self) -> int:
        return int(self.hash[:15], 16)

    @property
    def facts(self) -> dict[str, str]:
        """Name, title, epoch and hash, and that of a bridge, as files state them."""
        stated = {
            "release": self.name,
            "release_title": self.title,
            "release_epoch": self.epoch,
            "release_hash": self.hash,
        }
        return stated | ({"release_bridge": self.bridge.sha256} if self.bridge else {})

    def coefficients(self, band: str) -> int:
        """Return the number of coefficients of a band, bp or rp."""
        return self.bands[band].coefficients

    def basis_function_id(self, band: str) -> int | None:
        """Return the archive's number of a band's basis; None is not known."""
        return self.bands[band].basis_function_id

    def same_spectra(self, other: Release) -> bool:
        """Return whether spectra of another release mean the same as those of this one.

        That is so with the same lengths and basis functions; where a basis is not known, the
        releases must have the same name.

        Parameters
        ----------
        other
            The other release.
        """
        for name, band in self.bands.items():
            beside = other.bands[name]
            ids = (band.basis_function_id, beside.basis_function_id)
            known = None not in ids
            if band.coefficients != beside.coefficients or (known and ids[0] != ids[1]):
                return False
            if not known and self.name != other.name:
                return False
        return True

    def spectra_text(self) -> str:
        """Return the lengths and basis functions of its spectra: "55 BP (basis 56), …"."""
        return spectra_text(
            {name: (band.coefficients, band.basis_function_id) for name, band in self.bands.items()}
        )

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

    def extinction_relation(self) -> Extinction:
        """Return A_G / A_0.

        Raises
        ------
        ReleaseError
            It is not known.
        """
        if self.extinction is None:
            lines = ("terms = [[…, 0, 0], …]", "teff = [3500.0, 10000.0]", "a_0 = [0.01, 20.0]")
            raise self.unknown("the extinction in its G", "extinction", *lines)
        return self.extinction

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
            raise self.unknown("its design matrices", "design", *lines, by=ADD)
        return self._found("design matrices", self.design.file)

    def bridge_file(self) -> Path:
        """Return the file of the bridge; it is looked for beside the release's own file.

        Raises
        ------
        ReleaseError
            No bridge, or no such file.
        """
        if self.bridge is None:
            raise ReleaseError(f"{self.title} has no bridge", wanted="[bridge] in its file")
        return self._found("bridge", self.bridge.file)

    def same_basis(self, other: Release) -> bool:
        """Return whether coefficients of both releases give flux by the same matrices.

        Parameters
        ----------
        other
            The other release.
        """
        return self.bridge is other.bridge is None and self.design == other.design

    @property
    def matrices(self) -> tuple[Path, ...]:
        """The files of design matrices and bridge, as far as they are known."""
        design = () if self.design is None else (self.design_file(),)
        return design if self.bridge is None else (*design, self.bridge_file())

    def _found(self, what: str, file: str) -> Path:
        places = [Path(self.folder, file), shipped("grids") / file]
        for path in places:
            if path.is_file():
                return path
        raise ReleaseError(
            f"the {what} of {self.title} are missing",
            wanted=" or ".join(map(str, places)),
            advice="copy the file there, or give a --release file that names another one",
        )

    def unknown_lines(self) -> dict[str, str]:
        """Return what this release does not state: by its lines of TOML, what they would say."""
        lines = {
            f"[bands.{band}] basis_function_id": f"the archive's number of the {band.upper()} basis"
            for band in BANDS
            if self.basis_function_id(band) is None
        }
        if self.design is None:
            lines["[design] file, sha256"] = "matrices from coefficients to flux and magnitudes"
        for name in ("G", "BP", "RP"):
            if name not in self.photometry.magnitudes:
                at = f"[photometry.magnitudes.{name}] zero_point, zero_point_error"
                lines[at] = f"the zero-point of {name}"
        if self.extinction is None:
            lines["[extinction] terms, teff, a_0"] = "A_G / A_0 by temperature and extinction"
        return lines

    def unknown(self, what: str, table: str, *lines: str, by: str = "") -> ReleaseError:
        """Return the error for a fact that this release does not state.

        Parameters
        ----------
        what
            The fact, as in "its design matrices".
        table
            The TOML table in which it would stand.
        lines
            The lines of TOML.
        by
            Another way to write them.
        """
        stated = "; ".join((f"[{table}]", *lines) if table else lines)
        return ReleaseError(
            f"{self.title} is used without knowing {what}",
            wanted=f"in a release file: {stated}",
            found=f"no such line in the release {self.name}",
            advice=f'write a file with version = {VERSION}, name = "{self.name}", like = '
            f'"{self.name}" and these lines, and give it as --release FILE' + by
            if self.name in shipped_releases()
            else "add these lines to the file of this release" + by,
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


@cache
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
    if str(name_or_path) in shipped_releases():
        return _shipped(str(name_or_path))
    path = Path(name_or_path)
    if not path.is_file():
        raise ReleaseError(
            "no such release",
            wanted=f"{' | '.join(shipped_releases())}, or a TOML file",
            found=str(name_or_path),
            advice=did_you_mean(name_or_path, shipped_releases()),
        )
    return _read(path)


@cache
def _shipped(name: str) -> Release:
    return _read(shipped("schemas") / "releases" / f"{name}.toml")


def _read(path: Path) -> Release:
    """Return the release of a TOML file."""
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
        old = load_release(like)
        stated = old.to_dict()
        if old.archive is not None:
            stated["archive"] = pruned(asdict(old.archive))
        content = merged(stated, content)
    return Release.from_dict(content, path, str(path.resolve().parent))
