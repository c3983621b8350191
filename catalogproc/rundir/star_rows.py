"""The rows of one star in a run: of the catalog and rejected ones, each with its input file."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq

from catalogproc.errors import masked
from catalogproc.rundir.receipts import FileRows, Receipt, iterate_receipts


@dataclass(frozen=True)
class StarRow:
    """A row of a part.

    Attributes
    ----------
    receipt
        The receipt of its chunk.
    number, values
        Its number in the part, from 0, and its values by column.
    is_rejected
        Whether it is a rejected row, or one of the catalog.
    """

    receipt: Receipt
    number: int
    values: dict[str, Any]
    is_rejected: bool

    def source(self) -> FileRows:
        """Return the input file that the row is from."""
        files = self.receipt.each_file()
        if self.is_rejected:
            named = self.values["file"]
            return next((one for one in files if masked(one.file) == named), files[0])
        # The rows of a part are in the order of the chunk's files.
        ends = np.cumsum([one.rows_written for one in files])
        return files[int(np.searchsorted(ends, self.number, side="right"))]


def star_rows(folder: Path, source_id: int) -> Iterator[StarRow]:
    """Yield each row of a star in a run.

    Parameters
    ----------
    folder
        The run folder.
    source_id
        The star.
    """
    for receipt in iterate_receipts(folder):
        for name, is_rejected in ((receipt.catalog_part, False), (receipt.rejected_part, True)):
            if not name:
                continue
            with pq.ParquetFile(folder / name) as part:
                for number, values in _rows_of(part, source_id):
                    yield StarRow(receipt, number, values, is_rejected)


def _rows_of(part: pq.ParquetFile, source_id: int) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield number and values of each row of the star in a part."""
    column, end = part.schema_arrow.names.index("source_id"), 0
    for number in range(part.metadata.num_row_groups):
        group = part.metadata.row_group(number)
        begin, end = end, end + group.num_rows
        limits = group.column(column).statistics
        if limits and limits.has_min_max and not limits.min <= source_id <= limits.max:
            continue
        rows = part.read_row_group(number)
        found = pc.indices_nonzero(pc.fill_null(pc.equal(rows["source_id"], source_id), False))
        for place, values in zip(found.to_pylist(), rows.take(found).to_pylist(), strict=True):
            yield begin + place, values
