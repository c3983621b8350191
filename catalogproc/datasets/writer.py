"""Candidates cut, split and written as a dataset, whole or not at all.

Whatever the stars come from (Leung & Bovy's sets, the surveys themselves), they pass here as
candidates, with reasons for those that were left out before.
"""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
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
)
from catalogproc.datasets.star_table import Table, describe
from catalogproc.errors import JobError
from catalogproc.features import spectra
from catalogproc.io.staging import parquet_writer, scratch_folder, settle
from catalogproc.vocabulary import BANDS, load_vocabulary

_BATCH = 16_384


@dataclass(frozen=True)
class Split:
    """Which stars judge the model.

    ``published`` keeps the sides that the rows come with, where they come with any: a star
    on both sides is trained on, so that all of its rows are. Else a star's side follows from
    its source_id and the ``seed`` alone, and about ``fraction`` of the stars are for the test.
    """

    published: bool = True
    fraction: float = 0.1
    seed: int = 0


def candidate_schema() -> pa.Schema:
    """What :func:`write_dataset` takes: columns of the contract training, and three more.

    ``side`` is train, test or null; ``reason`` null, or why the row is left out;
    ``preference`` orders the rows of a star, the smallest first.
    """
    contract = load_contract("training")
    own = [
        pa.field(column.name, column.arrow_type)
        for column in contract.columns
        if column.name not in ("split", "repeat")
    ]
    extra = [("side", pa.string()), ("reason", pa.string()), ("preference", pa.float64())]
    return pa.schema([*own, *(pa.field(*item) for item in extra)])


def candidate_batch(values: Mapping[str, Any], rows: int) -> pa.RecordBatch:
    """A batch of :func:`candidate_schema` from arrays (rows,) by name; what is absent is null."""
    arrays = []
    for item in candidate_schema():
        given = values.get(item.name)
        if given is None:
            given = pa.nulls(rows, item.type)
        elif not isinstance(given, pa.Array):
            given = pa.array(given)
        arrays.append(given.cast(item.type))
    return pa.RecordBatch.from_arrays(arrays, schema=candidate_schema())


def write_dataset(
    candidates: Iterable[pa.RecordBatch],
    output: Path | str,
    cuts: Cuts,
    split: Split,
    about: Mapping[str, Any],
    notes: Mapping[str, int] | None = None,
) -> Report:
    """Cut, split and write candidates as a dataset, whole or not at all.

    Parameters
    ----------
    candidates
        Batches of :func:`candidate_schema`. They are held on the disk, not in memory.
    output
        The folder to make.
    about
        What is to be recorded of it: files, names of columns.
    notes
        Numbers for the report; read when all candidates are.

    Raises
    ------
    JobError
        The folder exists, or no star is left on one of the sides.
    """
    output = Path(output)
    if output.exists() and not (output.is_dir() and not any(output.iterdir())):
        raise JobError("the folder exists already", where=output, todo="remove it, or name another")
    with scratch_folder(output.parent, output.name) as scratch:
        spool = scratch / "candidates.parquet"
        with parquet_writer(spool, candidate_schema()) as writer:
            for batch in candidates:
                writer.write_batch(batch)
        rows = _scalars(spool)
        reason = cuts.failed(rows)
        if cuts.box is not None:
            _apply_box(spool, reason, cuts.box)
        kept = np.flatnonzero(reason == "")
        repeat, side, both = _sides(rows, kept, split)
        folder = scratch / "dataset"
        folder.mkdir()
        for name in (TRAIN, TEST):
            _write_side(spool, folder / f"{name}.parquet", name, side, repeat)
        report = _report(rows, reason, side, repeat, both, notes or {})
        if not min(report.rows.values()):
            raise JobError(
                "no star is left to train on, or to test",
                wanted="some on both sides", found=f"{dict(report.rows)}; left out: "
                f"{dict(report.left_out)}",
                todo="check that the files belong together, or widen the cuts",
            )  # fmt: skip
        _write_statistics(folder)
        facts = {
            "format": FORMAT,
            "made by": f"catalogproc {__version__}",
            "sha256": fingerprint(folder),
            "cuts": cuts.to_dict(),
            "split": asdict(split),
            "report": asdict(report),
            **about,
        }
        text = json.dumps(facts, indent=1, default=str)
        (folder / FACTS).write_text(text + "\n", encoding="utf-8")
        settle(folder, output)
    return report


def _scalars(spool: Path) -> dict[str, NDArray[Any]]:
    """All columns of the candidates but the spectra, and how many bands each has."""
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


def _sides(
    rows: Mapping[str, NDArray[Any]], kept: NDArray[np.int64], split: Split
) -> tuple[NDArray[np.int16], NDArray[np.object_], int]:
    """Of each row its number among the star's and its side (N,); and how many stars had two."""
    star = rows["source_id"][kept]
    order = np.lexsort((rows["preference"][kept], star))
    new = np.ones(len(order), dtype=bool)
    new[1:] = star[order[1:]] != star[order[:-1]]
    first = np.maximum.accumulate(np.where(new, np.arange(len(order)), 0))
    repeat = np.full(len(rows["source_id"]), -1, dtype=np.int16)
    repeat[kept[order]] = np.arange(len(order)) - first
    side: NDArray[np.object_] = np.full(len(repeat), "", dtype=object)
    given = rows["side"][kept]
    if split.published and not (given == "").any():
        trained, tested = (np.unique(star[given == name]) for name in (TRAIN, TEST))
        side[kept] = np.where(np.isin(star, trained), TRAIN, TEST)
        return repeat, side, len(np.intersect1d(trained, tested))
    places = kept[:, None].astype(np.float64)
    for name, part in zip(
        (TRAIN, TEST), Table(star, places, places).split(split.fraction, split.seed), strict=True
    ):
        side[part.values[:, 0].astype(np.int64)] = name
    return repeat, side, 0


def _write_side(
    spool: Path, path: Path, name: str, side: NDArray[np.object_], repeat: NDArray[np.int16]
) -> None:
    contract = load_contract("training")
    start = 0
    schema = contract.arrow_schema()
    with pq.ParquetFile(spool) as file, parquet_writer(path, schema) as writer:
        for batch in file.iter_batches(_BATCH, use_threads=False):
            here = side[start : start + len(batch)] == name
            table = pa.Table.from_batches([batch.filter(pa.array(here))])
            values = {column: table[column] for column in table.column_names if column in contract}
            values["split"] = pa.array([name] * len(table), pa.string())
            values["repeat"] = repeat[start : start + len(batch)][here]
            writer.write_table(contract.assemble(values, len(table)))
            start += len(batch)


def _report(
    rows: Mapping[str, NDArray[Any]],
    reason: NDArray[np.object_],
    side: NDArray[np.object_],
    repeat: NDArray[np.int16],
    both: int,
    notes: Mapping[str, int],
) -> Report:
    outside = outside_domain(rows["m_h"], rows["distmass_bitmask"])
    return Report(
        rows_read=len(reason),
        left_out=dict(Counter(words for words in reason if words).most_common()),
        rows={name: int((side == name).sum()) for name in (TRAIN, TEST)},
        stars={name: int(((side == name) & (repeat == 0)).sum()) for name in (TRAIN, TEST)},
        on_both_sides=both,
        outside=int((outside & (side == TEST)).sum()),
        notes=dict(notes),
    )


def _write_statistics(folder: Path) -> None:
    """Center, scale and limits of each token over the training part."""
    vocabulary = load_vocabulary()
    train = read_part(folder / f"{TRAIN}.parquet", vocabulary, masked=True, repeats=True)
    labels = np.array([token.kind == "label" for token in vocabulary.tokens])
    standardisation, domain = describe(train.values, labels)
    columns = {**vars(standardisation), **vars(domain)}
    known = np.isfinite(train.values).sum(axis=0)
    with (folder / STATISTICS).open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["token", *columns, "stars"])
        for index, name in enumerate(vocabulary.names):
            numbers = [repr(float(column[index])) for column in columns.values()]
            writer.writerow([name, *numbers, int(known[index])])
