"""Check the auxiliary columns before a run: which there are, and how many stars have them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from catalogproc.cluster.remote_input import looked_at
from catalogproc.errors import InputError, Refusal, plural
from catalogproc.io.remote_file import File, RemoteFile
from catalogproc.io.staging import named
from catalogproc.readers.auxiliary_account import account_lines
from catalogproc.readers.auxiliary_columns import (
    AuxiliaryColumns,
    absent_lines,
    assumed_units,
    auxiliary_columns,
    by_table,
)
from catalogproc.readers.auxiliary_rows import UsedColumn, own_columns
from catalogproc.readers.formats import open_table
from catalogproc.readers.gaia_source import AuxiliaryTable
from catalogproc.readers.joined_rows import FAULT, Joined
from catalogproc.readers.xp import read_spectra, split_own
from catalogproc.release import Release

SAMPLE_FILES, SAMPLE_ROWS = 20, 1000
"""Input files, and rows of each, whose stars are looked up."""
SAMPLE_REMOTE = 3
"""Number of files at addresses that are opened to see their columns."""


def columns_of(files: Sequence[File], release: Release) -> tuple[AuxiliaryColumns, ...]:
    """Return which columns of each auxiliary table are used.

    Parameters
    ----------
    files
        The tables. Every chunk needs them, so that one that cannot be read is refused.
    release
        What columns are called comes from here first.

    Raises
    ------
    Refusal
        A table cannot be read.
    """
    try:
        return tuple(by_table([auxiliary_columns(path, release) for path in files]))
    except InputError as error:
        raise Refusal.of(error) from None


def column_lines(
    inputs: Sequence[File], columns: Sequence[AuxiliaryColumns], release: Release
) -> Iterator[str]:
    """Yield which columns stand in the spectra's own files, and which are given nowhere.

    Parameters
    ----------
    inputs
        Files of spectra; SAMPLE_FILES of them are opened.
    columns
        The columns of the auxiliary tables.
    release
        The release of the spectra.
    """
    kinds: dict[tuple[UsedColumn, ...], list[File]] = {}
    for path, used in _own_columns(inputs, release):
        if used:
            kinds.setdefault(used, []).append(path)
    for used, paths in kinds.items():
        more = f" and {len(paths) - 1} more" if len(paths) > 1 else ""
        words = ", ".join(column.words for column in used)
        yield f"{named(paths[0])}{more}: own columns used: {words}"
        yield from assumed_units(used)
    present = {column.name for used in (*kinds, *(c.used for c in columns)) for column in used}
    if present:
        yield from absent_lines(present, release)


def has_own_columns(inputs: Sequence[File], release: Release) -> bool:
    """Return whether columns of gaia_source stand in the first files of spectra.

    Parameters
    ----------
    inputs
        Files of spectra; SAMPLE_FILES of them are opened.
    release
        What columns are called comes from here first.
    """
    return any(used for _, used in _own_columns(inputs, release))


def _own_columns(
    inputs: Sequence[File], release: Release | None
) -> Iterator[tuple[File, tuple[UsedColumn, ...]]]:
    """Yield the first files that can be opened, with the columns beside their spectra."""
    remote = [path for path in inputs if isinstance(path, RemoteFile)]
    rest = set(remote[SAMPLE_REMOTE:])
    for path in [path for path in inputs if path not in rest][:SAMPLE_FILES]:
        try:
            used = own_columns(open_table(path), release)
        except InputError:
            continue  # the file's own chunk fails with this error
        yield path, used


def matched_lines(
    inputs: Sequence[File],
    tables: AuxiliaryTable,
    columns: Sequence[AuxiliaryColumns],
    *,
    strict: bool,
) -> list[str]:
    """Say how many of the first stars are found; refuse a run that has ``--strict`` and no match.

    Parameters
    ----------
    inputs
        Spectra. The stars in the first SAMPLE_ROWS rows of up to SAMPLE_FILES files are looked up;
        of files at addresses see :func:`~catalogproc.cluster.remote_input.looked_at`.
    tables
        The auxiliary tables, opened without a folder for staging.
    columns
        Their columns.
    strict
        Refuse what would be a warning.

    Returns
    -------
    list of str
        Nothing where neither tables are given nor columns stand beside the spectra.

    Raises
    ------
    Refusal
        Rows of one star and table differ. In strict mode: none of the stars is found, or
        identifiers look rounded.
    """
    sample = _sample(inputs, tables)
    if sample is None:
        return []
    try:
        joined = tables.join(sample.ids, sample.own, scan=True)
    except InputError as error:
        raise Refusal.of(error) from None
    stars, found = len(sample.ids), int(joined.found.sum())
    warnings = [line for item in columns for line in item.warnings()]
    if tables.files and stars and not found:
        warnings.append(f"none of the first {plural(stars, 'star')} is in the gaia_source tables")
    if warnings and strict:
        raise _unfit(tables, warnings)
    matched = f"{found:,} of the first {plural(stars, 'star')} found in the gaia_source tables"
    return [
        *([matched] if found else []),
        *_account(joined, stars),
        *(f"warning: {line}" for line in warnings),
    ]


def _unfit(tables: AuxiliaryTable, warnings: Sequence[str]) -> Refusal:
    return Refusal(
        "the gaia_source tables do not fit the spectra",
        wanted="the identifiers (source_id) of the spectra, with all digits",
        found="; ".join(warnings),
        where=", ".join(map(named, tables.files)),
        advice="write the tables again with source_id as integers of 64 bits or as text, "
        "or leave out --strict",
    )


def _account(joined: Joined, stars: int) -> Iterator[str]:
    for line in account_lines({t: c for t, c in joined.account.items() if c}, stars):
        yield f"  {line}"


@dataclass(frozen=True)
class _Sample:
    """The first stars (N,) of the input, and the columns that stand beside their spectra."""

    ids: pa.Array
    own: pa.Table | None


def _sample(inputs: Sequence[File], tables: AuxiliaryTable) -> _Sample | None:
    """Return the first stars; None where none is needed and no file has columns of its own."""
    batches: list[pa.Table] = []
    for path, used in _own_columns(looked_at(inputs), tables.release):
        try:
            if tables.files or used:
                batches += [_stars(batch) for batch in _head(path, tables.release)]
        except InputError:
            continue  # the file's own chunk fails with this error
    if not batches:
        return None
    rows = pa.concat_tables(batches, promote_options="default")
    ids = rows.column("source_id").combine_chunks()
    own = rows.drop_columns(["source_id"])
    return _Sample(ids, own if FAULT in own.column_names else None)


def _head(path: File, release: Release | None) -> Iterator[pa.RecordBatch]:
    return read_spectra(path, rows=SAMPLE_ROWS, own=True, release=release)


def _stars(batch: pa.RecordBatch) -> pa.Table:
    """The identifiers of a batch, with the columns beside its spectra."""
    spectra, own = split_own(batch)
    ids = spectra.column("source_id")
    rows = pa.table({"source_id": ids}) if own is None else own.append_column("source_id", ids)
    return rows.filter(pc.is_valid(rows.column("source_id")))
