"""Published catalogs, read by a recipe: the stars that a catalog of a run has too."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from catalogproc.datasets.crosswalk import read_crosswalk
from catalogproc.datasets.table_io import column_names, read_batches, read_units
from catalogproc.errors import InputError
from catalogproc.evaluation.external_checks import Measured
from catalogproc.evaluation.recipes import (
    PLAIN,
    UNITS,
    Condition,
    LabelColumns,
    Recipe,
    array_element,
    find_column,
)
from catalogproc.evaluation.reference_identifiers import (
    IdentifierTables,
    Link,
    identifiers,
    read_link,
)
from catalogproc.features.table_columns import TableColumns
from catalogproc.features.table_inputs import GIGAYEAR, LOGARITHMS

Floats = NDArray[np.float64]
Ids = NDArray[np.int64]
Mask = NDArray[np.bool_]

NOT_MATCHED = "not in the catalog"
"""Rows of stars that the run does not have."""

ENCLOSED = 0.9
"""Percentiles that enclose the value for a smaller share of stars are not percentiles."""


@dataclass(frozen=True, eq=False)
class ReferenceStars:
    """Stars of a published catalog that the catalog of a run has too.

    Attributes
    ----------
    recipe, path
        How it was read, and the file.
    rows
        Numbers of its rows by what became of them; they add up to all rows.
    used
        Names of the columns that were read; ``absent`` the labels that the file lacks.
    notes
        Sentences about what was not as the recipe says.
    source_id
        Gaia identifiers (M,), each once, ascending.
    labels
        Values and errors (M,) by label: ``age`` as log_age; NaN where missing or not known.
    """

    recipe: Recipe
    path: Path
    rows: Mapping[str, int]
    used: tuple[str, ...]
    absent: tuple[str, ...]
    notes: tuple[str, ...]
    source_id: Ids
    labels: Mapping[str, Measured]

    @property
    def title(self) -> str:
        """Name of the catalog; of the file where no recipe of its own recognises it."""
        return self.path.name if self.recipe.name == PLAIN else self.recipe.title


def read_reference(
    path: Path, recipe: Recipe, stars: Ids, tables: IdentifierTables | None = None
) -> ReferenceStars:
    """Read the stars of a published catalog that are among those of a run.

    Of several rows of a star the one with the smallest error counts, label by label.

    Parameters
    ----------
    path
        The catalog: a file in any format that is read, or a folder of Parquet files.
    recipe
        How to read it.
    stars
        Gaia identifiers of the run, ascending.
    tables
        How its identifiers become those of the run, where they are others.

    Raises
    ------
    InputError
        It cannot be read, or has no Gaia identifiers and no table links them.
    ContractError
        A column does not hold numbers, or its unit cannot be converted.
    """
    tables = tables or IdentifierTables()
    reader = _Reader.of(path, recipe, tables.link)
    crosswalk = None if tables.crosswalk is None else read_crosswalk(tables.crosswalk)
    what = ("without a Gaia identifier", "not in the crosswalk", "not selected", NOT_MATCHED)
    rows = dict.fromkeys(what, 0)
    parts: list[tuple[Ids, dict[str, dict[str, Floats]]]] = []
    for batch in read_batches(path, reader.columns):
        ids, known = reader.identified(batch)
        rows["without a Gaia identifier"] += int((~known).sum())
        if crosswalk is not None:
            ids = crosswalk.to_newer(ids)
            rows["not in the crosswalk"] += int((known & (ids == 0)).sum())
            known &= ids != 0
        selected = known & reader.selected(batch)
        place = np.minimum(np.searchsorted(stars, ids), max(len(stars) - 1, 0))
        matched = selected & (stars[place] == ids) if len(stars) else np.zeros(len(ids), bool)
        rows["not selected"] += int((known & ~selected).sum())
        rows[NOT_MATCHED] += int((selected & ~matched).sum())
        if matched.any() or not parts:
            parts.append((ids[matched], reader.numbers(batch.filter(pa.array(matched)))))
    ids = np.concatenate([part[0] for part in parts]) if parts else np.zeros(0, np.int64)
    labels, notes = _measured(recipe, [part[1] for part in parts])
    unique, labels = _each_once(ids, labels)
    rows |= {"in the catalog": len(ids)}
    return ReferenceStars(
        recipe, path, rows, reader.columns, reader.absent, (*reader.notes, *notes), unique, labels
    )


@dataclass(frozen=True, eq=False)
class _Reader:
    """What is read of a file: columns by label and role, and where identifiers are."""

    path: Path
    recipe: Recipe
    names: tuple[str, ...]
    identifier: str
    link: Link | None
    labels: Mapping[str, Mapping[str, str]]
    conditions: tuple[tuple[Condition, str], ...]
    units: Mapping[str, str]

    @classmethod
    def of(cls, path: Path, recipe: Recipe, link: Path | None) -> _Reader:
        """Find the columns of a recipe in a file."""
        names = column_names(path)
        table = None if find_column(names, recipe.identifier) else read_link(path, recipe, link)
        identifier = find_column(names, table.names if table else recipe.identifier)
        if identifier is None:
            raise InputError(
                f"no identifier of {recipe.title}", where=path, found=", ".join(names[:30]),
                wanted=" or ".join(table.names if table else recipe.identifier),
            )  # fmt: skip
        found = {
            label: {
                role: column
                for role, words in columns.named().items()
                if (column := find_column(names, words)) is not None
            }
            for label, columns in recipe.labels.items()
        }
        labels = {label: roles for label, roles in found.items() if "value" in roles}
        conditions = [(one, find_column(names, one.column)) for one in recipe.select]
        known = tuple((one, name) for one, name in conditions if name is not None)
        return cls(path, recipe, names, identifier, table, labels, known, read_units(path))

    @property
    def absent(self) -> tuple[str, ...]:
        """Labels of the recipe that the file lacks."""
        return tuple(label for label in self.recipe.labels if label not in self.labels)

    @property
    def notes(self) -> tuple[str, ...]:
        """Conditions of the recipe whose column the file lacks."""
        known = [condition for condition, _ in self.conditions]
        left_out = (one for one in self.recipe.select if one not in known)
        return tuple(f"no column for the selection {one}: all rows count" for one in left_out)

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns of the file that are read."""
        found = [self.identifier, *(name for _, name in self.conditions)]
        found += [name for roles in self.labels.values() for name in roles.values()]
        bases = (array_element(name, self.names) or (name, 0) for name in found)
        return tuple(dict.fromkeys(base for base, _ in bases))

    def identified(self, batch: pa.Table) -> tuple[Ids, Mask]:
        """Return Gaia identifiers (N,), 0 where unknown, and which are known."""
        column = batch[self.identifier]
        if self.link is not None:
            word = next(w for w in self.link.names if find_column([self.identifier], (w,)))
            ids = self.link.gaia_of(word, column)
        else:
            ids = identifiers(column, f"{self.path}, column {self.identifier}")
        return np.asarray(pc.fill_null(ids, 0)), np.asarray(ids.is_valid())

    def selected(self, batch: pa.Table) -> Mask:
        """Return the rows for which all conditions of the recipe hold."""
        chosen = np.ones(len(batch), dtype=bool)
        for condition, name in self.conditions:
            if condition.among:
                words = pc.utf8_trim_whitespace(batch[name].cast(pa.string()))
                chosen &= np.asarray(pc.is_in(words, value_set=pa.array(condition.among)))
            values = self._column(batch, name, "", "") if not condition.among else None
            if values is not None and condition.below is not None:
                chosen &= values < condition.below
            if values is not None and condition.above is not None:
                chosen &= values > condition.above
        return chosen

    def numbers(self, batch: pa.Table) -> dict[str, dict[str, Floats]]:
        """Return the numbers (N,) by label and role, in the units of UNITS."""
        found: dict[str, dict[str, Floats]] = {}
        for label, roles in self.labels.items():
            columns = self.recipe.labels[label]
            found[label] = {
                role: self._role(batch, name, label, role) for role, name in roles.items()
            }
            if columns.typical and "error" not in found[label]:
                found[label]["error"] = np.full(len(batch), columns.typical)
        return found

    def _role(self, batch: pa.Table, name: str, label: str, role: str) -> Floats:
        columns = self.recipe.labels[label]
        if columns.scale == "log10":  # a pure number, whatever the file calls its unit
            return self._column(batch, name, "", "")
        lengths = role in ("error", "minus", "plus")
        return self._column(batch, name, label, columns.unit, difference=lengths)

    def _column(
        self, batch: pa.Table, name: str, label: str, unit: str, *, difference: bool = False
    ) -> Floats:
        """A column as numbers; NaN where missing, infinite, or one of the recipe's words for it."""
        element = array_element(name, self.names)
        base = name if element is None else element[0]
        values = batch[base].combine_chunks()
        if element is not None:
            values = pc.list_element(values, element[1])
        units = {name: (self.units.get(base) or unit) if label else ""}
        columns = TableColumns.of(pa.table({name: values}), units, self.path)
        plain = TableColumns.of(pa.table({name: values}), {name: ""}, self.path).numbers(0, "")
        wanted, logarithm = UNITS.get(label, ""), LOGARITHMS.get(label, "")
        found = columns.numbers(0, wanted, logarithm, difference=difference)
        unknown = ~np.isfinite(found) | np.isin(plain, self.recipe.missing)
        return np.where(unknown, np.nan, found)


def _measured(
    recipe: Recipe, parts: Iterable[dict[str, dict[str, Floats]]]
) -> tuple[dict[str, Measured], tuple[str, ...]]:
    """Values and errors (R,) of all rows by token, and what was not as the recipe says."""
    parts = list(parts)
    found, notes = {}, []
    for label in parts[0] if parts else ():
        roles = {
            role: np.concatenate([part[label][role] for part in parts]) for role in parts[0][label]
        }
        value, error, note = _value_and_error(roles, recipe.labels[label])
        notes += [f"{label}: {note}"] if note else []
        token, measured = _as_token(label, Measured(value, error))
        found[token] = measured
    return found, tuple(notes)


def _value_and_error(
    roles: Mapping[str, Floats], columns: LabelColumns
) -> tuple[Floats, Floats, str]:
    value, note = roles["value"], ""
    error = np.full(len(value), np.nan)
    if "error" in roles:
        error = roles["error"]
    elif {"minus", "plus"} <= roles.keys():
        error = 0.5 * (np.abs(roles["minus"]) + np.abs(roles["plus"]))
    elif {"low", "high"} <= roles.keys():
        low, high = roles["low"], roles["high"]
        stated = np.isfinite(value) & np.isfinite(low) & np.isfinite(high)
        enclosed = (low <= value) & (value <= high)
        if stated.any() and enclosed[stated].mean() < ENCLOSED:
            note = "the percentiles do not enclose the values, and count as unknown"
        else:
            error = 0.5 * (high - low)
    error = np.where(error > 0, error, np.nan)
    if columns.scale == "log10":
        value = 10.0**value
        error = error * value * np.log(10.0)
    return value, error, note


def _as_token(label: str, found: Measured) -> tuple[str, Measured]:
    """The label as the catalog is compared in: ages in logarithm; what is not positive unknown."""
    value, error = found.value, found.error
    if label in ("mass", "age"):
        value = np.where(value > 0, value, np.nan)
    if label == "age":
        return "log_age", Measured(np.log10(value) + GIGAYEAR, error / (value * np.log(10.0)))
    return label, Measured(value, error)


def _each_once(ids: Ids, labels: Mapping[str, Measured]) -> tuple[Ids, dict[str, Measured]]:
    """Stars (M,), each once: label by label the row with the smallest error."""
    unique, star = np.unique(ids, return_inverse=True)
    found = {}
    for label, measured in labels.items():
        error = np.where(np.isnan(measured.error), np.inf, measured.error)
        order = np.lexsort((error, np.isnan(measured.value), star))
        first = order[np.searchsorted(star[order], np.arange(len(unique)))]
        found[label] = measured.rows(first)
    return unique, found
