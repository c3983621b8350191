"""The selection function of a sample: the share of a catalog's stars that it keeps.

Numbers of stars by position, G and colour, in the file that gaiaunlimited's
SubsampleSelectionFunction reads (Castro-Ginard et al. 2023): a line of the binning, and then a row
for each cell with the numbers of all stars (n) and of those kept (k), of which the share is
(k + 1) / (n + 2). Positions are pixels of HEALPix in ICRS, nested, as in source_id.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from catalogproc.contract import load_contract
from catalogproc.errors import JobError, plural
from catalogproc.export.reader import Progress, open_rows
from catalogproc.export.where import parse
from catalogproc.io.atomic import AtomicFile

COLUMNS = ("source_id", "phot_g_mean_mag", "bp_rp")
BINNING = {"phot_g_mean_mag": (3.0, 18.0, 0.5), "bp_rp": (-0.5, 5.0, 0.25)}
"""Lowest and highest edge, and width of the bins, mag."""

LEVELS = (0, 6)
"""Lowest and highest level of HEALPix: at the highest one 32 million cells."""

ID_LEVEL, ID_BITS = 12, 35
"""source_id has the pixel of this level from this bit on."""

Index = NDArray[np.int64]


@dataclass(frozen=True)
class Selection:
    """The numbers of stars in a selection function.

    Attributes
    ----------
    stars, kept
        All stars, and those of the sample.
    outside
        Stars that are in no cell: without G or colour, or with others than the bins have.
    cells
        Number of cells with stars.
    """

    stars: int
    kept: int
    outside: int
    cells: int

    def lines(self) -> list[str]:
        """Return the numbers for the user."""
        return [
            f"{self.kept:,} of {plural(self.stars, 'star')} kept, in {plural(self.cells, 'cell')}; "
            f"{self.outside:,} are in none: without G or colour, or outside of the bins"
        ]


def export_selection(
    folder: Path,
    output: Path,
    where: str,
    level: int = 4,
    *,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Selection:
    """Write the selection function of a sample as a CSV file, completely or not at all.

    Parameters
    ----------
    folder
        The run folder.
    output
        The file.
    where
        Which stars are kept, as for :func:`~catalogproc.export.export.export_catalog`.
    level
        Level of the HEALPix pixels, 0 to 6.
    overwrite
        Whether a file of that name may be replaced.
    progress
        Called with (rows done, all rows, "").

    Raises
    ------
    JobError
        Another level, or a condition that cannot be parsed.
    ContractError
        A column of the condition does not exist.
    ResumeError, VerifyError
        As for the export of a catalog.
    """
    if not LEVELS[0] <= level <= LEVELS[1]:
        raise JobError("no such level", wanted="0 to 6", found=level, where="--healpix")
    condition = parse(where, load_contract("catalog"))
    names = list(dict.fromkeys([*COLUMNS, *condition.columns]))
    rows = open_rows(Path(folder), names, None, progress)
    counts = _Counts(level)
    for batch in rows.stream():
        counts.add(batch, batch.filter(condition.expression))
    binning = {"healpix": level} | {name: list(bins) for name, bins in BINNING.items()}
    facts = f"run {rows.metadata['run_hash']}, model {rows.metadata['model']}"
    with AtomicFile(Path(output), overwrite=overwrite) as file:
        # The first line is what gaiaunlimited compares; it skips other lines with this sign.
        file.write(f"#{binning}\n# {facts}, kept: {condition.text}\n".encode())
        file.write(counts.table().encode())
    return counts.selection()


class _Counts:
    """Numbers of stars by cell."""

    def __init__(self, level: int) -> None:
        self.level = level
        self.shape = (12 * 4**level, *(_bins(name) for name in BINNING))
        self.every, self.kept = np.zeros((2, int(np.prod(self.shape))), dtype=np.int32)
        self.stars = self.kept_stars = 0

    def add(self, every: pa.RecordBatch, kept: pa.RecordBatch) -> None:
        """Add stars, and those of them that are kept."""
        self.stars += every.num_rows
        self.kept_stars += kept.num_rows
        for counts, batch in ((self.every, every), (self.kept, kept)):
            cells, numbers = np.unique(self._cells(batch), return_counts=True)
            counts[cells] += numbers.astype(np.int32)

    def _cells(self, batch: pa.RecordBatch) -> Index:
        ids = batch.column("source_id").to_numpy()
        place = [ids >> (ID_BITS + 2 * (ID_LEVEL - self.level))]
        inside = np.ones(len(ids), dtype=bool)
        for name, (low, _, width) in BINNING.items():
            values = batch.column(name).to_numpy().astype(np.float64)
            with np.errstate(invalid="ignore"):
                number = np.floor((values - low) / width)
                inside &= (number >= 0) & (number < _bins(name))
            place.append(np.where(inside, number, 0).astype(np.int64))
        inside &= (place[0] >= 0) & (place[0] < self.shape[0])
        chosen = tuple(index[inside] for index in place)
        return np.asarray(np.ravel_multi_index(chosen, self.shape), dtype=np.int64)

    def table(self) -> str:
        """Return a line of names and a line for each cell with stars."""
        cells = np.flatnonzero(self.every)
        place = np.unravel_index(cells, self.shape)
        columns = np.stack([*place, self.every[cells], self.kept[cells]], axis=1)
        names = ["healpix_", *(f"{name}_" for name in BINNING), "n", "k"]
        lines = (",".join(map(str, row)) for row in columns.tolist())
        return "\n".join([",".join(names), *lines, ""])

    def selection(self) -> Selection:
        counted = int(self.every.sum())
        return Selection(
            self.stars, self.kept_stars, self.stars - counted, int(np.count_nonzero(self.every))
        )


def _bins(name: str) -> int:
    low, high, width = BINNING[name]
    return round((high - low) / width)


def probability(path: Path) -> dict[str, NDArray[Any]]:
    """Return the cells of a selection function and the share of stars kept in each.

    Parameters
    ----------
    path
        The file.

    Returns
    -------
    Columns (M,) ``healpix``, the centres ``phot_g_mean_mag`` and ``bp_rp`` of the bins in mag,
    ``n``, ``k``, the share ``p`` and its standard deviation ``e_p`` (of a Beta distribution).
    """
    lines = Path(path).read_text(encoding="utf-8").splitlines()
    names, *rows = [line.split(",") for line in lines if not line.startswith("#")]
    numbers = np.array(rows, dtype=np.int64).reshape(-1, len(names)).T
    found: dict[str, NDArray[Any]] = {
        name.removesuffix("_"): column for name, column in zip(names, numbers, strict=True)
    }
    for name, (low, _, width) in BINNING.items():
        found[name] = low + (found[name] + 0.5) * width
    n, k = found["n"].astype(np.float64), found["k"].astype(np.float64)
    p = (k + 1) / (n + 2)
    return found | {"p": p, "e_p": np.sqrt(p * (1 - p) / (n + 3))}
