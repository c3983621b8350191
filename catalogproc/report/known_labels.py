"""A catalog beside known labels of its stars, such as APOGEE's: scatter, bias, pictures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from catalogproc.errors import JobError
from catalogproc.export.reader import open_rows
from catalogproc.report.canvas import BLUE, GREY, INK, Canvas, finite_range, with_style
from catalogproc.report.page import Figure, counted

Float = NDArray[np.float64]

LABELS = {
    "teff": ("Teff", "K", "good_params", ".0f"),
    "logg": ("log g", "dex", "good_params", ".3f"),
    "m_h": ("[M/H]", "dex", "good_params", ".3f"),
    "alpha_m": ("[alpha/M]", "dex", "good_params", ".3f"),
    "mass": ("mass", "Msun", "good_mass_age", ".3f"),
    "log_age": ("log age", "dex", "good_mass_age", ".3f"),
}
"""Column: name, unit, the sample that is good for it, and the format of its numbers."""

_SOURCES = {"mass": "mass_source", "log_age": "age_source"}
_COLUMNS = ("source_id", *LABELS, "good_params", "good_mass_age", "in_training")
HEADER = ("label", "good stars", "scatter", "bias", "spread of known", "scatter, all stars")


@dataclass(frozen=True, eq=False)
class KnownLabel:
    """A label of N stars, known and predicted.

    Attributes
    ----------
    column
        Key of LABELS.
    known, predicted
        Values (N,), in the unit of the label.
    good
        Stars (N,) of the sample that is good for this label.
    sources
        Number of stars by the origin of the known value, where the table states it.
    """

    column: str
    known: Float
    predicted: Float
    good: NDArray[np.bool_]
    sources: Mapping[str, int]

    @property
    def text(self) -> str:
        """Name of the label."""
        return LABELS[self.column][0]

    @property
    def unit(self) -> str:
        """Unit of the label."""
        return LABELS[self.column][1]

    @property
    def sample(self) -> str:
        """Name of the sample that is good for this label."""
        return LABELS[self.column][2]

    def number(self, value: float) -> str:
        """Return a number with as many decimals as this label has; "" for NaN.

        Parameters
        ----------
        value
            In the unit of the label.
        """
        return format(value, LABELS[self.column][3]) if np.isfinite(value) else ""

    @property
    def scatter(self) -> float:
        """1.4826 times the median absolute deviation of predicted minus known, good stars."""
        return _scatter((self.predicted - self.known)[self.good])

    @property
    def bias(self) -> float:
        """Median of predicted minus known, good stars."""
        residual = (self.predicted - self.known)[self.good]
        return float(np.median(residual)) if len(residual) else float("nan")

    @property
    def spread(self) -> float:
        """Scatter of the known values themselves, good stars."""
        return _scatter(self.known[self.good])

    def cells(self) -> tuple[str, ...]:
        """Return the row under HEADER."""
        bias = self.number(self.bias)
        return (
            f"{self.text} [{self.unit}]", f"{np.count_nonzero(self.good):,}",
            self.number(self.scatter), bias if not bias or bias.startswith("-") else f"+{bias}",
            self.number(self.spread), self.number(_scatter(self.predicted - self.known)),
        )  # fmt: skip


@dataclass(frozen=True, eq=False)
class KnownLabels:
    """A catalog beside a table of known labels.

    Attributes
    ----------
    title, note, credit
        What the file says of itself in its metadata: by default its name, "" and "".
    stars
        Stars of the catalog that the table has.
    in_training
        Those of them that the model was trained on.
    labels
        Each label that both have.
    """

    title: str
    note: str
    credit: str
    stars: int
    in_training: int
    labels: tuple[KnownLabel, ...]

    @property
    def rows(self) -> list[tuple[str, ...]]:
        """The table under HEADER."""
        return [label.cells() for label in self.labels]

    def figures(self) -> list[Figure]:
        """Return the pictures for a page: predicted against known, a label each."""
        return [
            (f"known-{one.column}", f"{one.text}: predicted against known",
             self._canvas((one,)).svg(), self._caption(one))
            for one in self.labels
        ]  # fmt: skip

    def picture(self) -> Canvas:
        """Return all labels as one picture."""
        return self._canvas(self.labels)

    @with_style
    def _canvas(self, labels: tuple[KnownLabel, ...]) -> Canvas:
        columns = min(3, len(labels))
        canvas = Canvas(f"known-{labels[0].column}", panels=(-(-len(labels) // columns), columns))
        for axes, one in zip(canvas.panels, labels, strict=False):
            _draw(axes, one, self.title)
        for axes in canvas.panels[len(labels) :]:
            axes.axis("off")
        return canvas

    def _caption(self, one: KnownLabel) -> str:
        good = int(np.count_nonzero(one.good))
        others = len(one.good) - good
        text = f"{counted(good, 'star')} with {one.sample} (blue)"
        text += f", {others:,} without (grey)" if others else ""
        text += ". Line: equal values."
        if one.sources:
            known = (f"{name} {count:,}" for name, count in one.sources.items())
            text += f" Origin of the known values: {', '.join(known)}."
        return text


def known_labels(folder: Path, table: Path) -> KnownLabels:
    """Compare a run's catalog with known labels of its stars.

    Parameters
    ----------
    folder
        The run folder.
    table
        Parquet file with source_id and some of LABELS; ``mass_source`` and ``age_source`` say
        where a value is from. Metadata ``title``, ``note`` and ``credit`` of the file are shown.

    Raises
    ------
    JobError
        The file cannot be read, has none of the labels, or none of the catalog's stars.
    """
    known = _read(table)
    columns = [name for name in LABELS if name in known.schema.names]
    # Only the stars of the table are kept: a catalog may be larger than the memory.
    rows = open_rows(folder, _COLUMNS)
    found = (x.filter(pc.is_in(x["source_id"], known["source_id"])) for x in rows.batches())
    catalog = pa.Table.from_batches(list(found), schema=rows.contract.arrow_schema())
    ids, wanted = (one["source_id"].to_numpy() for one in (known, catalog))
    _, ours, theirs = np.intersect1d(wanted, ids, return_indices=True)
    if not columns or not len(ours):
        raise JobError(
            "the table of known labels does not fit the catalog",
            wanted=f"source_id of its stars and some of {', '.join(LABELS)}",
            found=f"{len(ours):,} stars of the catalog; {', '.join(columns) or 'no label'}",
            where=table,
        )  # fmt: skip
    known, catalog = known.take(theirs), catalog.take(ours)
    words = {key.decode(): text.decode() for key, text in (known.schema.metadata or {}).items()}
    labels = (_label(name, known, catalog) for name in columns)
    return KnownLabels(
        words.get("title", table.name), words.get("note", ""), words.get("credit", ""),
        len(ours), int(np.count_nonzero(catalog["in_training"].to_numpy())),
        tuple(one for one in labels if len(one.known)),
    )  # fmt: skip


def _read(table: Path) -> pa.Table:
    try:
        read = pq.read_table(table)
    except (OSError, pa.ArrowException) as error:
        raise JobError("known labels cannot be read", found=error, where=table,
                       wanted="a Parquet file") from None  # fmt: skip
    if "source_id" not in read.schema.names or not pa.types.is_int64(read["source_id"].type):
        raise JobError(
            "known labels need the column source_id, of 64-bit integers", where=table,
            found=", ".join(read.schema.names),
        )  # fmt: skip
    return read


def _label(name: str, known: pa.Table, catalog: pa.Table) -> KnownLabel:
    sides = [np.asarray(one[name].to_numpy(), dtype=np.float64) for one in (known, catalog)]
    both = np.isfinite(sides[0]) & np.isfinite(sides[1])
    good = np.array(catalog[LABELS[name][2]].to_numpy(), dtype=bool)
    source = _SOURCES.get(name, "")
    origin: Counter[str] = Counter()
    if source in known.schema.names:
        origin.update(x or "not stated" for x in known[source].filter(pa.array(both)).to_pylist())
    return KnownLabel(name, sides[0][both], sides[1][both], good[both], dict(origin.most_common()))


def _draw(axes: Any, one: KnownLabel, title: str) -> None:
    low, high = finite_range(np.concatenate([one.known, one.predicted]), 0.002, 0.04)
    size = float(np.clip(12_000 / len(one.known), 2, 9))
    for rows, colour, alpha in ((~one.good, GREY, 0.5), (one.good, BLUE, 0.45)):
        axes.scatter(
            one.known[rows], one.predicted[rows], s=size, c=colour, alpha=alpha, linewidths=0,
            rasterized=True,
        )  # fmt: skip
    axes.plot((low, high), (low, high), color=INK, linewidth=0.8)
    unit = f" [{one.unit}]"
    axes.set(
        xlabel=f"{one.text}, {'known' if one.sources else title}{unit}",
        ylabel=f"{one.text}, predicted{unit}",
        xlim=(low, high), ylim=(low, high),
    )  # fmt: skip
    bias = one.number(one.bias)
    words = f"scatter {one.number(one.scatter)} {one.unit}\nbias {bias} {one.unit}"
    axes.text(0.04, 0.96, words, va="top", fontsize=9, transform=axes.transAxes)


def _scatter(values: Float) -> float:
    if not len(values):
        return float("nan")
    return float(1.4826 * np.median(np.abs(values - np.median(values))))
