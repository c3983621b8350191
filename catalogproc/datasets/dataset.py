"""Stars with spectra and labels, to train a model and to judge it: written once, read often.

A folder of the contract training::

    train.parquet  test.parquet  statistics.csv  dataset.json

All rows of a star are on one side. Statistics are those of the training part alone. The
folder is there whole or not at all, and a changed byte is refused.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from catalogproc.contract import load_contract
from catalogproc.datasets.star_table import Table
from catalogproc.errors import InputError
from catalogproc.features import spectra
from catalogproc.vocabulary import BANDS, Vocabulary, load_vocabulary

TRAIN, TEST = "train", "test"
FACTS, STATISTICS = "dataset.json", "statistics.csv"
FORMAT = 1

PAPER = {"in all": 319_585, TRAIN: 287_626, TEST: 31_959}
"""Stars of the seed paper (Zhang, Bu et al. 2026)."""

OUTSIDE_M_H, OUTSIDE_BIT = -0.5, 2
"""[M/H] below which, and BITMASK with which, DistMass's masses were not trained."""

_BATCH = 16_384


@dataclass(frozen=True)
class Report:
    """What was read, what was left out and why, and what is on which side.

    ``rows`` and ``stars`` are by side; ``left_out`` says how many rows for which reason;
    ``on_both_sides`` are stars that the published split had on both; ``outside`` are rows of
    the test part whose labels are outside of what DistMass was trained on; ``notes`` are
    further numbers, by what they count.
    """

    rows_read: int
    left_out: Mapping[str, int]
    rows: Mapping[str, int]
    stars: Mapping[str, int]
    on_both_sides: int
    outside: int
    notes: Mapping[str, int] = field(default_factory=dict)

    def lines(self) -> list[str]:
        """The account, for a reader, beside the seed paper's numbers."""
        said = [f"{'rows read':<52}{self.rows_read:>10,}"]
        said += [f"  {words:<50}{count:>10,}" for words, count in self.notes.items()]
        said += [f"  left out: {words:<40}{count:>10,}" for words, count in self.left_out.items()]
        said.append(f"{'':<32}{'stars':>10}{'rows':>10}{'the paper':>12}")
        both = {"in all": None, TRAIN: TRAIN, TEST: TEST}
        for words, side in both.items():
            stars, rows = (
                sum(counts.values()) if side is None else counts[side]
                for counts in (self.stars, self.rows)
            )
            said.append(f"{words:<32}{stars:>10,}{rows:>10,}{PAPER[words]:>12,}")
        said.append(
            f"stars on both sides of the published split, now trained on: {self.on_both_sides:,}"
        )
        said.append(f"test rows with labels outside of DistMass's training: {self.outside:,}")
        return said


def load_dataset(
    folder: Path | str,
    vocabulary: Vocabulary | None = None,
    *,
    mask_irrelevant: bool = True,
    repeats: bool = True,
) -> tuple[Table, Table]:
    """The training part and the test part of a dataset, as tokens.

    Parameters
    ----------
    vocabulary
        Whose tokens; the shipped one where none is given. Tokens that the dataset has no
        column for are absent.
    mask_irrelevant
        Leave out coefficients past the number of relevant bases, as inference does; those
        of exactly zero are always left out (Leung & Bovy 2024).
    repeats
        Whether further spectra of a star are in the training part. They never are in the
        test part: a star counts there once.

    Values and errors are float32 (n, V), in the tokens' units.

    Raises
    ------
    InputError
        No dataset, one of another format, or one that was changed.
    """
    folder = Path(folder)
    facts = dataset_facts(folder)
    if fingerprint(folder) != facts["sha256"]:
        raise InputError(
            "the dataset was changed after it was made",
            wanted=facts["sha256"], found=fingerprint(folder), where=folder,
            todo="make it again with catalogproc dataset",
        )  # fmt: skip
    vocabulary = vocabulary or load_vocabulary()
    train, test = (
        read_part(folder / f"{name}.parquet", vocabulary, mask_irrelevant, again)
        for name, again in ((TRAIN, repeats), (TEST, False))
    )
    return train, test


def dataset_columns(
    folder: Path | str, part: str, names: Sequence[str], *, repeats: bool | None = None
) -> dict[str, NDArray[Any]]:
    """Columns of the contract training (n,), row by row those of :func:`load_dataset`.

    ``part`` is "train" or "test"; ``repeats`` is by default as there: in the training part.
    """
    path = Path(folder) / f"{part}.parquet"
    table = pq.read_table(path, columns=list({*names, "repeat"}), use_threads=False)
    if not (part == TRAIN if repeats is None else repeats):
        table = table.filter(pc.equal(table["repeat"], 0))
    return {name: table[name].to_numpy() for name in names}


def outside_domain(m_h: NDArray[Any], bitmask: NDArray[Any]) -> NDArray[np.bool_]:
    """Stars (N,) whose masses and ages DistMass extrapolates, by [M/H] in dex and its BITMASK."""
    return np.asarray((m_h < OUTSIDE_M_H) | ((bitmask & OUTSIDE_BIT) != 0))


def dataset_facts(folder: Path | str) -> dict[str, Any]:
    """What was recorded of a dataset: its files, cuts, split, report and fingerprint.

    Raises InputError where there is none.
    """
    path = Path(folder) / FACTS
    try:
        facts: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if facts["format"] != FORMAT:
            raise ValueError(f"format {facts['format']}")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            "no dataset that can be read", wanted=f"a folder with {FACTS}, format {FORMAT}",
            found=error, where=folder, todo="make one with catalogproc dataset",
        ) from error  # fmt: skip
    return facts


def read_part(path: Path, vocabulary: Vocabulary, masked: bool, repeats: bool) -> Table:
    contract = load_contract("training")
    ids, values, errors = [], [], []
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(_BATCH, use_threads=False):
            table = pa.Table.from_batches([batch])
            contract.check(table, path)
            if not repeats:
                table = table.filter(pc.equal(table["repeat"], 0))
            value, error = _dense(table, vocabulary, masked)
            ids.append(table["source_id"].to_numpy())
            values.append(value)
            errors.append(error)
    if not ids:
        raise InputError("a part of the dataset is empty", where=path)
    return Table(np.concatenate(ids), np.concatenate(values), np.concatenate(errors))


def _dense(
    table: pa.Table, vocabulary: Vocabulary, masked: bool
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Values and errors (n, V) of rows of the contract training; NaN is absent."""
    values, errors = np.full((2, len(table), len(vocabulary)), np.nan, dtype=np.float32)
    for band in BANDS:
        at, count = vocabulary.coefficient_columns(band), vocabulary.coefficients(band)
        value = spectra.matrix(table[f"{band}_coefficients"], count)
        error = spectra.matrix(table[f"{band}_coefficient_errors"], count)
        seen = np.isfinite(value) & (value != 0)
        if masked:
            seen &= spectra.relevance(table[f"{band}_n_relevant_bases"].to_numpy(), count)
        values[:, at] = np.where(seen, value, np.nan)
        errors[:, at] = np.where(seen, error, np.nan)
    for token in vocabulary.tokens:
        if token.kind != "coefficient" and f"e_{token.name}" in table.column_names:
            value, error = (table[name].to_numpy() for name in (token.name, f"e_{token.name}"))
            values[:, token.number - 1] = value
            errors[:, token.number - 1] = np.where(np.isfinite(value), error, np.nan)
    return values, errors


def fingerprint(folder: Path) -> str:
    """SHA-256 (hex) over both parts, byte by byte."""
    digest = hashlib.sha256()
    try:
        for name in (TRAIN, TEST):
            with (folder / f"{name}.parquet").open("rb") as file:
                while block := file.read(1 << 22):
                    digest.update(block)
    except OSError as error:
        raise InputError("a part of the dataset is missing", found=error, where=folder) from error
    return digest.hexdigest()
