"""The token table: what the model can read, and what it can be asked.

The vocabulary is data (schemas/vocabulary.toml, and a copy in each bundle). Nothing in
the code knows how many coefficients a Gaia release has.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from catalogproc.errors import ContractError
from catalogproc.resources import shipped

KINDS = ("coefficient", "colour", "label")
TRANSFORMS = ("identity", "log10", "ln")
BANDS = ("bp", "rp")
MOST = 10_000
"""More coefficients than a band will have: a count that is beyond it is a mistake."""


@dataclass(frozen=True)
class Token:
    """One word of the vocabulary.

    ``number`` counts from 1; number 0 is padding and belongs to no token.
    ``transform`` is what was done to the physical quantity before it became this token
    (``ln`` of E(B-V), ``log10`` of the age in years). ``unit`` is that of the token's
    value. ``standardisation`` names the row of the bundle's statistics it is scaled by.
    ``band`` and ``index`` are set for spectral coefficients alone.
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
    """All tokens, in the order of their numbers."""

    tokens: tuple[Token, ...]

    def __post_init__(self) -> None:
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
            raise ContractError("a token name stands twice in the vocabulary")

    def __len__(self) -> int:
        return len(self.tokens)

    @cached_property
    def names(self) -> tuple[str, ...]:
        return tuple(token.name for token in self.tokens)

    @cached_property
    def _numbers(self) -> dict[str, int]:
        return {token.name: token.number for token in self.tokens}

    def __contains__(self, name: object) -> bool:
        return name in self._numbers

    def number(self, name: str) -> int:
        """The number (1 … V) of a token. Raises ContractError for an unknown name."""
        try:
            return self._numbers[name]
        except KeyError:
            raise ContractError(
                "no such token in this vocabulary",
                wanted="one of " + self.summary(),
                found=name,
            ) from None

    def column(self, name: str) -> int:
        """The column (0 … V-1) of a token in a dense (N, V) matrix."""
        return self.number(name) - 1

    def columns(self, names: Iterable[str]) -> NDArray[np.int64]:
        return np.array([self.column(name) for name in names], dtype=np.int64)

    def named(self, kind: str) -> tuple[str, ...]:
        """The names of all tokens of one kind, in order."""
        return tuple(token.name for token in self.tokens if token.kind == kind)

    def coefficients(self, band: str) -> int:
        """How many spectral coefficients of a band ('bp' or 'rp') the model reads."""
        return sum(token.band == band for token in self.tokens)

    def coefficient_columns(self, band: str) -> NDArray[np.int64]:
        """Columns of a band's coefficients in a dense (N, V) matrix, in coefficient order."""
        tokens = sorted((t for t in self.tokens if t.band == band), key=lambda t: t.index)
        return np.array([token.number - 1 for token in tokens], dtype=np.int64)

    def summary(self) -> str:
        """For messages: bp0 … bp54, rp0 … rp54, bprp, …"""
        parts = [
            f"{band}0 … {band}{count - 1}" for band in BANDS if (count := self.coefficients(band))
        ]
        parts += [token.name for token in self.tokens if token.kind != "coefficient"]
        return ", ".join(parts)

    def to_rows(self) -> list[dict[str, Any]]:
        return [asdict(token) for token in self.tokens]

    @classmethod
    def from_rows(cls, rows: Iterable[Mapping[str, Any]]) -> Vocabulary:
        return cls(tuple(Token(**row) for row in rows))


def load_vocabulary(path: Path | None = None) -> Vocabulary:
    """The vocabulary declared in a TOML file (the shipped one where none is named).

    The file lists ``[[band]]`` tables (name, count, unit, description) for the spectral
    coefficients and ``[[token]]`` tables for everything else, in order. Raises ContractError.
    """
    path = path or shipped("schemas") / "vocabulary.toml"
    try:
        declared = tomllib.loads(path.read_text(encoding="utf-8"))
        return Vocabulary.from_rows(
            {"number": number} | row for number, row in enumerate(_rows(declared), start=1)
        )
    except ContractError:
        raise
    except (ValueError, TypeError, KeyError, OSError, RecursionError) as error:
        raise ContractError(
            "a vocabulary that is declared wrongly",
            wanted="[[band]] tables with name, count, unit, description, then [[token]] tables",
            found=f"{type(error).__name__}: {error}",
            where=path,
        ) from None


def _rows(declared: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The tokens that bands and tokens of a declaration stand for, in their order."""
    for band in declared["band"]:
        if not 0 <= band["count"] <= MOST:
            raise ValueError(f"a band of {band['count']} coefficients")
        for index in range(band["count"]):
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
