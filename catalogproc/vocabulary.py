"""The vocabulary: the tokens that the model can read and predict.

The vocabulary is data: schemas/vocabulary.toml, and a copy in each bundle.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from catalogproc.errors import ContractError, ReleaseError, did_you_mean
from catalogproc.release import BANDS, DEFAULT, MAX_COEFFICIENTS, Release, load_release
from catalogproc.resources import shipped

__all__ = ["BANDS", "BASES", "KINDS", "TRANSFORMS", "Token", "Vocabulary", "load_vocabulary"]

KINDS = ("coefficient", "colour", "label")
TRANSFORMS = ("identity", "log10", "ln")
BASES = ("archive", "canonical")
WITHOUT_DESIGN = (
    "make a release file of GaiaXPy's files with `catalogproc release add --design FILE` and give "
    "it as --release FILE, or learn a map from stars of both releases with `catalogproc bridge "
    "fit` and give it as --bridge"
)
"""How a model of canonical coefficients reads the spectra of a release without design."""
CANONICAL_COEFFICIENTS = {"bp": 55, "rp": 55}
"""Numbers of canonical coefficients, whatever the release (features/canonical.py)."""
CANONICAL_RELEASE = "dr3"
"""The release whose coefficients and scale canonical ones have."""


@dataclass(frozen=True)
class Token:
    """One quantity of a star that the model can read or predict.

    Attributes
    ----------
    number
        Counts from 1; number 0 is padding and belongs to no token.
    name, kind, description
        ``kind`` is one of KINDS.
    unit
        Unit of the token's value, after ``transform``.
    transform
        Applied to the physical quantity: ``ln`` of E(B-V), ``log10`` of the age in years.
    standardisation
        Row of the bundle's statistics that scales the token.
    band, index
        Of spectral coefficients only.
    """

    number: int
    name: str
    kind: str
    unit: str
    transform: str
    standardisation: str
    description: str
    band: str = ""
    index: int = -1


@dataclass(frozen=True)
class Vocabulary:
    """All tokens, in the order of their numbers.

    Attributes
    ----------
    tokens
        The tokens.
    release
        Name of the Gaia release whose spectra these are (release.py).
    basis
        One of BASES: ``archive`` is the release's own basis; ``canonical`` the fixed basis
        that calibrated spectra of any release are brought to.
    declared
        The release itself; None for one that ships.
    """

    tokens: tuple[Token, ...]
    release: str = DEFAULT
    basis: str = "archive"
    declared: Release | None = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.basis not in BASES:
            raise ContractError(
                "unknown basis of a vocabulary", wanted=" | ".join(BASES), found=repr(self.basis)
            )
        if self.declared is not None and self.declared.name != self.release:
            raise ContractError(
                "a vocabulary of another release", wanted=self.declared.name, found=self.release
            )
        for position, token in enumerate(self.tokens, start=1):
            if token.number != position:
                raise ContractError(
                    "vocabulary numbers must run 1, 2, 3, …",
                    wanted=position,
                    found=token.number,
                    where=token.name,
                )
            if token.kind not in KINDS or token.transform not in TRANSFORMS:
                raise ContractError(
                    "unknown kind or transform of a token",
                    wanted=f"{KINDS} and {TRANSFORMS}",
                    found=f"{token.kind!r} and {token.transform!r}",
                    where=token.name,
                )
        if len(set(self.names)) != len(self.tokens):
            raise ContractError("a token name is used twice in the vocabulary")

    def __len__(self) -> int:
        return len(self.tokens)

    @cached_property
    def data_release(self) -> Release:
        """The Gaia release whose spectra are read."""
        return self.declared or load_release(self.release)

    @property
    def basis_release(self) -> Release:
        """The Gaia release in whose basis, and on whose scale, the tokens of coefficients are."""
        return self.data_release if self.basis == "archive" else load_release(CANONICAL_RELEASE)

    def spectrum_length(self, band: str) -> int:
        """Return the number of coefficients of a band in files of spectra."""
        if self.basis == "archive":
            return self.coefficients(band)
        return self.data_release.coefficients(band)

    def for_release(self, release: Release) -> Vocabulary:
        """Return the same tokens, to be made from spectra of a release.

        Parameters
        ----------
        release
            The release of the spectra.

        Raises
        ------
        ReleaseError
            Its spectra have another length or basis. Canonical coefficients are made from those
            of any release whose design matrices are known.
        """
        own = self.data_release
        if self.basis == "canonical":
            if release.design is None and release.bridge is None:
                raise ReleaseError(
                    f"spectra of {release.title} are read without its design matrices",
                    wanted="[design] in the release file", found=release.spectra_text(),
                    advice=WITHOUT_DESIGN,
                )  # fmt: skip
        elif not own.same_spectra(release):
            raise ReleaseError(
                "the model reads spectra of another release",
                wanted=f"{own.title}: {own.spectra_text()}",
                found=f"{release.title}: {release.spectra_text()}",
                advice=f"use a model that was trained on {release.title} (--model)",
            )
        return replace(self, release=release.name, declared=release)

    @cached_property
    def names(self) -> tuple[str, ...]:
        return tuple(token.name for token in self.tokens)

    @cached_property
    def _numbers(self) -> dict[str, int]:
        return {token.name: token.number for token in self.tokens}

    def __contains__(self, name: object) -> bool:
        return name in self._numbers

    def number(self, name: str) -> int:
        """Return the number of a token.

        Parameters
        ----------
        name
            The token's name.

        Returns
        -------
        int
            1 to V.

        Raises
        ------
        ContractError
            The vocabulary has no such token.
        """
        try:
            return self._numbers[name]
        except KeyError:
            raise ContractError(
                "no such token in this vocabulary",
                wanted="one of " + self.summary(),
                found=name,
                advice=did_you_mean(name, self.names),
            ) from None

    def column(self, name: str) -> int:
        """Return the column of a token in a dense (N, V) matrix.

        Parameters
        ----------
        name
            The token's name; an unknown one raises ContractError.
        """
        return self.number(name) - 1

    def columns(self, names: Iterable[str]) -> NDArray[np.int64]:
        """Return the columns of several tokens in a dense (N, V) matrix."""
        return np.array([self.column(name) for name in names], dtype=np.int64)

    def named(self, kind: str) -> tuple[str, ...]:
        """Return the names of all tokens of one of KINDS, in order."""
        return tuple(token.name for token in self.tokens if token.kind == kind)

    def coefficients(self, band: str) -> int:
        """Return the number of spectral coefficients of a band, 'bp' or 'rp'."""
        return sum(token.band == band for token in self.tokens)

    def coefficient_columns(self, band: str) -> NDArray[np.int64]:
        """Return the columns of a band's coefficients in a dense (N, V) matrix, by index."""
        tokens = sorted((t for t in self.tokens if t.band == band), key=lambda t: t.index)
        return np.array([token.number - 1 for token in tokens], dtype=np.int64)

    def summary(self) -> str:
        """Return the names for messages: bp0 … bp54, rp0 … rp54, bprp, …"""
        parts = [
            f"{band}0 … {band}{count - 1}" for band in BANDS if (count := self.coefficients(band))
        ]
        parts += [token.name for token in self.tokens if token.kind != "coefficient"]
        return ", ".join(parts)

    def to_rows(self) -> list[dict[str, Any]]:
        """Return each token as a dictionary, for a bundle's declaration."""
        return [asdict(token) for token in self.tokens]

    @classmethod
    def from_rows(
        cls,
        rows: Iterable[Mapping[str, Any]],
        release: str | Release = DEFAULT,
        basis: str = "archive",
    ) -> Vocabulary:
        """Build a vocabulary from the dictionaries of :meth:`to_rows`.

        Parameters
        ----------
        rows
            One dictionary a token.
        release
            The release, or the name of one that ships.
        basis
            As the attribute.
        """
        declared = release if isinstance(release, Release) else None
        name = release.name if isinstance(release, Release) else release
        return cls(tuple(Token(**row) for row in rows), name, basis, declared)


def load_vocabulary(
    path: Path | None = None, release: Release | None = None, basis: str | None = None
) -> Vocabulary:
    """Load the vocabulary that a TOML file declares.

    Parameters
    ----------
    path
        The file; the shipped one by default. ``[[band]]`` tables (name, unit, description)
        declare the spectral coefficients, ``[[token]]`` tables everything else, in order.
        A band has as many coefficients as the release, or as CANONICAL_COEFFICIENTS.
    release
        The release; by default the one that the file names (``release``, else dr3).
    basis
        One of BASES; by default the one that the file names (``basis``, else archive).

    Raises
    ------
    ContractError
        The file cannot be read, or declares no vocabulary.
    ReleaseError
        A band has another number of coefficients than the release.
    """
    path = path or shipped("schemas") / "vocabulary.toml"
    try:
        declared = tomllib.loads(path.read_text(encoding="utf-8"))
        release = release or _release(declared.get("release", DEFAULT), path)
        basis = basis or declared.get("basis", "archive")
        numbered = enumerate(_rows(declared, release, basis), start=1)
        rows = ({"number": number} | row for number, row in numbered)
        return Vocabulary.from_rows(rows, release, basis)
    except (ContractError, ReleaseError) as error:
        error.where = error.where or path
        raise type(error).of(error) from None
    except (ValueError, TypeError, KeyError, OSError, RecursionError) as error:
        raise ContractError(
            "the vocabulary is declared wrongly",
            wanted="[[band]] tables with name, unit, description, then [[token]] tables",
            found=f"{type(error).__name__}: {error}",
            where=path,
        ) from None


def _release(name: str, path: Path) -> Release:
    """Return the release that a vocabulary names; files are looked for beside it first."""
    beside = path.parent / name
    return load_release(beside if name.endswith(".toml") and beside.is_file() else name)


def _rows(declared: Mapping[str, Any], release: Release, basis: str) -> Iterator[dict[str, Any]]:
    """Yield the tokens of a declaration, in order: bands first."""
    for band in declared["band"]:
        for index in range(_count(band, release, basis)):
            name = f"{band['name']}{index}"
            yield {
                "name": name,
                "kind": "coefficient",
                "unit": band["unit"],
                "transform": "identity",
                "standardisation": name,
                "description": f"{band['description']}, coefficient {index}",
                "band": band["name"],
                "index": index,
            }
    yield from declared["token"]


def _count(band: Mapping[str, Any], release: Release, basis: str) -> int:
    """Return the number of coefficients of a declared band."""
    known = release.coefficients(band["name"])
    if basis != "archive":
        known = CANONICAL_COEFFICIENTS[band["name"]]
    count: int = band.get("count", known)
    if not 0 <= count <= MAX_COEFFICIENTS:
        raise ValueError(f"a band of {count} coefficients")
    if basis == "archive" and count != known:
        raise ReleaseError(
            f"the vocabulary's {band['name'].upper()} spectra are not those of {release.title}",
            wanted=f"{known} coefficients",
            found=f"count = {count}",
            advice="name the release that has so many: release = NAME or FILE.toml, or leave "
            "count out",
        )
    return count
