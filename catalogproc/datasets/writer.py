"""Cut, split and write candidate rows as a dataset; the folder appears when it is complete.

Rows of every origin (Leung & Bovy's sets, the surveys) come here as candidates, with reasons
for those that were rejected before.
"""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from catalogproc import __version__
from catalogproc.contract import load_contract
from catalogproc.datasets.cuts import Cuts
from catalogproc.datasets.dataset import (
    FACTS,
    FORMAT,
    STATISTICS,
    TEST,
    TRAIN,
    Report,
    fingerprint,
    outside_domain,
    read_part,
    vocabulary_of,
)
from catalogproc.datasets.star_table import StarTable, fit_standardisation
from catalogproc.errors import JobError
from catalogproc.features import spectra
from catalogproc.io.atomic import publish, scratch_folder
from catalogproc.io.parquet_writer import parquet_writer
from catalogproc.vocabulary import BANDS

_BATCH = 16_384


@dataclass(frozen=True)
class Split:
    """Division of the stars into a training part and a test part.

    Attributes
    ----------
    published
        Keep the published parts of the rows, if every row has one: a star with rows in both
        is in the training part. Otherwise the part of a star follows from its source_id and
        ``seed`` alone.
    fraction
        About this fraction of the stars is in the test part.
    seed
        Seed of the division.
    """

    published: bool = True
    fraction: float = 0.1
    seed: int = 0


@dataclass(frozen=True)
class Selection:
    """Which stars a dataset has, and how they are split."""

    cuts: Cuts = field(default_factory=Cuts)
    split: Split = field(default_factory=Split)


def candidate_schema() -> pa.Schema:
    """Return the schema of candidates: columns of the contract ``training``, and three more.

    ``published_part`` is train, test or null; ``reason`` is null, or why the row was rejected;
    ``preference`` orders the rows of a star, the smallest first.
    """
    contract = load_contract("training")
    columns = [
        pa.field(column.name, column.arrow_type)
        for column in contract.columns
        if column.name not in ("split", "repeat")
    ]
    extra = [("published_part", pa.string()), ("reason", pa.string()), ("preference", pa.float64())]
    return pa.schema([*columns, *(pa.field(*item) for item in extra)])


def candidate_batch(values: Mapping[str, Any], rows: int) -> pa.RecordBatch:
    """Return a batch of :func:`candidate_schema`.

    Parameters
    ----------
    values
        Arrays (rows,) by column name; absent columns are null, or hold the value that means
        "unknown" in the contract.
    rows
        Number of rows.
    """
    arrays = []
    contract = load_contract("training")
    for item in candidate_schema():
        column = values.get(item.name)
        if column is None and item.name in contract and not contract[item.name].nullable:
            column = pa.repeat(pa.scalar(contract[item.name].null_value(), item.type), rows)
        elif column is None:
            column = pa.nulls(rows, item.type)
        elif not isinstance(column, pa.Array):
            column = pa.array(column)
        arrays.append(column.cast(item.type))
    return pa.RecordBatch.from_arrays(arrays, schema=candidate_schema())


def write_dataset(
    candidates: Iterable[pa.RecordBatch],
    output: Path | str,
    selection: Selection,
    about: Mapping[str, Any],
    notes: Mapping[str, int] | None = None,
) -> Report:
    """Cut, split and write candidates as a dataset; nothing is left after a failure.

    Parameters
    ----------
    candidates
        Batches of :func:`candidate_schema`. They are stored on the disk, not in memory.
    output
        The folder to make.
    selection
        Which stars are kept, and how they are split.
    about
        Further facts to record: input files, column names.
    notes
        Numbers for the report; they are read after the last candidate.

    Raises
    ------
    JobError
        The folder exists, or no star is left in one of the parts.
    """
    output = Path(output)
    refuse_taken(output)
    with scratch_folder(output.parent, output.name) as scratch:
        spool = scratch / "candidates.parquet"
        with parquet_writer(spool, candidate_schema(), split_floats=True) as writer:
            for batch in candidates:
                writer.write_batch(batch)
        parts = _divide(spool, selection)
        folder = scratch / "dataset"
        folder.mkdir()
        for name in (TRAIN, TEST):
            _write_part(spool, folder / f"{name}.parquet", name, parts)
        report = _report(spool, parts, notes or {})
        _refuse_empty(report)
        _write_statistics(folder, about)
        _write_facts(folder, selection, report, about)
        publish(folder, output)
    return report


def _write_facts(
    folder: Path, selection: Selection, report: Report, about: Mapping[str, Any]
) -> None:
    """Write dataset.json."""
    facts = {
        "format": FORMAT,
        "made by": f"catalogproc {__version__}",
        "sha256": fingerprint(folder),
        "cuts": selection.cuts.to_dict(),
        "split": asdict(selection.split),
        "report": asdict(report),
    }
    text = json.dumps(facts | dict(about), indent=1, default=str)
    (folder / FACTS).write_text(text + "\n", encoding="utf-8")


def refuse_taken(output: Path) -> None:
    """Raise JobError where the folder exists, unless it is empty.

    Parameters
    ----------
    output
        The folder to make.
    """
    if output.exists() and not (output.is_dir() and not any(output.iterdir())):
        raise JobError(
            "the folder exists already", where=output, advice="remove it, or name another"
        )


def _refuse_empty(report: Report) -> None:
    """Raise JobError where a part of the dataset has no star."""
    if not min(report.rows.values()):
        raise JobError(
            "no star is left in the training part or in the test part",
            wanted="stars in both parts",
            found=f"{dict(report.rows)}; left out: {dict(report.left_out)}",
            advice="check that the files belong together, or widen the cuts",
        )


def _scalars(spool: Path) -> dict[str, NDArray[Any]]:
    """Return all columns of the candidates except the spectra, and the number of bands of each."""
    schema = candidate_schema()
    names = [item.name for item in schema if not pa.types.is_list(item.type)]
    table = pq.read_table(spool, columns=names, use_threads=False)
    rows: dict[str, NDArray[Any]] = {}
    for name in names:
        column = table[name].combine_chunks()
        if pa.types.is_integer(column.type):
            column = pc.fill_null(column, 0)
        elif pa.types.is_floating(column.type):
            column = pc.fill_null(column, float("nan"))
        elif pa.types.is_boolean(column.type):
            column = pc.fill_null(column, False)
        else:
            column = pc.fill_null(column, "")
        rows[name] = column.to_numpy(zero_copy_only=False)
    rows["spectra"] = np.zeros(len(table), dtype=np.int8)
    for band in BANDS:
        lists = pq.read_table(spool, columns=[f"{band}_coefficients"], use_threads=False)
        rows["spectra"] += pc.is_valid(lists.column(0)).to_numpy()
    return rows


def _apply_box(spool: Path, reason: NDArray[np.object_], percentiles: tuple[float, float]) -> None:
    """Mark the rows with a coefficient outside the percentiles of all spectra."""
    outside = np.zeros(len(reason), dtype=bool)
    for band in BANDS:
        lists = pq.read_table(spool, columns=[f"{band}_coefficients"], use_threads=False).column(0)
        count = pc.max(pc.list_value_length(lists)).as_py() or 0
        value = spectra.matrix(lists, count) if count else np.empty((len(reason), 0))
        for x in value.T:
            if np.isfinite(x).any():
                low, high = np.nanpercentile(x, percentiles)
                outside |= (x <= low) | (x >= high)
    low, high = percentiles
    reason[outside & (reason == "")] = f"a coefficient outside {low:g} to {high:g} %"


@dataclass(frozen=True)
class _Parts:
    """Outcome of cuts and split, per row of the candidates (N,).

    ``reason`` is "" where a row is kept; ``part`` is TRAIN, TEST or ""; ``repeat`` is the
    number of the row among those of its star, -1 where rejected.
    """

    reason: NDArray[np.object_]
    part: NDArray[np.object_]
    repeat: NDArray[np.int16]
    in_both_parts: int


def _divide(spool: Path, selection: Selection) -> _Parts:
    """Apply cuts and split to the candidates."""
    rows = _scalars(spool)
    reason = selection.cuts.rejection_reasons(rows)
    if selection.cuts.box is not None:
        _apply_box(spool, reason, selection.cuts.box)
    kept = np.flatnonzero(reason == "")
    star = rows["source_id"][kept]
    order = np.lexsort((rows["preference"][kept], star))
    new = np.ones(len(order), dtype=bool)
    new[1:] = star[order[1:]] != star[order[:-1]]
    first = np.maximum.accumulate(np.where(new, np.arange(len(order)), 0))
    repeat = np.full(len(reason), -1, dtype=np.int16)
    repeat[kept[order]] = np.arange(len(order)) - first
    part: NDArray[np.object_] = np.full(len(reason), "", dtype=object)
    published, split = rows["published_part"][kept], selection.split
    if split.published and not (published == "").any():
        training, test = (np.unique(star[published == name]) for name in (TRAIN, TEST))
        part[kept] = np.where(np.isin(star, training), TRAIN, TEST)
        return _Parts(reason, part, repeat, len(np.intersect1d(training, test)))
    # The values of this table are the row numbers.
    numbers = kept[:, None].astype(np.float64)
    tables = StarTable(star, numbers, numbers).split(split.fraction, split.seed)
    for name, table in zip((TRAIN, TEST), tables, strict=True):
        part[table.values[:, 0].astype(np.int64)] = name
    return _Parts(reason, part, repeat, 0)


def _write_part(spool: Path, path: Path, name: str, parts: _Parts) -> None:
    """Write the candidates of one part in the contract ``training``."""
    contract = load_contract("training")
    start = 0
    schema = contract.arrow_schema()
    writing = parquet_writer(path, schema, split_floats=True)
    with pq.ParquetFile(spool) as file, writing as writer:
        for batch in file.iter_batches(_BATCH, use_threads=False):
            stop = start + len(batch)
            chosen = parts.part[start:stop] == name
            table = pa.Table.from_batches([batch.filter(pa.array(chosen))])
            values = {column: table[column] for column in table.column_names if column in contract}
            values["split"] = pa.array([name] * len(table), pa.string())
            values["repeat"] = parts.repeat[start:stop][chosen]
            writer.write_table(contract.assemble(values, len(table)))
            start = stop


def _report(spool: Path, parts: _Parts, notes: Mapping[str, int]) -> Report:
    columns = pq.read_table(spool, columns=["m_h", "distmass_bitmask"], use_threads=False)
    bitmask = pc.fill_null(columns["distmass_bitmask"], 0)
    outside = outside_domain(columns["m_h"].to_numpy(), bitmask.to_numpy())
    first = parts.repeat == 0
    return Report(
        rows_read=len(parts.reason),
        left_out=dict(Counter(reason for reason in parts.reason if reason).most_common()),
        rows={name: int((parts.part == name).sum()) for name in (TRAIN, TEST)},
        stars={name: int(((parts.part == name) & first).sum()) for name in (TRAIN, TEST)},
        in_both_parts=parts.in_both_parts,
        outside=int((outside & (parts.part == TEST)).sum()),
        notes=dict(notes),
    )


def _write_statistics(folder: Path, about: Mapping[str, Any]) -> None:
    """Write centre, scale and limits of each token over the training part."""
    vocabulary = vocabulary_of(about)
    train = read_part(folder / f"{TRAIN}.parquet", vocabulary, masked=True, repeats=True)
    labels = np.array([token.kind == "label" for token in vocabulary.tokens])
    standardisation, domain = fit_standardisation(train.values, labels)
    columns = {**vars(standardisation), **vars(domain)}
    known = np.isfinite(train.values).sum(axis=0)
    with (folder / STATISTICS).open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["token", *columns, "stars"])
        for index, name in enumerate(vocabulary.names):
            numbers = [repr(float(column[index])) for column in columns.values()]
            writer.writerow([name, *numbers, int(known[index])])
