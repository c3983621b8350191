"""A labelled dataset carried to another Gaia release: the same labels, new spectra.

Rows with a spectrum get the spectrum, photometry and parallax of the same star in the other
release, found by the crosswalk of identifiers; rows with labels only stay. Training and test
parts stay as they are.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from catalogproc.contract import load_contract
from catalogproc.datasets.crosswalk import read_crosswalk
from catalogproc.datasets.cuts import Cuts
from catalogproc.datasets.dataset import (
    TEST,
    TRAIN,
    Report,
    dataset_facts,
    fingerprint,
    spectra_facts,
)
from catalogproc.datasets.star_reader import RowCount, StarFiles, batches
from catalogproc.datasets.token_rows import token_rows, tokens_for_labels
from catalogproc.datasets.writer import (
    Selection,
    Split,
    candidate_batch,
    refuse_taken,
    write_dataset,
)
from catalogproc.errors import InputError
from catalogproc.features.star_batch import read
from catalogproc.rundir.manifest import shown_path
from catalogproc.vocabulary import BANDS, Vocabulary

Rows = NDArray[np.int64]

ALL = (-np.inf, np.inf)
KEPT = Cuts(required=(), mass=ALL, age=ALL, m_h=ALL, g=ALL, bprp=ALL, spectrum=False, box=None)
"""The dataset was cut when it was made."""

VALUE_OF = {"e_parallax": "parallax_zpc"} | {
    f"e_{name}": name for name in ("bprp", "jh", "jk", "logebv", "g_fakemag")
}
"""The value of which a column is the error: both are of one release."""

NOT_LINKED = "not in the crosswalk"
NO_SPECTRUM = "no spectrum in the other release"


@dataclass(frozen=True)
class CarriedFiles:
    """What a dataset is carried with.

    Attributes
    ----------
    dataset
        The labelled dataset.
    stars
        Spectra of the other release, and its gaia_source tables.
    crosswalk
        Table dr3_neighbourhood; None where identifiers are the same.
    vocabulary
        The other release, and the basis in which the new dataset has its spectra.
    """

    dataset: Path
    stars: StarFiles
    crosswalk: Path | None
    vocabulary: Vocabulary


def carry(files: CarriedFiles, output: Path) -> Report:
    """Write a dataset with the labels of another one and spectra of another release.

    Parameters
    ----------
    files
        The dataset, the spectra, and how identifiers are linked.
    output
        The folder to make.

    Raises
    ------
    InputError
        No dataset, or one that was changed; or a file cannot be read.
    ReleaseError
        The spectra are not those of the vocabulary's release.
    JobError
        The folder exists, or no star is left in one of the parts.
    """
    refuse_taken(output)
    old, notes = dataset_facts(files.dataset), dict[str, int]()
    if fingerprint(files.dataset) != old["sha256"]:
        raise InputError("the dataset was changed after it was written", where=files.dataset,
                         advice="make it again with catalogproc dataset")  # fmt: skip
    table = pa.concat_tables(
        pq.read_table(files.dataset / f"{name}.parquet") for name in (TRAIN, TEST)
    ).combine_chunks()
    kept = {name: old[name] for name in ("credit", "intended use", "teacher") if name in old}
    paths = [*files.stars.spectra, *files.stars.auxiliary]
    paths += [files.crosswalk] if files.crosswalk else []
    about = kept | spectra_facts(files.vocabulary) | {
        "made from": f"{old['made from']}, with spectra of {files.vocabulary.data_release.title}",
        "carried from": {"sha256": old["sha256"], "release": old.get("release", "dr3")},
        "files": [shown_path(path) for path in paths],
    }  # fmt: skip
    return write_dataset(_candidates(files, table, notes), output,
                         Selection(KEPT, Split(published=True)), about, notes)  # fmt: skip


def _candidates(
    files: CarriedFiles, table: pa.Table, notes: dict[str, int]
) -> Iterator[pa.RecordBatch]:
    """Yield rows with new spectra, then those with labels only, then those that are lost."""
    older = table["source_id"].to_numpy()
    spectrum = np.logical_or.reduce(
        [pc.is_valid(table[f"{band}_coefficients"]).to_numpy() for band in BANDS]
    )
    newer = older
    if files.crosswalk is not None:
        newer = read_crosswalk(files.crosswalk).to_newer(older)
    linked = spectrum & (newer > 0)
    notes["rows with a spectrum"] = int(spectrum.sum())
    found = np.zeros(len(table), dtype=bool)
    for batch, made in _made(files, np.unique(newer[linked])):
        ids = batch["source_id"].to_numpy()
        order = np.argsort(ids)
        rows = np.flatnonzero(linked & np.isin(newer, ids))
        star = order[np.searchsorted(ids[order], newer[rows])]
        found[rows] = True
        values = _labels(table, rows) | _new_values(table, rows, star, made)
        yield candidate_batch(values | {"source_id": newer[rows]}, len(rows))
    notes["of these, with a spectrum in the other release"] = int(found.sum())
    for rows, reason in (
        (np.flatnonzero(~spectrum), None),
        (np.flatnonzero(spectrum & ~linked), NOT_LINKED),
        (np.flatnonzero(linked & ~found), NO_SPECTRUM),
    ):
        whole = {name: table[name].combine_chunks().take(pa.array(rows))
                 for name in table.column_names}  # fmt: skip
        values = whole | _labels(table, rows)
        values["reason"] = pa.array([reason] * len(rows), pa.string())
        yield candidate_batch(values, len(rows))


def _made(files: CarriedFiles, wanted: Rows) -> Iterator[tuple[pa.RecordBatch, dict[str, Any]]]:
    """Yield spectra of the wanted stars, and their columns."""
    for batch, auxiliary in batches(files.stars, files.vocabulary, RowCount()):
        mask = pc.is_in(batch["source_id"], value_set=pa.array(wanted))
        few = batch.filter(mask)
        if not len(few):
            continue
        beside = None if auxiliary is None else auxiliary.filter(mask)
        stars = read(few, beside, files.vocabulary)
        found = tokens_for_labels(stars, files.vocabulary)
        yield few, token_rows(stars, found, files.vocabulary)


def _labels(table: pa.Table, rows: Rows) -> dict[str, Any]:
    """Return the columns that no spectrum changes, and the part and order of the rows."""
    made = ("split", "repeat", "basis", *(name for name in table.column_names
                                         if name.startswith(tuple(BANDS))))  # fmt: skip
    taken = {
        name: table[name].combine_chunks().take(pa.array(rows))
        for name in table.column_names
        if name not in made
    }
    return taken | {
        "published_part": table["split"].combine_chunks().take(pa.array(rows)),
        "preference": table["repeat"].to_numpy()[rows].astype(np.float64),
    }


def _new_values(table: pa.Table, rows: Rows, star: Rows, made: dict[str, Any]) -> dict[str, Any]:
    """Return columns of the other release (n,); what it does not know stays as it was."""
    contract, found = load_contract("training"), dict[str, Any]()
    for name, value in made.items():
        if isinstance(value, pa.Array):
            found[name] = value.take(pa.array(star))
            continue
        own = np.asarray(value)[star]
        if own.dtype.kind == "f" and name in contract:
            old = table[name].to_numpy()[rows]
            known = np.isfinite(np.asarray(made[VALUE_OF.get(name, name)], np.float64)[star])
            own = np.where(known, own, old)
        found[name] = own
    assumed = table["colour_errors_assumed"].to_numpy(zero_copy_only=False)[rows]
    found["colour_errors_assumed"] = assumed & ~np.isfinite(np.asarray(made["bprp"])[star])
    return found
