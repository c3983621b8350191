"""A dataset from the surveys themselves: APOGEE, DistMass, Gaia, 2MASS.

Spectra, photometry and astrometry pass through the same code as in a run (sources, screen,
features), so that a model is trained on what it will be given.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from catalogproc.datasets.cuts import Cuts, has_bits
from catalogproc.datasets.dataset import Report
from catalogproc.datasets.labels import Masses
from catalogproc.datasets.writer import Split, candidate_batch, write_dataset
from catalogproc.errors import InputError
from catalogproc.features.dust_map import DustMap, reddened
from catalogproc.features.tokens import READABLE, Tokens, tokens
from catalogproc.inference.screening import Duplicates, screen
from catalogproc.io.staging import scratch_folder
from catalogproc.job import Job
from catalogproc.readers.chunks import fingerprint
from catalogproc.readers.coerce import matrix_lists
from catalogproc.readers.gaia_source import Companion, open_companion
from catalogproc.readers.surveys import ApogeeColumns, DistMassColumns, read_apogee
from catalogproc.readers.xp import read_spectra
from catalogproc.rundir.manifest import shown_path
from catalogproc.vocabulary import BANDS, Vocabulary, load_vocabulary

CREDIT = (
    "ESA/Gaia/DPAC, APOGEE DR17 (Abdurro'uf et al. 2022), DistMass (Stone-Martinez et al. 2024), "
    "2MASS (Skrutskie et al. 2006)"
)

FURTHER = 16
"""Bit 4 of EXTRATARG: another spectrum of this star is APOGEE's first choice."""

ATMOSPHERE = ("teff", "logg", "m_h")
TMASS = ("j_m", "j_msigcom", "h_m", "h_msigcom", "ks_m", "ks_msigcom")

_BATCH = 16_384


@dataclass(frozen=True)
class SurveyFiles:
    """Where the surveys are; all but 2MASS are needed.

    ``tmass`` are tables of 2MASS by source_id (Gaia's tmass_psc_xsc_best_neighbour joined with
    the catalog); without them J, H and Ks are those in APOGEE's allStar, as Leung & Bovy's are.
    """

    apogee: Path
    distmass: Path
    gaia_source: tuple[Path, ...]
    xp: tuple[Path, ...]
    tmass: tuple[Path, ...] = ()

    def __iter__(self) -> Iterator[Path]:
        return iter((self.apogee, self.distmass, *self.gaia_source, *self.xp, *self.tmass))


@dataclass(frozen=True)
class _Labels:
    """Rows (R,) of allStar that have a source_id, sorted by it."""

    source_id: NDArray[np.int64]
    columns: dict[str, Any]
    tmass: dict[str, NDArray[np.float64]]

    def rows(self, rows: NDArray[np.int64]) -> _Labels:
        """Some of them."""
        tmass = {name: value[rows] for name, value in self.tmass.items()}
        return _Labels(self.source_id[rows], self.take(rows), tmass)

    def take(self, rows: NDArray[np.int64]) -> dict[str, Any]:
        """The columns of some of them."""
        at = pa.array(rows)
        return {
            name: value.take(at) if isinstance(value, pa.Array) else value[rows]
            for name, value in self.columns.items()
        }


def dataset_from_surveys(
    files: SurveyFiles,
    output: Path | str,
    *,
    dust_map: DustMap | None = None,
    cuts: Cuts | None = None,
    split: Split | None = None,
    apogee_names: ApogeeColumns | None = None,
    distmass_names: DistMassColumns | None = None,
    progress: Callable[[int, int | None], None] | None = None,
) -> Report:
    """Join the surveys and write the dataset.

    Parameters
    ----------
    files
        The surveys' files, in any format that is read.
    output
        The folder to make.
    dust_map
        Where ln E(B-V) comes from, for stars that have a good parallax; None leaves it out,
        but for stars whose E(B-V) is in the gaia_source tables.
    cuts, split
        Which stars, and which of them for the test.
    progress
        Called with the spectra read so far.

    Raises
    ------
    InputError
        A file that cannot be read, or is of another layout.
    ReleaseError
        Spectra of another release than the vocabulary's.
    JobError
        The folder exists, or no star is left on one of the sides.
    """
    cuts, split = cuts or Cuts(), split or Split(published=False)
    distmass_names = distmass_names or DistMassColumns()
    apogee_names = apogee_names or ApogeeColumns()
    masses = Masses.read(files.distmass, distmass_names)
    notes = {"rows of DistMass": len(masses)}
    labels, nameless = _labels(files.apogee, apogee_names, masses, cuts, notes)
    about = {
        "made from": "APOGEE, DistMass, Gaia and 2MASS",
        "credit": f"{CREDIT}; {dust_map.facts['credit']}" if dust_map else CREDIT,
        "dust map": dust_map.hash if dust_map else None,
        "files": {shown_path(path): fingerprint(path) for path in files},
        "APOGEE's columns": vars(apogee_names),
        "DistMass's columns": vars(distmass_names),
    }
    with scratch_folder(Path(output).parent, "companion") as staging:
        gaia = open_companion(files.gaia_source, staging)
        tmass = open_companion(files.tmass, staging) if files.tmass else None
        join = _Join(labels, gaia, tmass, dust_map, cuts, load_vocabulary(), notes)
        candidates = _candidates(join, files.xp, nameless, progress)
        return write_dataset(candidates, output, cuts, split, about, notes)


def _labels(
    path: Path, names: ApogeeColumns, masses: Masses, cuts: Cuts, notes: dict[str, int]
) -> tuple[_Labels, int]:
    """What APOGEE and DistMass say of each spectrum; and how many have no source_id."""
    batches = list(read_apogee(path, names))
    if not batches:
        raise InputError("the table has no rows", where=path)
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
    every = _Labels(pc.fill_null(table["source_id"], 0).to_numpy(), content, tmass)
    order = np.argsort(every.source_id, kind="stable")
    order = order[every.source_id[order] > 0]
    return every.rows(order), len(table) - len(order)


@dataclass(frozen=True)
class _Join:
    """Everything that a batch of spectra is joined with."""

    labels: _Labels
    gaia: Companion
    tmass: Companion | None
    dust_map: DustMap | None
    cuts: Cuts
    vocabulary: Vocabulary
    notes: dict[str, int]

    def rows(self, good: pa.RecordBatch) -> tuple[pa.RecordBatch, NDArray[np.int64]]:
        """The candidates that some screened spectra make; and the labels' rows they have."""
        ids = good["source_id"].to_numpy()
        first = np.searchsorted(self.labels.source_id, ids)
        count = np.searchsorted(self.labels.source_id, ids, side="right") - first
        companion = self._companion(good["source_id"], first)
        job = _job(self.vocabulary)
        found = tokens(good, companion, self.vocabulary, job)
        if self.dust_map is not None:
            found = reddened(found, self.dust_map, self.vocabulary, job)
        stars = self._stars(found)
        star = np.repeat(np.arange(len(ids)), count)
        nth = np.arange(len(star)) - np.repeat(np.cumsum(count) - count, count)
        row = np.repeat(first, count) + nth
        values = {
            name: value.take(pa.array(star)) if isinstance(value, pa.Array) else value[star]
            for name, value in stars.items()
        }
        labels = self.labels.take(row)
        reason = np.where(labels["reason"] == "", values["reason"], labels["reason"])
        values |= labels | {"source_id": ids[star], "reason": pa.array(reason, pa.string())}
        return candidate_batch(values, len(star)), row

    def _companion(self, ids: pa.Array, first: NDArray[np.int64]) -> pa.Table:
        """gaia_source's columns, with 2MASS's from its own tables, else from allStar."""
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
            ours = pa.array(self.labels.tmass[name][first], from_pandas=True).cast(kind)
            column = pc.coalesce(table.column(place), ours)
            table = table.set_column(place, table.field(place), column)
        return table

    def _stars(self, found: Tokens) -> dict[str, Any]:
        """Columns of the contract training (N,) of each star, and why it is left out, or ""."""
        stars: dict[str, Any] = {}
        for name in _job(self.vocabulary).inputs:
            column = self.vocabulary.column(name)
            stars[name] = found.values[:, column].copy()
            stars[f"e_{name}"] = found.errors[:, column].copy()
        for band in BANDS:
            columns = self.vocabulary.coefficient_columns(band)
            for what, matrix in (
                ("coefficients", found.values), ("coefficient_errors", found.errors),
            ):  # fmt: skip
                part = np.ascontiguousarray(matrix[:, columns], dtype=np.float32)
                absent = np.asarray(~np.isfinite(found.values[:, columns]).any(axis=1))
                stars[f"{band}_{what}"] = matrix_lists(part, pa.float32(), absent)
        stars["bp_n_relevant_bases"] = found.n_bp_relevant
        stars["rp_n_relevant_bases"] = found.n_rp_relevant
        usable = found.parallax_usable
        stars["parallax_zpc"] = np.where(usable, found.parallax_zpc, np.nan)
        stars["e_parallax"] = np.where(usable, found.e_parallax, np.nan)
        stars["phot_g_mean_mag"] = found.g_mag
        reason: NDArray[np.object_] = np.full(len(found), "", dtype=object)
        with np.errstate(invalid="ignore"):
            reason[found.excess_factor >= self.cuts.excess] = (
                f"excess factor {self.cuts.excess:g} or more"
            )
            reason[found.ruwe >= self.cuts.ruwe] = f"ruwe {self.cuts.ruwe:g} or more"
        stars["reason"] = reason
        return stars


def _job(vocabulary: Vocabulary) -> Job:
    """All that there is: what a star shows is for the training to choose from."""
    inputs = tuple(name for name in READABLE if name in vocabulary)
    count = max(vocabulary.coefficients(band) for band in BANDS)
    return Job("dataset", inputs=inputs, coefficients=count, mask_irrelevant=False)


def _candidates(
    join: _Join,
    xp: Sequence[Path],
    nameless: int,
    progress: Callable[[int, int | None], None] | None,
) -> Iterator[pa.RecordBatch]:
    """The stars with spectra, file by file; then the rows that were not found any."""
    labels, notes = join.labels, join.notes
    wanted = pa.array(np.unique(labels.source_id))
    seen, found = Duplicates(), np.zeros(len(labels.source_id), dtype=bool)
    read = 0
    for path in xp:
        for batch in read_spectra(path):
            read += len(batch)
            ours = batch.filter(pc.is_in(batch["source_id"], value_set=wanted))
            good, refused = screen(ours, join.vocabulary, seen, str(path))
            for reason in refused["reason"].to_pylist():
                words = f"spectra rejected, {reason}"
                notes[words] = notes.get(words, 0) + 1
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
    if nameless:
        yield candidate_batch({}, nameless)
