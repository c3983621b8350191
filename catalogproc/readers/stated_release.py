"""Which Gaia release the header of a file, or its designations, name.

Read are the metadata of Parquet, the cards of FITS, the elements of VOTable above the first
FIELD, and the comments of ECSV. Descriptions of columns are not: one may name an earlier
release. A header that names several releases says nothing.
"""

from __future__ import annotations

import re

import pyarrow as pa

from catalogproc.io.remote_file import as_file
from catalogproc.readers.column_lookup import source_id_column
from catalogproc.readers.formats import Table
from catalogproc.readers.formats.parquet import ParquetTable
from catalogproc.readers.formats.stream import head
from catalogproc.release import Release

HEAD = 1 << 16
"""Bytes of a header that are searched."""

_NAMED = re.compile(r"\bgaia[\s_]*(e?dr\d)", re.I)
_OURS = re.compile(r"\brelease\W{1,20}(?:value\W+)?([a-z][\w-]*)", re.I)


def stated_release(table: Table) -> str | None:
    """Return the release that a file names: dr3, edr3, dr4, …; None where it names none.

    Parameters
    ----------
    table
        The table of the file.

    Returns
    -------
    str or None
        As in a designation, "Gaia DR4" as dr4; of a file of this program the release's name.
    """
    if isinstance(table, ParquetTable):
        own = (table.schema.metadata or {}).get(b"release")
        found = {own.decode("utf-8", "replace")} if own else set()
    else:
        text = _header(table)
        found = {name.lower() for name in _NAMED.findall(text)} or set(_OURS.findall(text))
    found |= _designations(table)
    return found.pop() if len(found) == 1 else None


def is_named(release: Release, stated: str) -> bool:
    """Return whether a file that names a release may be of it.

    Parameters
    ----------
    release
        The release.
    stated
        What :func:`stated_release` returns.
    """
    words = {word.split()[-1].lower() for word in release.designations}
    return stated.lower() in {release.name.lower(), *words}


def _header(table: Table) -> str:
    """Return the part of a header that is about the whole table."""
    text = head(as_file(table.path), HEAD).decode("latin-1")
    if table.kind == "FITS":
        cards = (text[at : at + 80] for at in range(0, len(text), 80))
        kept: list[str] = []
        for card in cards:
            if card.startswith("END" + " " * 77) and any("XTENSION" in k for k in kept):
                break
            if not re.match(r"T[A-Z]+\d+ *=", card):
                kept.append(card)
        return "\n".join(kept)
    if table.kind == "VOTable":
        return text.partition("<FIELD")[0]
    comments = (line for line in text.splitlines() if line.startswith("#"))
    return "\n".join(line for line in comments if not re.search(r"\b(description|name):", line))


def _designations(table: Table) -> set[str]:
    """Return the release in the first row's designation, as a set of at most one."""
    name = source_id_column(table)
    kind = table.types[name]
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_binary(kind)):
        return set()
    for part in table.batches([name], batch_rows=1, stop=1):
        (value,) = part.columns.column(0).to_pylist() or (None,)
        text = value.decode("utf-8", "replace") if isinstance(value, bytes) else value or ""
        return {found.lower() for found in _NAMED.findall(text)}
    return set()
