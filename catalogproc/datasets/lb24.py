"""Datasets made of Leung & Bovy's public sets and DistMass."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa

from catalogproc.datasets.cuts import Cuts
from catalogproc.datasets.dataset import TEST, TRAIN, Report
from catalogproc.datasets.labels import Masses
from catalogproc.datasets.writer import Selection, candidate_batch, write_dataset
from catalogproc.readers.chunks import fingerprint
from catalogproc.readers.lb24 import SCALARS, read_lb24
from catalogproc.readers.surveys import DistMassColumns
from catalogproc.rundir.manifest import shown_path
from catalogproc.vocabulary import BANDS, load_vocabulary

CUTS = Cuts(box=None)
"""Zhang, Bu et al.'s (2026) cuts; its box has been applied to these sets by their authors."""

CREDIT = (
    "Leung & Bovy 2024 (Zenodo 12738256), ESA/Gaia/DPAC, APOGEE DR17 (Abdurro'uf et al. 2022), "
    "DistMass (Stone-Martinez et al. 2024)"
)

_COPIED = (
    "source_id", "phot_g_mean_mag", *SCALARS,
    *(f"e_{name}" for name in SCALARS if name != "parallax_zpc"),
    *(f"{band}_{what}" for band in BANDS
      for what in ("coefficients", "coefficient_errors", "n_relevant_bases")),
)  # fmt: skip


@dataclass(frozen=True)
class LB24Files:
    """Leung & Bovy's two public sets (Zenodo 12738256) and DistMass.

    Attributes
    ----------
    training, testing
        training_set.h5 and testing_set.h5.
    distmass
        DistMass, FITS.
    distmass_columns
        Column names of the DistMass file.
    """

    training: Path
    testing: Path
    distmass: Path
    distmass_columns: DistMassColumns = field(default_factory=DistMassColumns)

    def __iter__(self) -> Iterator[Path]:
        return iter((self.training, self.testing, self.distmass))


def dataset_from_lb24(
    files: LB24Files,
    output: Path | str,
    selection: Selection | None = None,
    *,
    progress: Callable[[int, int | None], None] | None = None,
) -> Report:
    """Join Leung & Bovy's two sets with DistMass and write the dataset.

    Parameters
    ----------
    files
        The input files.
    output
        The folder to make.
    selection
        Which stars are kept, and which of them are for the test; by default those of CUTS and
        the published split, with all rows of a star in one part.
    progress
        Called with the number of rows read so far.

    Raises
    ------
    InputError
        A file cannot be read, or has another layout.
    JobError
        The folder exists, or no star is left in one of the parts.
    """
    masses = Masses.read(files.distmass, files.distmass_columns)
    notes = {"rows of DistMass": len(masses), "of these rows, in DistMass": 0}
    about = {
        "made from": "Leung & Bovy 2024 and DistMass",
        "credit": CREDIT,
        "files": {shown_path(path): fingerprint(path) for path in files},
        "DistMass's columns": vars(files.distmass_columns),
    }
    about |= load_vocabulary().data_release.facts
    candidates = _candidates(files, masses, notes, progress)
    return write_dataset(candidates, output, selection or Selection(CUTS), about, notes)


def _candidates(
    files: LB24Files,
    masses: Masses,
    notes: dict[str, int],
    progress: Callable[[int, int | None], None] | None,
) -> Iterator[pa.RecordBatch]:
    vocabulary = load_vocabulary()
    counts = (vocabulary.coefficients("bp"), vocabulary.coefficients("rp"))
    done = 0
    for part, path in ((TRAIN, files.training), (TEST, files.testing)):
        for batch in read_lb24(path, counts):
            size = len(batch)
            row = masses.find(
                batch["teff"].to_numpy(),
                designation=batch["designation"],
                source_id=batch["source_id"],
            )
            notes["of these rows, in DistMass"] += int((row >= 0).sum())
            values = {name: batch[name] for name in _COPIED}
            values |= masses.take(row)
            yield candidate_batch(
                values
                | {
                    "apogee_id": batch["designation"],
                    "e_parallax": batch["e_parallax_zpc"],
                    "published_part": [part] * size,
                    "preference": done + np.arange(size, dtype=np.float64),
                },
                size,
            )
            done += size
            if progress is not None:
                progress(done, None)
