"""Identifiers of published catalogs: Gaia's, or others that a table links to Gaia's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from catalogproc.datasets.table_io import column_names, read_batches
from catalogproc.errors import InputError
from catalogproc.evaluation.recipes import Recipe, find_column
from catalogproc.readers import coerce

GAIA = ("source_id", "gaia_dr3_source_id", "dr3_source_id", "gdr3_source_id", "GaiaDR3")
"""Names of Gaia's identifiers in a table that links others to them."""


@dataclass(frozen=True)
class IdentifierTables:
    """Tables by which the identifiers of a published catalog become those of the run.

    Attributes
    ----------
    link
        Has both Gaia's identifiers and those of a catalog that has none of Gaia's.
    crosswalk
        Identifiers of the same stars in the catalog's Gaia release and in the run's.
    """

    link: Path | None = None
    crosswalk: Path | None = None


@dataclass(frozen=True)
class Link:
    """A table that has the identifiers of a catalog and Gaia's (K,)."""

    path: Path
    names: tuple[str, ...]
    other: Mapping[str, pa.Array]
    gaia: pa.Array

    @classmethod
    def read(cls, path: Path, recipe: Recipe) -> Link:
        """Read a table that links a catalog to Gaia.

        Parameters
        ----------
        path
            The table.
        recipe
            Of the catalog that is linked.

        Raises
        ------
        InputError
            It has no identifier of Gaia, or none of the catalog.
        """
        names = column_names(path)
        gaia, others = find_column(names, GAIA), [find_column(names, (n,)) for n in recipe.link]
        found = {word: name for word, name in zip(recipe.link, others, strict=True) if name}
        if gaia is None or not found:
            raise InputError(
                f"the table does not link {recipe.title} to Gaia",
                wanted=f"{' or '.join(recipe.link)}, and {' or '.join(GAIA)}",
                found=", ".join(names[:30]), where=path,
            )  # fmt: skip
        columns = list(dict.fromkeys([gaia, *found.values()]))
        table = pa.concat_tables(read_batches(path, columns), promote_options="permissive")
        ids = identifiers(table[gaia], f"{path}, column {gaia}")
        known = {word: _words(table[name]) for word, name in found.items()}
        return cls(path, tuple(found), known, ids)

    def gaia_of(self, word: str, column: pa.ChunkedArray) -> pa.Array:
        """Return Gaia's identifiers (N,), null where it has none.

        Parameters
        ----------
        word
            Name of the identifier, one of ``names``.
        column
            The catalog's identifiers (N,).
        """
        return self.gaia.take(pc.index_in(_words(column), value_set=self.other[word]))


def identifiers(column: pa.ChunkedArray | pa.Array, where: str) -> pa.Array:
    """Return Gaia identifiers as int64, null where there is none (0, negative, blank).

    Parameters
    ----------
    column
        Integers, or their digits as text; never floats, which cannot hold them.
    where
        File and column, for messages.

    Raises
    ------
    InputError
        The column holds something else.
    """
    if pa.types.is_floating(column.type):
        raise InputError(
            "identifiers cannot be read", wanted="64-bit integers",
            found="a float does not hold identifiers", where=where,
        )  # fmt: skip
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    numbers, bad = coerce.numbers(array, pa.int64())
    if bad.any():
        raise InputError(
            "identifiers cannot be read", wanted="64-bit integers",
            found=str(array[int(np.flatnonzero(bad)[0])].as_py()), where=where,
        )  # fmt: skip
    return pc.if_else(pc.greater(numbers, 0), numbers, pa.scalar(None, pa.int64()))


def _words(column: pa.ChunkedArray) -> pa.Array:
    return pc.utf8_trim_whitespace(column.cast(pa.string())).combine_chunks()


def read_link(path: Path, recipe: Recipe, link: Path | None) -> Link:
    """Read the table that links a catalog without Gaia identifiers to Gaia.

    Parameters
    ----------
    path, recipe
        The catalog.
    link
        The table.

    Raises
    ------
    InputError
        No table is given, or it does not link the catalog.
    """
    if link is None:
        raise InputError(
            f"{recipe.title} has no Gaia identifiers", where=path,
            wanted=f"--link TABLE with {' or '.join(recipe.link or GAIA)} and a Gaia source_id",
        )  # fmt: skip
    return Link.read(link, recipe)
