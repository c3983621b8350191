"""Recipes: how the published catalogs name the quantities that a catalog is compared with.

A recipe is a TOML file in schemas/references/, so that another catalog is a few lines of data. A
file is recognised by its columns, or its recipe is named.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path

from catalogproc.errors import ContractError, ReleaseError, did_you_mean
from catalogproc.resources import shipped
from catalogproc.toml_values import parsed

UNITS = {
    "teff": "K",
    "logg": "dex",
    "m_h": "dex",
    "alpha_m": "dex",
    "mass": "solMass",
    "age": "Gyr",
    "log_age": "dex",
}
"""Labels of a recipe and the units in which they are compared."""

PLAIN = "plain"
"""The recipe of tables that are named as this program names them; tried last."""

_ELEMENT = re.compile(r"^(?P<name>.+)\[(?P<element>\d+)\]$")


@dataclass(frozen=True)
class LabelColumns:
    """Columns of one label: each a list of names, of which the first that a file has is read.

    Attributes
    ----------
    value
        The value. ``name[2]`` is an element of an array.
    error
        Its 1-sigma error.
    low, high
        The 16th and 84th percentile.
    minus, plus
        Lengths of the lower and upper error bar.
    typical
        The error where the catalog has no column of errors; 0 where it is not known.
    unit
        Unit of all of these, unless the file states another one.
    scale
        "log10" if the columns hold the decimal logarithm of the value in ``unit``.
    """

    value: tuple[str, ...]
    error: tuple[str, ...] = ()
    low: tuple[str, ...] = ()
    high: tuple[str, ...] = ()
    minus: tuple[str, ...] = ()
    plus: tuple[str, ...] = ()
    typical: float = 0.0
    unit: str = ""
    scale: str = ""

    def named(self) -> dict[str, tuple[str, ...]]:
        """Return the names of the columns by role."""
        roles = ("value", "error", "low", "high", "minus", "plus")
        return {role: getattr(self, role) for role in roles if getattr(self, role)}


@dataclass(frozen=True)
class Condition:
    """Rows that are compared: those whose column has one of these values, or is within limits."""

    column: tuple[str, ...]
    among: tuple[str, ...] = ()
    below: float | None = None
    above: float | None = None

    def __str__(self) -> str:
        limits = [f"{self.column[0]} {' or '.join(self.among)}"] if self.among else []
        limits += [f"{self.column[0]} < {self.below:g}"] if self.below is not None else []
        limits += [f"{self.column[0]} > {self.above:g}"] if self.above is not None else []
        return " and ".join(limits)


@dataclass(frozen=True)
class Recipe:
    """How to read a published catalog.

    Attributes
    ----------
    title, cite, source
        Name of the catalog, whom to cite, and where the names of the columns are documented.
    identifier
        Names that its Gaia source_id may have.
    recognised_by
        A file with all of these columns, and none of ``not_with``, is this catalog.
    labels
        By label of UNITS: its columns.
    not_with
        See ``recognised_by``.
    release
        Gaia release of its identifiers; "" where they are not Gaia's, or any release's.
    link
        Names of identifiers that are not Gaia's: a table with both links them.
    missing
        Numbers that mean that a value is missing.
    select
        Rows that are compared; all conditions hold.
    name
        Name of the recipe: of its file without the ending.
    """

    title: str
    cite: str
    source: str
    identifier: tuple[str, ...]
    recognised_by: tuple[str, ...]
    labels: Mapping[str, LabelColumns]
    not_with: tuple[str, ...] = ()
    release: str = ""
    link: tuple[str, ...] = ()
    missing: tuple[float, ...] = ()
    select: tuple[Condition, ...] = ()
    name: str = field(default="")

    def recognises(self, names: Sequence[str]) -> bool:
        """Return whether a file with these columns is this catalog.

        Parameters
        ----------
        names
            The names of all columns.
        """
        found = all(find_column(names, (word,)) for word in self.recognised_by)
        if not found or any(find_column(names, (word,)) for word in self.not_with):
            return False
        return find_column(names, (*self.identifier, *self.link)) is not None and any(
            find_column(names, label.value) for label in self.labels.values()
        )


def find_column(names: Sequence[str], wanted: Sequence[str]) -> str | None:
    """Return the first wanted column that a table has, as the table names it.

    ``name[2]`` is found as an element of an array ``name``, unless a column is named so.

    Parameters
    ----------
    names
        The table's columns. A name counts in any case where only one column has it.
    wanted
        Names, the best first.
    """
    for word in wanted:
        if (found := _named(names, word)) is not None:
            return found
        element = _ELEMENT.match(word)
        if element is not None and (array := _named(names, element["name"])) is not None:
            return f"{array}[{element['element']}]"
    return None


def array_element(name: str, names: Sequence[str]) -> tuple[str, int] | None:
    """Return the array and the element that a found name means; None for a column of its own.

    Parameters
    ----------
    name
        As :func:`find_column` returns it.
    names
        The table's columns.
    """
    element = None if name in names else _ELEMENT.match(name)
    return None if element is None else (element["name"], int(element["element"]))


def _named(names: Sequence[str], word: str) -> str | None:
    if word in names:
        return word
    found = [name for name in names if name.lower() == word.lower()]
    return found[0] if len(found) == 1 else None


def shipped_recipes() -> tuple[str, ...]:
    """Return the names of the recipes that ship, in alphabetical order."""
    return tuple(sorted(path.stem for path in (shipped("schemas") / "references").glob("*.toml")))


def load_recipe(name_or_path: str | Path) -> Recipe:
    """Load a recipe.

    Parameters
    ----------
    name_or_path
        The name of one that ships, or a TOML file.

    Raises
    ------
    ContractError
        No such recipe, or a line of its file that is wrong or missing.
    """
    if str(name_or_path) in shipped_recipes():
        return _read(shipped("schemas") / "references" / f"{name_or_path}.toml")
    path = Path(name_or_path)
    if not path.is_file():
        raise ContractError(
            "no such recipe", wanted=f"{' | '.join(shipped_recipes())}, or a TOML file",
            found=str(name_or_path), advice=did_you_mean(name_or_path, shipped_recipes()),
        )  # fmt: skip
    return _read(path)


@cache
def _read(path: Path) -> Recipe:
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
        recipe: Recipe = parsed(Recipe, content, path)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError, RecursionError) as error:
        raise ContractError("the recipe cannot be read", found=error, where=path) from None
    except ReleaseError as error:
        raise ContractError.of(error) from None
    unknown = [label for label in recipe.labels if label not in UNITS]
    if unknown or not recipe.labels:
        raise ContractError(
            "a recipe names no label that can be compared", wanted=" | ".join(UNITS),
            found=", ".join(unknown) or "none", where=path,
        )  # fmt: skip
    if any(columns.scale not in ("", "log10") for columns in recipe.labels.values()):
        raise ContractError("unknown scale of a label", wanted='"log10", or none', where=path)
    return replace(recipe, name=path.stem)


def recognise(names: Sequence[str], chosen: Sequence[str | Path], where: object) -> list[Recipe]:
    """Return the recipes that a file is read by; several where it holds several catalogs.

    Parameters
    ----------
    names
        The names of its columns.
    chosen
        Names or files of recipes: only these are tried, and none needs to recognise the file.
    where
        The file, for messages.

    Raises
    ------
    ContractError
        No recipe fits.
    """
    if chosen:
        recipes = [load_recipe(one) for one in chosen]
        found = [one for one in recipes if replace(one, recognised_by=()).recognises(names)]
    else:
        recipes = [load_recipe(one) for one in shipped_recipes()]
        found = [one for one in recipes if one.recognised_by and one.recognises(names)]
        found = found or [one for one in recipes if one.name == PLAIN and one.recognises(names)]
    if found:
        return found
    wanted = [_wanted(recipe) for recipe in recipes] if chosen else shipped_recipes()
    raise ContractError(
        "no recipe fits the table", wanted="; or ".join(wanted) if chosen else " | ".join(wanted),
        found=f"columns {', '.join(names[:30])}", where=where,
        advice="write a recipe of a few lines, and name it with --recipe "
        "(schemas/references/ has examples)",
    )  # fmt: skip


def _wanted(recipe: Recipe) -> str:
    identifiers = " or ".join((*recipe.identifier, *recipe.link))
    values = ", ".join(columns.value[0] for columns in recipe.labels.values())
    return f"{recipe.name}: {identifiers}, and one of {values}"
