"""A dataset from Leung & Bovy's public sets and DistMass: two downloads and a command."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa

from catalogproc.datasets.cuts import Cuts
from catalogproc.datasets.dataset import TEST, TRAIN, Report
from catalogproc.datasets.labels import Masses
from catalogproc.datasets.writer import Split, candidate_batch, write_dataset
from catalogproc.readers.chunks import fingerprint
from catalogproc.readers.lb24 import SCALARS, read_lb24
from catalogproc.readers.surveys import DistMassColumns
from catalogproc.rundir.manifest import shown_path
from catalogproc.vocabulary import BANDS, load_vocabulary

CUTS = Cuts(box=None)
"""The seed paper's; the others have been applied to these sets by those who made them."""

CREDIT = (
    "Leung & Bovy 2024 (Zenodo 12738256), ESA/Gaia/DPAC, APOGEE DR17 (Abdurro'uf et al. 2022), "
    "DistMass (Stone-Martinez et al. 2024)"
)

_AS_THEY_ARE = (
    "source_id", "phot_g_mean_mag", *SCALARS,
    *(f"e_{name}" for name in SCALARS if name != "parallax_zpc"),
    *(f"{band}_{what}" for band in BANDS
      for what in ("coefficients", "coefficient_errors", "n_relevant_bases")),
)  # fmt: skip


def dataset_from_lb24(
    training: Path | str,
    testing: Path | str,
    distmass: Path | str,
    output: Path | str,
    *,
    cuts: Cuts = CUTS,
    split: Split | None = None,
    names: DistMassColumns | None = None,
    progress: Callable[[int, int | None], None] | None = None,
) -> Report:
    """Join Leung & Bovy's two sets with DistMass and write the dataset.

    Parameters
    ----------
    training, testing
        training_set.h5 and testing_set.h5.
    distmass
        DistMass, FITS; ``names`` says what its columns are called.
    output
        The folder to make.
    cuts, split
        Which stars; by default their own split, with every star on one side.
    progress
        Called with the rows read so far.

    Raises
    ------
    InputError
        A file that cannot be read, or is of another layout.
    JobError
        The folder exists, or no star is left on one of the sides.
    """
    names = names or DistMassColumns()
    masses = Masses.read(distmass, names)
    sets = {TRAIN: Path(training), TEST: Path(testing)}
    notes = {"rows of DistMass": len(masses), "of these rows, in DistMass": 0}
    about = {
        "made from": "Leung & Bovy 2024 and DistMass",
        "credit": CREDIT,
        "files": {shown_path(path): fingerprint(path) for path in (*sets.values(), Path(distmass))},
        "DistMass's columns": vars(names),
    }
    candidates = _candidates(sets, masses, notes, progress)
    return write_dataset(candidates, output, cuts, split or Split(), about, notes)


def _candidates(
    sets: dict[str, Path],
    masses: Masses,
    notes: dict[str, int],
    progress: Callable[[int, int | None], None] | None,
) -> Iterator[pa.RecordBatch]:
    vocabulary = load_vocabulary()
    counts = (vocabulary.coefficients("bp"), vocabulary.coefficients("rp"))
    done = 0
    for side, path in sets.items():
        for batch in read_lb24(path, counts):
            size = len(batch)
            row = masses.find(
                batch["teff"].to_numpy(),
                designation=batch["designation"],
                source_id=batch["source_id"],
            )
            notes["of these rows, in DistMass"] += int((row >= 0).sum())
            values = {name: batch[name] for name in _AS_THEY_ARE}
            values |= masses.take(row)
            yield candidate_batch(
                values
                | {
                    "apogee_id": batch["designation"],
                    "e_parallax": batch["e_parallax_zpc"],
                    "side": [side] * size,
                    "preference": done + np.arange(size, dtype=np.float64),
                },
                size,
            )
            done += size
            if progress is not None:
                progress(done, None)
