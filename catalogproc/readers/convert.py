"""Spectra of any archive format, rewritten as Parquet of the contract xp_continuous."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from glob import escape
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from catalogproc.contract import load_contract
from catalogproc.errors import CountError, JobError
from catalogproc.io.atomic import publish, scratch_folder
from catalogproc.io.parquet_writer import parquet_writer
from catalogproc.io.remote_file import File, as_file
from catalogproc.readers.chunks import fingerprint
from catalogproc.readers.release_check import release_of, row_faults
from catalogproc.readers.star_rows import open_spectra
from catalogproc.readers.xp import read_spectra, spectra_columns
from catalogproc.release import Release

# Rows of a row group: enough to compress and to prune well, few enough to hold in memory.
ROW_GROUP = 25_000
_MARK = b"converted_from"

Watch = Callable[[int, int | None, str], None]


@dataclass(frozen=True)
class Converted:
    """One input file and what became of it: rows_read = rows_written + rows_rejected.

    ``rejected`` is the file of rows that could not be read, by the contract rejected; None
    where there are none.
    """

    file: File
    parts: tuple[Path, ...]
    rejected: Path | None
    rows_read: int
    rows_written: int
    rows_rejected: int


def convert(
    files: Iterable[str | File],
    folder: str | Path,
    *,
    correlations: bool = False,
    chunk_rows: int = 50_000,
    release: Release | None = None,
    progress: Callable[[Converted], None] | None = None,
    watch: Watch | None = None,
) -> list[Path]:
    """Rewrite spectra as Parquet, a few files for each input, each of them whole or not there.

    Parameters
    ----------
    files
        Files of spectra in any format.
    folder
        Where to write ``<name>-<fingerprint>-<number>.parquet`` and, for rows that cannot be
        read, ``rejected/<name>-<fingerprint>.parquet``. A finished conversion is kept.
    correlations
        Whether to keep the correlations, 15 times the size of everything else.
    chunk_rows
        Rows a file at most.
    release
        The Gaia release of the spectra; None where the files themselves must tell.
    progress
        Called after each input with its account.
    watch
        Called as an input is read: (rows, all rows or None where unknown, the file's name).

    Returns
    -------
    list of Path
        All files of spectra, in the order of the inputs.

    Raises
    ------
    InputError
        An input cannot be read; nothing of it is written.
    ReleaseError
        Its spectra are of another release, or of none that is known.
    JobError
        The folder holds a conversion of this input with the other choice of correlations.
    CountError
        Rows read and rows written disagree; nothing of this input is written.
    """
    written: list[Path] = []
    for path in map(as_file, files):
        account = convert_file(
            path,
            Path(folder),
            correlations=correlations,
            chunk_rows=chunk_rows,
            release=release,
            watch=watch,
        )
        written += account.parts
        if progress is not None:
            progress(account)
    return written


def convert_file(
    path: File,
    folder: Path,
    *,
    correlations: bool = False,
    chunk_rows: int = 50_000,
    release: Release | None = None,
    watch: Watch | None = None,
) -> Converted:
    """Rewrite one file, as :func:`convert` does."""
    mark = fingerprint(path)
    stem = f"{path.name.split('.')[0]}-{mark[:8]}"
    described = {_MARK.decode(): f"{mark} {'with' if correlations else 'without'} correlations"}
    done = _done(path, folder, stem, described)
    if done is not None:
        return done
    promised = open_spectra(path).rows
    release = release_of(path, release)
    names = tuple(spectra_columns(path, correlations=correlations, release=release))
    schema = _schema(names, described | release.facts)
    with scratch_folder(folder, stem) as scratch:
        read = rejected = 0
        sink = _Sink(scratch, stem, schema, chunk_rows)
        refused = scratch / f"{stem}.parquet"
        rejected_schema = load_contract("rejected").arrow_schema(described)
        with sink, parquet_writer(refused, rejected_schema, split_floats=True) as refusals:
            for batch in read_spectra(
                path, correlations=correlations, batch_rows=ROW_GROUP, release=release
            ):
                good, bad = _parted(batch, path, release)
                sink.write(good.select(schema.names).cast(schema))
                if bad.num_rows:
                    refusals.write_table(bad)
                read, rejected = read + len(batch), rejected + bad.num_rows
                if watch is not None:
                    watch(read, promised, path.name)
        kept = sum(pq.read_metadata(part).num_rows for part in sink.parts)
        _check_counts(path, promised, read, kept, rejected)
        # The first part moves last: where it stands, everything else does, and where it
        # does not, other parts are what a conversion that was killed has left.
        for part in _standing(folder, stem):
            part.unlink()
        place = None
        if rejected:
            place = publish(refused, folder / "rejected" / refused.name)
        parts = [publish(part, folder / part.name) for part in reversed(sink.parts)]
    return Converted(path, tuple(reversed(parts)), place, read, kept, rejected)


def _check_counts(path: File, promised: int | None, read: int, kept: int, rejected: int) -> None:
    """Raise CountError unless every row, as many as the file promised, is accounted for."""
    if kept + rejected != read or (promised is not None and read != promised):
        raise CountError(
            "rows in and rows out disagree",
            wanted=f"{read if promised is None else promised} rows of the input",
            found=f"{read} read, {kept} written + {rejected} rejected",
            where=path,
        )


class _Sink:
    """Parquet files of at most so many rows each, in row groups of a good size."""

    def __init__(self, folder: Path, stem: str, schema: pa.Schema, rows: int) -> None:
        self.parts: list[Path] = []
        self._folder, self._stem, self._schema, self._limit = folder, stem, schema, rows
        self._writer: pq.ParquetWriter | None = None
        self._room = 0

    def __enter__(self) -> _Sink:
        self._next()
        return self

    def __exit__(self, *_: object) -> None:
        if self._writer is not None:
            self._writer.close()

    def write(self, batch: pa.RecordBatch) -> None:
        while len(batch):
            if self._room == 0:
                self._next()
            part = batch.slice(0, self._room)
            if self._writer is not None:
                self._writer.write_batch(part, row_group_size=ROW_GROUP)
            self._room -= len(part)
            batch = batch.slice(len(part))

    def _next(self) -> None:
        if self._writer is not None:
            self._writer.close()
        path = self._folder / f"{self._stem}-{len(self.parts):03d}.parquet"
        self._writer = parquet_writer(path, self._schema, split_floats=True)
        self.parts.append(path)
        self._room = self._limit


def _schema(names: Sequence[str], described: dict[str, str]) -> pa.Schema:
    contract = load_contract("xp_continuous").arrow_schema(described)
    return pa.schema([contract.field(name) for name in names], metadata=contract.metadata)


def _parted(batch: pa.RecordBatch, path: File, release: Release) -> tuple[pa.RecordBatch, pa.Table]:
    """Rows to write, and the others as the contract rejected has them."""
    nameless = np.asarray(pc.is_null(batch.column("source_id")))
    faulty = np.asarray(pc.is_valid(batch.column("fault")))
    others = row_faults(batch, release)
    rows = np.union1d(np.flatnonzero(nameless | faulty), np.array(list(others), dtype=np.int64))
    bad = np.zeros(len(batch), dtype=bool)
    bad[rows] = True
    why = {int(r): ("no_source_id", "source_id: wanted one, found none") for r in rows}
    why |= others
    why |= {
        int(row): ("unreadable", str(batch.column("fault")[int(row)]))
        for row in np.flatnonzero(faulty)
    }
    out = batch.filter(pa.array(bad))
    rejected = load_contract("rejected").assemble(
        {
            "source_id": out.column("source_id"),
            "file": pa.repeat(str(path), len(out)),
            "row": out.column("row"),
            "reason": pa.array([why[int(row)][0] for row in rows], pa.string()),
            "detail": pa.array([why[int(row)][1] for row in rows], pa.string()),
        },
        len(out),
    )
    return batch.filter(pa.array(~bad)), rejected


def _done(path: File, folder: Path, stem: str, described: dict[str, str]) -> Converted | None:
    """The account of an earlier conversion of the same input, if it stands there whole."""
    if not (folder / f"{stem}-000.parquet").exists():
        return None
    parts = _standing(folder, stem)
    for part in parts:
        found = (pq.read_schema(part).metadata or {}).get(_MARK, b"nothing known").decode()
        if found not in described.values():
            raise JobError(
                "the folder holds something else by the name of this conversion",
                wanted=next(iter(described.values())),
                found=found,
                where=part,
                advice="choose another folder, or remove it",
            )
    place = folder / "rejected" / f"{stem}.parquet"
    rejected = pq.read_metadata(place).num_rows if place.exists() else 0
    kept = sum(pq.read_metadata(part).num_rows for part in parts)
    return Converted(
        path, tuple(parts), place if rejected else None, kept + rejected, kept, rejected
    )


def _standing(folder: Path, stem: str) -> list[Path]:
    return sorted(folder.glob(f"{escape(stem)}-*.parquet"))
