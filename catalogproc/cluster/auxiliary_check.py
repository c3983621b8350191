"""Check the auxiliary tables before a run: their columns, and how many stars they have."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from catalogproc.errors import InputError, Refusal, plural
from catalogproc.readers.gaia_source import AuxiliaryColumns, auxiliary_columns, open_auxiliary
from catalogproc.readers.xp import read_spectra

if TYPE_CHECKING:
    from catalogproc.cluster.plan import Plan

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


def matched_lines(plan: Plan) -> list[str]:
    """Say how many of the first stars are found; refuse a run that has ``--strict`` and no match.

    Parameters
    ----------
    plan
        The plan of a run. The first SAMPLE_ROWS rows of up to SAMPLE_FILES files are looked up.

    Raises
    ------
    Refusal
        The plan is strict, and none of the stars is found or identifiers look rounded.
    """
    found, total = _matched_sample(plan)
    warnings = [line for columns in plan.auxiliary_columns for line in columns.warnings()]
    if total and not found:
        warnings.append(f"none of the first {plural(total, 'star')} is in the gaia_source tables")
    if warnings and plan.spec.strict:
        raise Refusal(
            "the gaia_source tables do not fit the spectra",
            wanted="stars of the input",
            found="; ".join(warnings),
            where=", ".join(map(str, plan.gaia_source)),
            advice="correct the tables, or leave out --strict",
        )
    matched = f"{found:,} of the first {plural(total, 'star')} found in the gaia_source tables"
    return [*([matched] if found else []), *(f"warning: {line}" for line in warnings)]


def _matched_sample(plan: Plan) -> tuple[int, int]:
    """Count the first stars of the input, and those of them that are in the auxiliary tables."""
    auxiliary = open_auxiliary(plan.gaia_source, None)
    found = total = 0
    for path in plan.inputs[:SAMPLE_FILES]:
        try:
            for batch in read_spectra(path, rows=SAMPLE_ROWS):
                ids = batch.column("source_id").drop_null()
                found += int(auxiliary.contains(ids).sum())
                total += len(ids)
        except InputError:
            continue  # the file's own chunk fails with this error
    return found, total
