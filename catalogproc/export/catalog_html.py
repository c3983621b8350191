"""A catalog as a small HTML table, for notebooks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from catalogproc.contract import Contract
from catalogproc.errors import plural
from catalogproc.flags import load_flags
from catalogproc.rundir.manifest import RunIdentity

ROWS = 5
"""Stars that are shown."""
SHOWN = ("source_id", "teff", "e_teff", "logg", "m_h", "mass", "e_mass", "age", "e_age")
"""Columns that are shown, where the catalog has them."""
GOOD = {
    "good_params": "use these for atmospheres",
    "good_mass_age": "use these for masses and ages",
}
"""Columns that say which stars are good, and for what."""
COUNTED = 5_000_000
"""Flags are counted in catalogs of at most so many stars: that reads one column of all of them."""


class Stars(Protocol):
    """What is shown: a :class:`~catalogproc.export.open_catalog.Catalog`."""

    @property
    def folder(self) -> Path: ...

    @property
    def identity(self) -> RunIdentity: ...

    @property
    def contract(self) -> Contract: ...

    @property
    def columns(self) -> tuple[str, ...]: ...

    def __len__(self) -> int: ...

    def batches(self, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]: ...


def catalog_html(catalog: Stars) -> str:
    """Return a catalog in HTML: stars, columns, model, what the flags say, and the first rows.

    Parameters
    ----------
    catalog
        The catalog.
    """
    identity = catalog.identity
    title = (
        f"<b>Catalog {escape(str(catalog.folder))}</b>: {plural(len(catalog), 'star')}, "
        f"{plural(len(catalog.columns), 'column')}; model {escape(str(identity.model.get('name')))}"
        f", run {escape(identity.run_id)}"
    )
    return "\n".join([f"<div><p>{title}</p>", *_first_rows(catalog), *_flags(catalog), "</div>"])


def _first_rows(catalog: Stars) -> Iterator[str]:
    names = [name for name in SHOWN if name in catalog.columns]
    batch = next(iter(catalog.batches(names)), None)
    rows = [] if batch is None else batch.slice(0, ROWS).to_pylist()
    units = (catalog.contract[name].unit for name in names)
    heads = (f"{name}<br><small>{escape(unit) or '&nbsp;'}</small>" for name, unit
             in zip(names, units, strict=True))  # fmt: skip
    yield from _table(heads, ([_cell(row[name]) for name in names] for row in rows))
    if len(catalog) > len(rows):
        yield f"<small>the first {len(rows)} of {plural(len(catalog), 'star')}</small>"


def _flags(catalog: Stars) -> Iterator[str]:
    total, flags = len(catalog), load_flags()
    if not 0 < total <= COUNTED or "quality_flags" not in catalog.columns:
        return
    parts = list(catalog.batches(["quality_flags", *GOOD]))
    values = np.concatenate([part.column(0).to_numpy() for part in parts])
    counts = [(flag, int(np.count_nonzero(values & flag.value))) for flag in flags.flags]
    rows: list[list[str]] = []
    for number, (name, words) in enumerate(GOOD.items(), start=1):
        count = sum(part.column(number).true_count for part in parts)
        rows.append([name, *_share(count, total), words])
    rows += [
        [flag.name, *_share(count, total), flag.description]
        for flag, count in sorted(counts, key=lambda item: -item[1]) if count
    ]  # fmt: skip
    yield from _table(("flag", "stars", "share", "meaning"), map(_escaped, rows))


def _share(count: int, total: int) -> tuple[str, str]:
    return f"{count:,}", f"{count / total:.1%}"


def _table(heads: Any, rows: Any) -> Iterator[str]:
    yield f"<table><thead><tr>{''.join(f'<th>{head}</th>' for head in heads)}</tr></thead><tbody>"
    for row in islice(rows, 100):
        yield f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>"
    yield "</tbody></table>"


def _cell(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else escape(str(value))


def _escaped(cells: list[str]) -> list[str]:
    return [escape(cell) for cell in cells]
