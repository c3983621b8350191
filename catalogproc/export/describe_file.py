"""What a file of the outside world is: its format, its spectra, what would be read of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from catalogproc.contract import load_contract
from catalogproc.errors import CatalogprocError, ContractError, InputError, plural
from catalogproc.export.sections import Section
from catalogproc.features.derived_labels import near_labels
from catalogproc.features.table_inputs import TableInputs, default_job
from catalogproc.readers.auxiliary_columns import absent_lines
from catalogproc.readers.auxiliary_rows import UsedColumn, own_columns, used_columns
from catalogproc.readers.coerce import is_text
from catalogproc.readers.column_lookup import source_id_column
from catalogproc.readers.formats import Table, open_table
from catalogproc.readers.release_check import OTHER_KINDS, file_spectra
from catalogproc.readers.xp import spectra_columns
from catalogproc.release import load_release, spectra_text
from catalogproc.vocabulary import load_vocabulary

if TYPE_CHECKING:
    from catalogproc.release import Release

_COEFFICIENTS = "XP continuous spectra: coefficients in the archive's basis (XP_CONTINUOUS)"
_NO_CORRELATIONS = (
    "Correlations of the coefficients: their errors are taken to be independent, as by the jobs "
    "that ship."
)
_HEADER = ("column", "in the file", "unit", "meaning")


@dataclass(frozen=True)
class _Spectra:
    """What the spectra of a file are: in words, their columns, and their release if it is known."""

    kind: str
    columns: dict[str, tuple[str, ...]]
    release: Release | None
    facts: tuple[tuple[str, str], ...]


def describe_file(path: Path) -> list[Section]:
    """Return sections that say what a file is, and what `run` or `infer` would read of it.

    Parameters
    ----------
    path
        The file.

    Raises
    ------
    InputError
        It cannot be read, or is of a format that is not read.
    """
    table = open_table(path)
    spectra = _spectra(table, path)
    if spectra is not None:
        return _spectra_sections(table, path, spectra)
    try:
        used = used_columns(table)
    except InputError as error:
        return _table_sections(table, path, error)
    return _auxiliary_sections(table, path, used)


def _spectra(table: Table, path: Path) -> _Spectra | None:
    """Return what the spectra of a file are; None where it has none."""
    try:
        columns, found = spectra_columns(path), file_spectra(path)
    except InputError:
        return None
    if any("correlation" in name.lower() for name in table.types) and "flux" not in columns:
        columns = spectra_columns(path, correlations=True)
    kinds = [words for name, words in OTHER_KINDS.items() if name in columns]
    releases = found.releases() if not kinds else ()
    facts = [("spectra of the first rows", spectra_text(found.usual))] if found.usual else []
    titles = " or ".join(release.title for release in releases)
    stated = f"the file states {found.stated}" if found.stated else "the file states none"
    length = f"by length and basis {titles}" if titles else "not known by its spectra"
    facts.append(("Gaia release", f"{length}; {stated}"))
    return _Spectra(
        kinds[0] if kinds else _COEFFICIENTS, columns, releases[0] if releases else None,
        tuple(facts),
    )  # fmt: skip


def _facts(table: Table, path: Path, what: str, more: Sequence[tuple[str, str]] = ()) -> Section:
    rows = "known when the whole file is read" if table.rows is None else f"{table.rows:,}"
    stated = sum(name in table.types for name in table.units)
    facts = (
        ("what it is", what),
        ("format", table.kind),
        ("rows", rows),
        ("columns", f"{plural(len(table.types), 'column')}, {stated:,} with a unit"),
        *more,
        *(("not read", other) for other in table.unread),
    )
    return Section(str(path), "", ("fact", "value"), facts)


def _spectra_sections(table: Table, path: Path, spectra: _Spectra) -> list[Section]:
    contract = load_contract("xp_continuous")
    release = spectra.release or load_release("dr3")
    own = own_columns(table, spectra.release)
    rows: list[tuple[str, ...]] = [
        (name, _held_by(name, holders), contract[name].unit, contract[name].description)
        for name, holders in spectra.columns.items()
    ]
    rows += _used_rows(own)
    words = "For `catalogproc run --input`."
    if spectra.kind != _COEFFICIENTS:
        words += " Only models of canonical coefficients read it, as the shipped one for giants."
    given = {*_stored(own), *(name for holders in spectra.columns.values() for name in holders)}
    others = [name for name in table.types if name not in given]
    sections = [
        _facts(table, path, spectra.kind, spectra.facts),
        Section("columns that are read", words, _HEADER, tuple(rows)),
    ]
    sections += _not_read(others)
    if "correlations" not in " ".join(spectra.columns) and spectra.kind == _COEFFICIENTS:
        sections.append(Section("missing", _NO_CORRELATIONS))
    absent = absent_lines({column.name for column in own}, release)
    if absent:
        text = "\n".join(absent)
        follows = "G, BP and RP are synthesised from the spectra where they are not given."
        sections.append(Section("missing, unless --gaia-source has it", f"{text}\n{follows}"))
    return sections


def _auxiliary_sections(table: Table, path: Path, used: Sequence[UsedColumn]) -> list[Section]:
    stored = set(_stored(used))
    sections = [
        _facts(table, path, "a table of photometry, astrometry or dust by source_id"),
        Section("columns that are read", "For `catalogproc run --gaia-source`, beside spectra.",
                _HEADER, tuple(_used_rows(used))),
    ]  # fmt: skip
    sections += _not_read([name for name in table.types if name not in stored])
    present = {column.name for column in used}
    if absent := absent_lines(present, load_release("dr3")):
        sections.append(Section("missing", "\n".join(absent)))
    return sections


def _table_sections(table: Table, path: Path, error: InputError) -> list[Section]:
    """Return what `infer` would read of a table that is neither spectra nor auxiliary."""
    vocabulary = load_vocabulary()
    kinds = {name: pa.float64() if is_text(kind) else kind for name, kind in table.types.items()}
    empty = pa.schema(list(kinds.items())).empty_table()
    try:
        inputs = TableInputs.of(
            empty, vocabulary, default_job(vocabulary), units=table.units, where=path
        )
    except ContractError as refused:
        why = refused if _has_source_id(table) else error
        text = f"{why.message}; wanted: {why.wanted}"
        lines = [text, *([f"what to do: {why.advice}"] if why.advice else [])]
        return [
            _facts(table, path, "a table of which nothing is read"),
            Section("why", "\n".join(lines)),
            *_not_read(list(table.types)),
        ]
    rows = tuple((name, table.units.get(name, ""), "input") for name in inputs.used)
    near = near_labels(inputs.ignored, inputs.used, vocabulary)
    return [
        _facts(table, path, "a table of labels or other tokens"),
        Section("columns that are read", "For `catalogproc infer --input` and Model.predict.",
                ("column", "unit", "used as"), rows),
        *_not_read([f"{n} ({near[n]})" if n in near else n for n in inputs.ignored]),
    ]  # fmt: skip


def _has_source_id(table: Table) -> bool:
    try:
        return bool(source_id_column(table))
    except CatalogprocError:
        return False


def _stored(used: Sequence[UsedColumn]) -> list[str]:
    return [column.stored for column in used]


def _used_rows(used: Sequence[UsedColumn]) -> list[tuple[str, ...]]:
    contract = load_contract("gaia_source")
    return [
        (
            column.name,
            "" if column.stored == column.name else column.stored,
            contract[column.name].unit + (" (assumed)" if column.unit_assumed else ""),
            contract[column.name].description,
        )
        for column in used
    ]


def _held_by(name: str, holders: Sequence[str]) -> str:
    """Return which columns of a file hold one of ours, where they are called otherwise."""
    if len(holders) > 1:
        return f"{holders[0]} ... {holders[-1]}"
    return "" if holders in ((), (name,)) else holders[0]


def _not_read(names: Sequence[str]) -> list[Section]:
    return [Section("columns that are not read", ", ".join(names))] if names else []
