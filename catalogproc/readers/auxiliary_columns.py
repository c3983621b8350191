"""Which columns of auxiliary tables are used, which are ignored, and which are in no table."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace

from catalogproc.contract import load_contract
from catalogproc.errors import did_you_mean
from catalogproc.flags import Flag, load_flags
from catalogproc.io.remote_file import File, as_file
from catalogproc.readers import coerce
from catalogproc.readers.auxiliary_rows import UsedColumn, used_columns
from catalogproc.readers.formats import Table, open_table
from catalogproc.readers.gaia_source import table_names
from catalogproc.release import Release

_SAMPLE, _FEW = 1000, 5
_ROUNDED, _EXACT = 512, 1 << 53  # floats hold all integers up to the latter


@dataclass(frozen=True)
class AuxiliaryColumns:
    """Which columns of an auxiliary table are used, for the user.

    Attributes
    ----------
    path
        The file.
    used
        The columns of the contract gaia_source that it has.
    ignored
        All other columns.
    unread
        Other tables of the file, which are not read.
    rounded
        Its identifiers look as if they had been stored as floats.
    table
        The name of its table, which several files of the same columns may be.
    """

    path: File
    used: tuple[UsedColumn, ...]
    ignored: tuple[str, ...]
    unread: tuple[str, ...]
    rounded: bool
    table: str = ""

    def lines(self) -> list[str]:
        """Return the columns as lines of text."""
        used = ", ".join(column.words for column in self.used[1:])
        lines = [f"{self.table or self.path}: columns used: {used}"]
        if self.ignored:
            lines.append(f"  ignored: {', '.join(map(self._with_suggestion, self.ignored))}")
        lines += assumed_units(self.used)
        lines += [f"  not read: {other}" for other in self.unread]
        return lines

    def warnings(self) -> list[str]:
        """Return what is probably a mistake."""
        if not self.rounded:
            return []
        return [
            f"{self.path}: its identifiers (source_id) look rounded, all of them are multiples of "
            f"{_ROUNDED}: were they stored as floats?"
        ]

    def _with_suggestion(self, name: str) -> str:
        used = {column.name for column in self.used}
        columns = [c for c in load_contract("gaia_source").columns if c.name not in used]
        names = [word for c in columns for word in (c.name, *c.also) if len(word) > 1]
        near = did_you_mean(name, names)
        return f"{name} ({near})" if near else name


def auxiliary_columns(path: str | File, release: Release | None = None) -> AuxiliaryColumns:
    """Look which columns of an auxiliary table are used.

    Parameters
    ----------
    path
        A file in any format.
    release
        What columns are called comes from here first.

    Raises
    ------
    InputError
        The file cannot be read, or is not an auxiliary table.
    """
    table = open_table(as_file(path))
    used = used_columns(table, release)
    stored = {column.stored for column in used}
    ignored = tuple(name for name in table.types if name not in stored)
    return AuxiliaryColumns(as_file(path), used, ignored, table.unread, _is_rounded(table, used[0]))


def _is_rounded(table: Table, source_id: UsedColumn) -> bool:
    """Whether the first identifiers are multiples of more than Gaia's own are (128)."""
    part = next(iter(table.batches([source_id.stored], batch_rows=_SAMPLE, stop=_SAMPLE)), None)
    if part is None:
        return False
    ids = coerce.identifiers(part.columns.column(0))[0].drop_null().to_numpy()
    ids = ids[ids > _EXACT]
    return len(ids) >= _FEW and not (ids % _ROUNDED).any()


def assumed_units(used: Sequence[UsedColumn]) -> list[str]:
    """Return a line with the columns whose unit was assumed; none where there is no such column.

    Parameters
    ----------
    used
        The columns that are read.
    """
    contract = load_contract("gaia_source")
    by_unit: dict[str, list[str]] = {}
    for column in used:
        if column.unit_assumed:
            by_unit.setdefault(contract[column.name].unit, []).append(column.name)
    assumed = (f"{', '.join(names)} [{unit}]" for unit, names in by_unit.items())
    return [f"  no unit stated, assumed: {', '.join(assumed)}"] if by_unit else []


def by_table(files: Sequence[AuxiliaryColumns]) -> Iterator[AuxiliaryColumns]:
    """Yield the columns of each table once.

    Parameters
    ----------
    files
        The columns of each file.
    """
    names = table_names([item.path for item in files], [item.used for item in files])
    seen = set()
    for item, name in zip(files, names, strict=True):
        if name not in seen or item.unread or item.rounded:
            yield replace(item, table="" if name in seen else name)
        seen.add(name)


def absent_lines(present: Collection[str], release: Release) -> list[str]:
    """Return the columns that are given nowhere, and the flags that need them, in words.

    Parameters
    ----------
    present
        Columns of the contract gaia_source that a table or a file of spectra has.
    release
        It says which table has a column, and which columns are gone.

    Returns
    -------
    list of str
        Nothing where no column is absent that the release or a flag knows.
    """
    flags = load_flags().flags
    needed = {name for flag in flags for name in (*flag.needs, *flag.needs_one_of)}
    by_place: dict[str, list[str]] = {}
    for column in load_contract("gaia_source").columns[1:]:
        name, tables = column.name, release.tables(column.name)
        gone = name in release.gone.columns
        if name not in present and (tables or gone or name in needed):
            place = f"of {' or '.join(tables)}" if tables else "of tables that are not known"
            by_place.setdefault(f"not in {release.title}" if gone else place, []).append(name)
    words = [f"{place}: {', '.join(names)}" for place, names in by_place.items()]
    lines = [f"in no table, {'; '.join(words)}"] if words else []
    unset = [text for flag in flags if (text := _unset(flag, present))]
    return [*lines, f"  flags that are therefore not set: {'; '.join(unset)}"] if unset else lines


def _unset(flag: Flag, present: Collection[str]) -> str:
    """What becomes of a flag whose rule needs columns that are absent; empty where it has all."""
    absent = [name for name in (*flag.needs, *flag.needs_one_of) if name not in present]
    others = [name for name in flag.needs_one_of if name in present]
    if not absent:
        return ""
    return f"{flag.name} ({', '.join(absent)})" + (
        f", but by {', '.join(others)}" if others else ""
    )
