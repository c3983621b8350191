"""The bits of quality_flags and input_flags, declared in schemas/flags.toml and input_flags.toml.

A quality flag is a warning; an input flag states a fact about a star's inputs that is no fault."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from catalogproc.declaration import check_types, declared_tables, read_declaration
from catalogproc.errors import ContractError
from catalogproc.resources import shipped


@dataclass(frozen=True)
class Flag:
    """One bit of a column of flags, with the columns of gaia_source that its rule needs."""

    bit: int
    name: str
    description: str
    source: str
    needs: tuple[str, ...] = ()
    needs_one_of: tuple[str, ...] = ()

    @property
    def value(self) -> int:
        return 1 << self.bit


@dataclass(frozen=True)
class FlagSet:
    """All bits of a column of flags."""

    flags: tuple[Flag, ...]

    @cached_property
    def _by_name(self) -> dict[str, Flag]:
        return {flag.name: flag for flag in self.flags}

    def __getitem__(self, name: str) -> Flag:
        return self._by_name[name]

    def mask(self, *names: str) -> int:
        """Return the sum of the values of the named bits."""
        return sum(self._by_name[name].value for name in names)

    def words(self, value: int) -> list[str]:
        """Return the names of the bits that are set.

        Parameters
        ----------
        value
            A value of the column.
        """
        return [flag.name for flag in self.flags if value & flag.value]


@dataclass(frozen=True)
class Flags(FlagSet):
    """The bits of quality_flags, and the masks of the two columns that are made of them."""

    good_params: int
    good_mass_age: int


@cache
def load_flags() -> Flags:
    """Load the flags declared in schemas/flags.toml. Raises ContractError."""
    return declared_flags(shipped("schemas") / "flags.toml")


@cache
def load_input_flags() -> FlagSet:
    """Load the flags declared in schemas/input_flags.toml. Raises ContractError."""
    path = shipped("schemas") / "input_flags.toml"
    return FlagSet(_declared(read_declaration(path), path))


def declared_flags(path: Path) -> Flags:
    """Load the flags that a TOML file declares.

    Parameters
    ----------
    path
        A file like schemas/flags.toml.

    Raises
    ------
    ContractError
        The file cannot be read, or declares no flags.
    """
    declared = read_declaration(path)
    flags = _declared(declared, path)
    values = {flag.name: flag.value for flag in flags}

    def mask(rule: str) -> int:
        try:
            return sum(values[name] for name in declared[rule]["clear"])
        except (KeyError, TypeError) as error:
            raise ContractError(
                "a rule that names no list of flags",
                wanted=f"[{rule}] with clear = [names of flags]", found=error, where=path,
            ) from None  # fmt: skip

    params = mask("good_params")
    return Flags(flags, params, params | mask("good_mass_age"))


def _declared(declared: Mapping[str, Any], path: Path) -> tuple[Flag, ...]:
    """Return the flags that a file declares. Raises ContractError."""
    try:
        flags = tuple(_flag(row) for row in declared_tables(declared, "flag", path))
    except TypeError as error:
        raise ContractError(f"a flag is declared wrongly: {error}", where=path) from None
    for flag in flags:
        check_types(flag, path)
    if len({f.bit for f in flags}) != len(flags) or not all(0 <= f.bit <= 30 for f in flags):
        raise ContractError("flag bits must be distinct and 0 to 30", where=path)
    return flags


def _flag(row: Mapping[str, Any]) -> Flag:
    fields: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in row.items()}
    return Flag(**fields)
