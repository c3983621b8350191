"""Check the auxiliary tables before a run: their columns, and how many stars they have."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from catalogproc.errors import InputError, Refusal, plural
from catalogproc.readers.gaia_source import AuxiliaryColumns, auxiliary_columns, open_auxiliary
from catalogproc.readers.xp import read_spectra

SAMPLE_FILES, SAMPLE_ROWS = 20, 1000
"""Input files, and rows of each, whose stars are looked up."""


def columns_of(files: Sequence[Path]) -> tuple[AuxiliaryColumns, ...]:
    """Return which columns of each auxiliary table are used.

    Parameters
    ----------
    files
        The tables. Every chunk needs them, so that one that cannot be read is refused.

    Raises
    ------
    Refusal
        A table cannot be read.
    """
    try:
        return tuple(auxiliary_columns(path) for path in files)
    except InputError as error:
        raise Refusal.of(error) from None


def matched_lines(
    inputs: Sequence[Path], tables: Sequence[AuxiliaryColumns], *, strict: bool
) -> list[str]:
    """Say how many of the first stars are found; refuse a run that has ``--strict`` and no match.

    Parameters
    ----------
    inputs
        Spectra. The stars in the first SAMPLE_ROWS rows of up to SAMPLE_FILES files are looked up.
    tables
        The auxiliary tables.
    strict
        Refuse what would be a warning.

    Raises
    ------
    Refusal
        In strict mode: none of the stars is found, or identifiers look rounded.
    """
    found, total = _matched_sample(inputs, [table.path for table in tables])
    warnings = [line for table in tables for line in table.warnings()]
    if total and not found:
        warnings.append(f"none of the first {plural(total, 'star')} is in the gaia_source tables")
    if warnings and strict:
        raise Refusal(
            "the gaia_source tables do not fit the spectra",
            wanted="stars of the input",
            found="; ".join(warnings),
            where=", ".join(str(table.path) for table in tables),
            advice="correct the tables, or leave out --strict",
        )
    matched = f"{found:,} of the first {plural(total, 'star')} found in the gaia_source tables"
    return [*([matched] if found else []), *(f"warning: {line}" for line in warnings)]


def _matched_sample(inputs: Sequence[Path], tables: Sequence[Path]) -> tuple[int, int]:
    """Count the first stars of the input, and those of them that are in the auxiliary tables."""
    auxiliary = open_auxiliary(tables, None)
    found = total = 0
    for path in inputs[:SAMPLE_FILES]:
        try:
            for batch in read_spectra(path, rows=SAMPLE_ROWS):
                ids = batch.column("source_id").drop_null()
                found += int(auxiliary.contains(ids).sum())
                total += len(ids)
        except InputError:
            continue  # the file's own chunk fails with this error
    return found, total
