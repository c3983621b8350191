"""Quality flags: the bits of quality_flags, declared in schemas/flags.toml."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

from catalogproc.contract import check_types, declared_tables, read_declaration
from catalogproc.errors import ContractError
from catalogproc.resources import shipped


@dataclass(frozen=True)
class Flag:
    """One bit of quality_flags."""

    bit: int
    name: str
    description: str
    source: str

    @property
    def value(self) -> int:
        return 1 << self.bit


@dataclass(frozen=True)
class Flags:
    """All bits, and the masks of the two summary columns that are made of them."""

    flags: tuple[Flag, ...]
    good_params: int
    good_mass_age: int

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
            A value of the column quality_flags.
        """
        return [flag.name for flag in self.flags if value & flag.value]


@cache
def load_flags() -> Flags:
    """Load the flags declared in schemas/flags.toml. Raises ContractError."""
    return declared_flags(shipped("schemas") / "flags.toml")


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
    try:
        flags = tuple(Flag(**row) for row in declared_tables(declared, "flag", path))
    except TypeError as error:
        raise ContractError(f"a flag is declared wrongly: {error}", where=path) from None
    for flag in flags:
        check_types(flag, path)
    if len({f.bit for f in flags}) != len(flags) or not all(0 <= f.bit <= 30 for f in flags):
        raise ContractError("flag bits must be distinct and 0 to 30", where=path)
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
