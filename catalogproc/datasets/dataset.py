"""Datasets of labelled stars, to train and to evaluate models.

A dataset is a folder of the contract ``training``::

    train.parquet  test.parquet  statistics.csv  dataset.json

All rows of a star are in one part. The statistics are those of the training part alone. The
folder appears when it is complete, and a dataset of which a byte was changed is refused.
"""

from __future__ import annotations

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

from catalogproc.contract import Contract, load_contract
from catalogproc.datasets.giant_labels import SOURCE_COLUMNS, TEACHER
from catalogproc.datasets.star_table import StarTable
from catalogproc.errors import InputError, ReleaseError
from catalogproc.features import canonical, canonical_signal, spectra
from catalogproc.io.hashes import file_blocks, sha256
from catalogproc.release import DEFAULT, Release, load_release, shipped_releases
from catalogproc.vocabulary import BANDS, Vocabulary, load_vocabulary

TRAIN, TEST = "train", "test"
FACTS, STATISTICS = "dataset.json", "statistics.csv"
FORMAT = 2

PAPER = {"total": 319_585, TRAIN: 287_626, TEST: 31_959}
"""Numbers of stars in Zhang, Bu et al. (2026)."""

ADDED = ("rc_prob", "e_rc_prob", "rc_source")
"""Columns that datasets of format 2 may lack, because they were written before there were such:
the label is then unknown for all stars."""

OUTSIDE_M_H, OUTSIDE_BIT = -0.5, 2
"""Outside the training domain of DistMass: [M/H] below this, or this bit in BITMASK."""

_BATCH = 16_384


@dataclass(frozen=True)
class Report:
    """Counts of rows and stars: read, left out, and in each part of a dataset.

    Attributes
    ----------
    rows_read
        Rows of the input.
    left_out
        Number of rows by the reason why they were left out.
    rows, stars
        Rows and stars by part, TRAIN and TEST.
    in_both_parts
        Stars that the published split has in both parts.
    outside
        Rows of the test part with labels outside the training domain of DistMass.
    notes
        Further numbers, by what they count.
    """

    rows_read: int
    left_out: Mapping[str, int]
    rows: Mapping[str, int]
    stars: Mapping[str, int]
    in_both_parts: int
    outside: int
    notes: Mapping[str, int] = field(default_factory=dict)

    def lines(self, paper: Mapping[str, int] | None = PAPER) -> list[str]:
        """Return the counts as lines of text.

        Parameters
        ----------
        paper
            Numbers of stars to compare with; None for a dataset of another origin.
        """
        text = [f"{'rows read':<52}{self.rows_read:>10,}"]
        text += [f"  {what:<50}{count:>10,}" for what, count in self.notes.items()]
        text += [f"  left out: {why:<40}{count:>10,}" for why, count in self.left_out.items()]
        text.append(f"{'':<32}{'stars':>10}{'rows':>10}" + (f"{'the paper':>12}" if paper else ""))
        for part in PAPER:
            stars, rows = (
                counts.get(part, sum(counts.values())) for counts in (self.stars, self.rows)
            )
            published = f"{paper[part]:>12,}" if paper else ""
            text.append(f"{part:<32}{stars:>10,}{rows:>10,}{published}")
        if paper is None:
            return text
        text.append(
            "stars in both parts of the published split, moved to the training part: "
            f"{self.in_both_parts:,}"
        )
        text.append(
            f"test rows with labels outside the training domain of DistMass: {self.outside:,}"
        )
        return text


def load_dataset(
    folder: Path | str,
    vocabulary: Vocabulary | None = None,
    *,
    mask_irrelevant: bool = True,
    repeats: bool = True,
) -> tuple[StarTable, StarTable]:
    """Return the training part and the test part of a dataset, as tokens.

    Parameters
    ----------
    folder
        The dataset.
    vocabulary
        Defines the V tokens; by default the shipped one. Tokens without a column in the
        dataset are absent.
    mask_irrelevant
        Leave out coefficients past the number of relevant bases, as inference does;
        coefficients of exactly zero are always left out (Leung & Bovy 2024).
    repeats
        Whether further spectra of a star are in the training part. The test part has one
        row per star.

    Returns
    -------
    train, test
        Values and errors are float32 (n, V), in the tokens' units.

    Raises
    ------
    InputError
        No dataset, a dataset of another format or basis, or one that was changed.
    ReleaseError
        Its spectra are of another release than the vocabulary's.
    """
    folder = Path(folder)
    facts = dataset_facts(folder)
    if fingerprint(folder) != facts["sha256"]:
        raise InputError(
            "the dataset was changed after it was written",
            wanted=facts["sha256"], found=fingerprint(folder), where=folder,
            advice="make it again with catalogproc dataset",
        )  # fmt: skip
    vocabulary = vocabulary or vocabulary_of(facts)
    _check_spectra(folder, facts, vocabulary)
    train, test = (
        read_part(folder / f"{name}.parquet", vocabulary, mask_irrelevant, with_repeats)
        for name, with_repeats in ((TRAIN, repeats), (TEST, False))
    )
    return train, test


def _check_spectra(folder: Path, facts: Mapping[str, Any], vocabulary: Vocabulary) -> None:
    """Raise InputError or ReleaseError for spectra of another basis or release than a model's."""
    if vocabulary.basis != basis_of(facts):
        raise InputError(
            "the spectra of the dataset are in another basis than those of the model",
            wanted=f"{vocabulary.basis} coefficients", found=f"{basis_of(facts)} coefficients",
            where=folder, advice="use a model that was trained in that basis",
        )  # fmt: skip
    wanted = vocabulary.data_release
    name, found = facts.get("release", DEFAULT), facts.get("release_hash")
    if name != wanted.name and found != wanted.hash:
        raise ReleaseError(
            "the dataset has spectra of another Gaia release than the model is to read",
            wanted=wanted.title,
            found=facts.get("release_title", name),
            where=folder,
            advice="name the release to train for: --release NAME|FILE; or make the dataset from "
            "spectra of that release",
        )


def dataset_columns(
    folder: Path | str, part: str, names: Sequence[str], *, repeats: bool | None = None
) -> dict[str, NDArray[Any]]:
    """Return columns (n,) of a dataset, in the row order of :func:`load_dataset`.

    Parameters
    ----------
    folder
        The dataset.
    part
        TRAIN or TEST.
    names
        Columns of the contract ``training``.
    repeats
        Whether to include further spectra of a star; by default in the training part only.
    """
    path = Path(folder) / f"{part}.parquet"
    table = pq.read_table(path, columns=list({*names, "repeat"}), use_threads=False)
    if not (part == TRAIN if repeats is None else repeats):
        table = table.filter(pc.equal(table["repeat"], 0))
    return {name: table[name].to_numpy() for name in names}


def outside_domain(m_h: NDArray[Any], bitmask: NDArray[Any]) -> NDArray[np.bool_]:
    """Return which stars (N,) are outside the training domain of DistMass.

    Parameters
    ----------
    m_h
        (N,) metallicity [M/H] in dex.
    bitmask
        (N,) BITMASK of DistMass.
    """
    return np.asarray((m_h < OUTSIDE_M_H) | ((bitmask & OUTSIDE_BIT) != 0))


def basis_of(facts: Mapping[str, Any]) -> str:
    """Return the basis of a dataset's coefficients, as a vocabulary names it.

    Parameters
    ----------
    facts
        As :func:`dataset_facts` returns them.
    """
    return "canonical" if facts.get("basis") == canonical.BASIS_ID else "archive"


def spectra_facts(vocabulary: Vocabulary) -> dict[str, Any]:
    """Return the facts of a dataset about its spectra: release and basis.

    Parameters
    ----------
    vocabulary
        The tokens that were made.
    """
    release = vocabulary.data_release
    facts: dict[str, Any] = dict(release.facts)
    if release.name not in shipped_releases() or release != load_release(release.name):
        facts["release_declared"] = release.to_dict()
    if vocabulary.basis == "canonical":
        facts["basis"] = canonical.BASIS_ID
    return facts


def vocabulary_of(facts: Mapping[str, Any]) -> Vocabulary:
    """Return the vocabulary of a dataset: its tokens in its release and basis.

    Parameters
    ----------
    facts
        As :func:`dataset_facts` returns them.
    """
    declared = facts.get("release_declared")
    release = load_release(facts.get("release", DEFAULT)) if declared is None else (
        Release.from_dict(declared)
    )  # fmt: skip
    return load_vocabulary(release=release, basis=basis_of(facts))


def dataset_facts(folder: Path | str) -> dict[str, Any]:
    """Return the facts of a dataset: its input files, cuts, split, report and fingerprint.

    Parameters
    ----------
    folder
        The dataset.

    Raises
    ------
    InputError
        The folder holds no dataset of this format.
    """
    path = Path(folder) / FACTS
    try:
        facts: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if facts["format"] != FORMAT:
            raise ValueError(f"format {facts['format']}")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            "no readable dataset", wanted=f"a folder with {FACTS}, format {FORMAT}",
            found=error, where=folder, advice="make one with catalogproc dataset",
        ) from error  # fmt: skip
    return facts


def read_part(path: Path, vocabulary: Vocabulary, masked: bool, repeats: bool) -> StarTable:
    """Read one part of a dataset as tokens.

    Parameters
    ----------
    path
        The Parquet file.
    vocabulary
        Defines the V tokens.
    masked
        Leave out coefficients past the number of relevant bases.
    repeats
        Include further spectra of a star.
    """
    contract = load_contract("training")
    ids, values, errors, predicted = [], [], [], []
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(_BATCH, use_threads=False):
            table = _with_added(pa.Table.from_batches([batch]), contract)
            contract.check(table, path)
            if not repeats:
                table = table.filter(pc.equal(table["repeat"], 0))
            value, error = _dense(table, vocabulary, masked)
            ids.append(table["source_id"].to_numpy())
            values.append(value)
            errors.append(error)
            predicted.append(_predicted(table, vocabulary))
    if not ids:
        raise InputError("a part of the dataset is empty", where=path)
    return StarTable(
        np.concatenate(ids),
        np.concatenate(values),
        np.concatenate(errors),
        {column: np.concatenate([rows[column] for rows in predicted]) for column in predicted[0]},
    )


def _with_added(table: pa.Table, contract: Contract) -> pa.Table:
    """Return a table with those columns of ADDED that it lacks, all values unknown."""
    lacking = [name for name in ADDED if name not in table.column_names]
    for name in lacking:
        column = contract[name]
        value = None if column.nullable else column.null_value()
        unknown = pa.repeat(pa.scalar(value, column.arrow_type), len(table))
        table = table.append_column(column.arrow_field(), unknown)
    return table.select(contract.names) if set(table.column_names) == set(contract.names) else table


def _predicted(table: pa.Table, vocabulary: Vocabulary) -> dict[int, NDArray[np.bool_]]:
    """Return by column which rows (n,) hold a label that the teacher predicted."""
    return {
        vocabulary.column(name): pc.fill_null(pc.equal(table[source], TEACHER), False).to_numpy()
        for name, source in SOURCE_COLUMNS.items()
        if name in vocabulary
    }


def _dense(
    table: pa.Table, vocabulary: Vocabulary, masked: bool
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return values and errors (n, V) of rows of the contract ``training``, NaN where absent."""
    values, errors = np.full((2, len(table), len(vocabulary)), np.nan, dtype=np.float32)
    is_canonical = pc.is_valid(table["basis"]).to_numpy()
    for band in BANDS:
        at, count = vocabulary.coefficient_columns(band), vocabulary.coefficients(band)
        value = spectra.matrix(table[f"{band}_coefficients"], count)
        error = spectra.matrix(table[f"{band}_coefficient_errors"], count)
        present = np.isfinite(value) & (value != 0)
        if masked:
            number = table[f"{band}_n_relevant_bases"].to_numpy()
            relevant = spectra.relevance(number, count)
            if is_canonical.any():  # the number of an archive's coefficients may be another
                in_basis = canonical_signal.relevance(band, value, error)
                relevant = np.where(is_canonical[:, None], in_basis, relevant)
            present &= relevant
        values[:, at] = np.where(present, value, np.nan)
        errors[:, at] = np.where(present, error, np.nan)
    for token in vocabulary.tokens:
        if token.kind != "coefficient" and f"e_{token.name}" in table.column_names:
            value, error = (table[name].to_numpy() for name in (token.name, f"e_{token.name}"))
            values[:, token.number - 1] = value
            errors[:, token.number - 1] = np.where(np.isfinite(value), error, np.nan)
    return values, errors


def fingerprint(folder: Path) -> str:
    """Return the SHA-256 (hex) of the bytes of both parts.

    Parameters
    ----------
    folder
        The dataset.
    """
    parts = [folder / f"{name}.parquet" for name in (TRAIN, TEST)]
    try:
        return sha256(block for part in parts for block in file_blocks(part))
    except OSError as error:
        raise InputError("a part of the dataset is missing", found=error, where=folder) from error
