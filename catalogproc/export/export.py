"""Export of a finished catalog to files for TOPCAT, STILTS, Astropy, LSDB and others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pyarrow as pa

from catalogproc.errors import JobError, did_you_mean
from catalogproc.export.binary_rows import RecordTable
from catalogproc.export.csv_ecsv import write_csv, write_ecsv
from catalogproc.export.fits import write_fits
from catalogproc.export.hats import POSITION, write_hats
from catalogproc.export.reader import Progress, Rows, open_rows
from catalogproc.export.votable import write_votable
from catalogproc.io.atomic import AtomicFile
from catalogproc.io.parquet_writer import TableWriter


def export_catalog(
    folder: Path,
    format: str,
    output: Path,
    *,
    columns: Sequence[str] | None = None,
    where: str | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> int:
    """Write a catalog as one file, completely or not at all, and return the number of rows.

    Memory holds one batch of rows (HATS: one partition), however large the catalog.
    source_id and the flags keep every bit. The file holds units, UCDs, descriptions and the
    run's hashes, except for CSV, which has no place for them.

    Parameters
    ----------
    folder
        The run folder.
    format
        ``fits`` (binary table), ``votable`` (1.4, BINARY2), ``parquet`` (with VOParquet's
        metadata), ``csv``, ``ecsv``, or ``hats`` (a folder, partitioned on the sky, for LSDB).
    output
        The file, or the folder.
    columns
        Which columns, in which order; all of the contract by default. HATS always has the
        columns of the position.
    where
        Which stars, such as ``good_mass_age and m_h > -0.5``: see
        :mod:`catalogproc.export.where`.
    overwrite
        Whether a file of that name may be replaced.
    progress
        Called with (rows done, all rows, "").

    Raises
    ------
    JobError
        No such format, a column is named twice, the condition cannot be parsed, or HATS is
        requested of a run without positions.
    ContractError
        No such column, or the catalog's contract has another version.
    ResumeError
        The folder holds no run.
    VerifyError
        A part that a receipt names is missing or has other rows than it says.
    CatalogprocError
        The file exists already, or cannot be written.

    Examples
    --------
    >>> import catalogproc
    >>> stars = catalogproc.export_catalog(
    ...     "output/demo", "fits", "giants.fits", where="good_params", overwrite=True
    ... )
    >>> stars > 0
    True
    """
    if format not in FORMATS:
        raise JobError("no such format", wanted=", ".join(FORMATS), found=format, where="--format",
                       advice=did_you_mean(format, FORMATS))  # fmt: skip
    if format == "hats" and columns is not None:
        columns = [*columns, *(name for name in POSITION if name not in columns)]
    rows = open_rows(Path(folder), columns, where, progress)
    FORMATS[format](rows, Path(output), overwrite)
    return rows.count


def format_of(output: Path) -> str:
    """Return the format that the ending of a file's name means; FITS for an unknown one.

    Parameters
    ----------
    output
        The file, or the folder, which is HATS.
    """
    return ENDINGS.get(Path(output).suffix.lower(), "fits")


def _to_fits(rows: Rows, output: Path, overwrite: bool) -> None:
    cards = {fact.keyword: (fact.value, fact.meaning) for fact in rows.facts}
    with AtomicFile(output, overwrite=overwrite) as file:
        write_fits(file, _record_table(rows), cards)


def _to_votable(rows: Rows, output: Path, overwrite: bool) -> None:
    with AtomicFile(output, overwrite=overwrite) as file:
        write_votable(file, _record_table(rows), rows.metadata)


def _record_table(rows: Rows) -> RecordTable:
    return RecordTable(rows.contract, rows.stream(), rows.count, rows.widths)


def _to_parquet(rows: Rows, output: Path, overwrite: bool) -> None:
    with TableWriter(output, rows.contract, rows.metadata, overwrite=overwrite) as writer:
        for batch in rows.stream():
            writer.write(pa.Table.from_batches([batch]))


def _to_csv(rows: Rows, output: Path, overwrite: bool) -> None:
    with AtomicFile(output, overwrite=overwrite) as file:
        write_csv(file, rows.contract, rows.stream())


def _to_ecsv(rows: Rows, output: Path, overwrite: bool) -> None:
    with AtomicFile(output, overwrite=overwrite) as file:
        write_ecsv(file, rows.contract, rows.stream(), facts=rows.metadata)


Writer = Callable[[Rows, Path, bool], None]
FORMATS: dict[str, Writer] = {
    "fits": _to_fits,
    "votable": _to_votable,
    "parquet": _to_parquet,
    "csv": _to_csv,
    "ecsv": _to_ecsv,
    "hats": write_hats,
}
"""The writer of each format."""
ENDINGS = {
    ".fits": "fits", ".fit": "fits", ".vot": "votable", ".xml": "votable", ".votable": "votable",
    ".parquet": "parquet", ".pq": "parquet", ".csv": "csv", ".ecsv": "ecsv", ".hats": "hats",
}  # fmt: skip
"""The format that the ending of a file's name means."""
