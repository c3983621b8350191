"""Datasets made of the surveys: APOGEE, DistMass, Gaia, 2MASS.

Spectra, photometry and astrometry are processed by the same code as in a run (readers, screening,
features), so that a model is trained on the same inputs that it will get.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from catalogproc.datasets.crosswalk import read_crosswalk
from catalogproc.datasets.cuts import Cuts, has_bits
from catalogproc.datasets.dataset import Report, spectra_facts
from catalogproc.datasets.labels import Masses
from catalogproc.datasets.token_rows import every_token, token_rows, tokens_for_labels
from catalogproc.datasets.writer import Selection, Split, candidate_batch, write_dataset
from catalogproc.errors import InputError
from catalogproc.features.dust_map import DustMap, reddened
from catalogproc.features.star_batch import read
from catalogproc.features.tokens import Tokens
from catalogproc.inference.screening import Duplicates, screen
from catalogproc.io.atomic import scratch_folder
from catalogproc.io.remote_file import File
from catalogproc.readers.chunks import fingerprint
from catalogproc.readers.gaia_source import AuxiliaryTable, open_auxiliary
from catalogproc.readers.release_check import check_release
from catalogproc.readers.surveys import ApogeeColumns, DistMassColumns, read_apogee
from catalogproc.readers.xp import read_spectra
from catalogproc.rundir.manifest import shown_path
from catalogproc.vocabulary import Vocabulary, load_vocabulary

CREDIT = (
    "ESA/Gaia/DPAC, APOGEE DR17 (Abdurro'uf et al. 2022), DistMass (Stone-Martinez et al. 2024), "
    "2MASS (Skrutskie et al. 2006)"
)

FURTHER = 16
"""Bit 4 of EXTRATARG: another spectrum of this star is APOGEE's primary one."""

ATMOSPHERE = ("teff", "logg", "m_h")
TMASS = ("j_m", "j_msigcom", "h_m", "h_msigcom", "ks_m", "ks_msigcom")

_BATCH = 16_384


@dataclass(frozen=True)
class SurveyFiles:
    """Files of the surveys, in any format that is read, and their column names.

    Attributes
    ----------
    apogee, distmass
        allStar of APOGEE DR17, and DistMass.
    gaia_source, xp
        Gaia's photometry and parallaxes, and XP spectra.
    tmass
        Tables of 2MASS by source_id (Gaia's tmass_psc_xsc_best_neighbour joined with the
        catalog). Without them J, H and Ks are those of allStar, as in Leung & Bovy's sets.
    crosswalk
        Table dr3_neighbourhood, where spectra and gaia_source are of a later release than DR3,
        whose identifiers allStar has; None where these are the same.
    vocabulary
        The release of the spectra, and the basis in which the dataset has them.
    apogee_columns, distmass_columns
        Column names of allStar and DistMass.
    """

    apogee: Path
    distmass: Path
    gaia_source: tuple[File, ...]
    xp: tuple[File, ...]
    tmass: tuple[File, ...] = ()
    crosswalk: Path | None = None
    vocabulary: Vocabulary = field(default_factory=load_vocabulary)
    apogee_columns: ApogeeColumns = field(default_factory=ApogeeColumns)
    distmass_columns: DistMassColumns = field(default_factory=DistMassColumns)

    def __iter__(self) -> Iterator[File]:
        crosswalk = () if self.crosswalk is None else (self.crosswalk,)
        tables = (*self.gaia_source, *self.xp, *self.tmass, *crosswalk)
        return iter((self.apogee, self.distmass, *tables))


@dataclass(frozen=True)
class _Labels:
    """Rows (R,) of allStar that have a source_id, sorted by it; labels and 2MASS magnitudes."""

    source_id: NDArray[np.int64]
    columns: dict[str, Any]
    tmass: dict[str, NDArray[np.float64]]

    def rows(self, rows: NDArray[np.int64]) -> _Labels:
        """Return some of the rows."""
        tmass = {name: value[rows] for name, value in self.tmass.items()}
        return _Labels(self.source_id[rows], self.take(rows), tmass)

    def take(self, rows: NDArray[np.int64]) -> dict[str, Any]:
        """Return the columns of some of the rows."""
        at = pa.array(rows)
        return {
            name: value.take(at) if isinstance(value, pa.Array) else value[rows]
            for name, value in self.columns.items()
        }


def dataset_from_surveys(
    files: SurveyFiles,
    output: Path | str,
    selection: Selection | None = None,
    *,
    dust_map: DustMap | None = None,
    progress: Callable[[int, int | None], None] | None = None,
) -> Report:
    """Join the surveys and write the dataset.

    Parameters
    ----------
    files
        The input files.
    output
        The folder to make.
    selection
        Which stars are kept, and which of them are for the test; by default all cuts and a
        division by source_id.
    dust_map
        Gives ln E(B-V) of stars with a good parallax. Without a map only stars with E(B-V) in
        the gaia_source tables have it.
    progress
        Called with the number of spectra read so far.

    Raises
    ------
    InputError
        A file cannot be read, or has another layout.
    ReleaseError
        The spectra are of another release than the vocabulary's.
    JobError
        The folder exists, or no star is left in one of the parts.
    """
    selection = selection or Selection(split=Split(published=False))
    masses = Masses.read(files.distmass, files.distmass_columns)
    notes = {"rows of DistMass": len(masses)}
    labels, without_id = _labels(files, masses, selection.cuts, notes)
    vocabulary = files.vocabulary
    about = _facts(files, dust_map) | spectra_facts(vocabulary)
    with scratch_folder(Path(output).parent, "auxiliary") as staging:
        gaia = open_auxiliary(files.gaia_source, staging, vocabulary.data_release)
        tmass = open_auxiliary(files.tmass, staging) if files.tmass else None
        join = _Join(labels, gaia, tmass, dust_map, selection.cuts, vocabulary, notes)
        candidates = _candidates(join, files, without_id, progress)
        return write_dataset(candidates, output, selection, about, notes)


def _facts(files: SurveyFiles, dust_map: DustMap | None) -> dict[str, Any]:
    """Return the facts of a dataset: its input files, their columns and the credit."""
    return {
        "made from": "APOGEE, DistMass, Gaia and 2MASS",
        "credit": f"{CREDIT}; {dust_map.facts['credit']}" if dust_map else CREDIT,
        "dust map": dust_map.hash if dust_map else None,
        "files": {shown_path(path): fingerprint(path) for path in files},
        "APOGEE's columns": vars(files.apogee_columns),
        "DistMass's columns": vars(files.distmass_columns),
    }


def _labels(
    files: SurveyFiles, masses: Masses, cuts: Cuts, notes: dict[str, int]
) -> tuple[_Labels, int]:
    """Return the labels of each spectrum of APOGEE, and the number of rows without source_id."""
    batches = list(read_apogee(files.apogee, files.apogee_columns))
    if not batches:
        raise InputError("the table has no rows", where=files.apogee)
    table = pa.Table.from_batches(batches).combine_chunks()
    row = masses.find(
        table["teff"].to_numpy(),
        apogee_id=table["apogee_id"].combine_chunks(),
        source_id=table["source_id"].combine_chunks(),
    )
    notes["of APOGEE's rows, in DistMass"] = int((row >= 0).sum())
    star = table["starflag"].to_numpy()
    bad = has_bits(table["aspcapflag"].to_numpy(), cuts.bad_aspcap) | (star != 0)
    content: dict[str, Any] = {"apogee_id": table["apogee_id"].combine_chunks()}
    for name in ATMOSPHERE:
        value = np.where(bad, np.nan, table[name].to_numpy())
        error = np.where(np.isnan(value), np.nan, table[f"e_{name}"].to_numpy())
        content |= {name: value, f"e_{name}": error}
    content |= masses.take(row)
    further = (table["extratarg"].to_numpy() & FURTHER) != 0
    content["preference"] = 1e6 * further - np.nan_to_num(table["snr"].to_numpy())
    contaminated = has_bits(star, cuts.bad_star)
    content["reason"] = np.where(contaminated, "a neighbour in the fibre", "").astype(object)
    tmass = {name: table[name].to_numpy() for name in TMASS}
    ids = pc.fill_null(table["source_id"], 0).to_numpy()
    if files.crosswalk is not None:
        newer = read_crosswalk(files.crosswalk).to_newer(ids)
        notes["of APOGEE's rows, not in the crosswalk"] = int(((ids > 0) & (newer == 0)).sum())
        ids = newer
    labels = _Labels(ids, content, tmass)
    order = np.argsort(labels.source_id, kind="stable")
    order = order[labels.source_id[order] > 0]
    return labels.rows(order), len(table) - len(order)


@dataclass(frozen=True)
class _Join:
    """Tables and maps that a batch of spectra is joined with."""

    labels: _Labels
    gaia: AuxiliaryTable
    tmass: AuxiliaryTable | None
    dust_map: DustMap | None
    cuts: Cuts
    vocabulary: Vocabulary
    notes: dict[str, int]

    def rows(self, good: pa.RecordBatch) -> tuple[pa.RecordBatch, NDArray[np.int64]]:
        """Return candidates made of screened spectra, and the rows of the labels they use."""
        ids = good["source_id"].to_numpy()
        first = np.searchsorted(self.labels.source_id, ids)
        count = np.searchsorted(self.labels.source_id, ids, side="right") - first
        auxiliary = self._auxiliary(good["source_id"], first)
        batch = read(good, auxiliary, self.vocabulary)
        star_tokens = tokens_for_labels(batch, self.vocabulary)
        if self.dust_map is not None:
            job = every_token(self.vocabulary)
            star_tokens = reddened(star_tokens, self.dust_map, self.vocabulary, job)
        stars = token_rows(batch, star_tokens, self.vocabulary)
        stars["reason"] = self._reason(star_tokens)
        star = np.repeat(np.arange(len(ids)), count)
        nth = np.arange(len(star)) - np.repeat(np.cumsum(count) - count, count)
        row = np.repeat(first, count) + nth
        values = {
            name: value.take(pa.array(star)) if isinstance(value, pa.Array)
            else np.asarray(value)[star]
            for name, value in stars.items()
        }  # fmt: skip
        labels = self.labels.take(row)
        reason = np.where(labels["reason"] == "", values["reason"], labels["reason"])
        values |= labels | {"source_id": ids[star], "reason": pa.array(reason, pa.string())}
        return candidate_batch(values, len(star)), row

    def _auxiliary(self, ids: pa.Array, first: NDArray[np.int64]) -> pa.Table:
        """Return the gaia_source columns, with 2MASS from its own tables or from allStar."""
        table = self.gaia.match(ids)
        if self.tmass is not None:
            other = self.tmass.match(ids)
            for name in (*TMASS, "ph_qual"):
                place = table.column_names.index(name)
                table = table.set_column(place, table.field(place), other[name])
            return table
        for name in TMASS:
            place = table.column_names.index(name)
            kind = table.field(place).type
            apogee = pa.array(self.labels.tmass[name][first], from_pandas=True).cast(kind)
            column = pc.coalesce(table.column(place), apogee)
            table = table.set_column(place, table.field(place), column)
        return table

    def _reason(self, found: Tokens) -> NDArray[np.object_]:
        """Return why stars are rejected (N,), or ""."""
        reason: NDArray[np.object_] = np.full(len(found), "", dtype=object)
        with np.errstate(invalid="ignore"):
            reason[found.excess_factor >= self.cuts.excess] = (
                f"excess factor {self.cuts.excess:g} or more"
            )
            reason[found.ruwe >= self.cuts.ruwe] = f"ruwe {self.cuts.ruwe:g} or more"
        return reason


def _candidates(
    join: _Join,
    files: SurveyFiles,
    without_id: int,
    progress: Callable[[int, int | None], None] | None,
) -> Iterator[pa.RecordBatch]:
    """Yield the stars with spectra, file by file; then the rows of APOGEE without a spectrum."""
    labels, notes = join.labels, join.notes
    wanted = pa.array(np.unique(labels.source_id))
    seen, found = Duplicates(), np.zeros(len(labels.source_id), dtype=bool)
    read = 0
    for path in files.xp:
        check_release(path, join.vocabulary)
        for batch in read_spectra(path, release=join.vocabulary.data_release):
            read += len(batch)
            matched = batch.filter(pc.is_in(batch["source_id"], value_set=wanted))
            good, rejected = screen(matched, join.vocabulary, seen, str(path))
            for reason in rejected["reason"].to_pylist():
                note = f"spectra rejected, {reason}"
                notes[note] = notes.get(note, 0) + 1
            if len(good):
                candidates, rows = join.rows(good)
                found[rows] = True
                yield candidates
            if progress is not None:
                progress(read, None)
    left = np.flatnonzero(~found)
    for start in range(0, len(left), _BATCH):
        rows = left[start : start + _BATCH]
        values = labels.take(rows) | {"source_id": labels.source_id[rows]}
        values["reason"] = pa.array(values["reason"], pa.string())
        yield candidate_batch(values, len(rows))
    if without_id:
        yield candidate_batch({}, without_id)
