"""Real stars among the simulated ones: spectra without labels, red giants with seismic masses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from catalogproc.datasets import kepler
from catalogproc.datasets.star_reader import StarFiles
from catalogproc.datasets.star_table import StarSampler, StarTable
from catalogproc.datasets.test_sets import read_tokens
from catalogproc.errors import JobError
from catalogproc.io.hashes import sha256
from catalogproc.training.options import Options
from catalogproc.vocabulary import Vocabulary


@dataclass(frozen=True)
class RealRows(Options):
    """Real stars among the simulated ones of a training, table ``real`` of its job.

    spectra
        Share of each step's stars that are real spectra, shown in part and asked for the rest.
    held_out, seed
        Which of the spectra, and what share, no training sees: by source_id.
    kepler
        Share of each step's stars that are red giants with asteroseismic masses, those that
        science/judges/kepler.py does not hold out.
    mass_hidden
        Share of these whose mass is kept from the network, so that it is asked.
    """

    TABLE = "real"

    spectra: float = 0.0
    held_out: float = 0.25
    seed: int = 20260303
    kepler: float = 0.0
    mass_hidden: float = 0.7

    def __post_init__(self) -> None:
        for name in ("spectra", "held_out", "kepler", "mass_hidden"):
            if not 0 <= getattr(self, name) <= 1:
                raise JobError("a share", wanted="0 to 1", found=getattr(self, name),
                               where=f"[real], {name}")  # fmt: skip
        if self.spectra + self.kepler >= 1:
            raise JobError(
                "no room for simulated stars",
                wanted="spectra + kepler below 1", found=self.spectra + self.kepler,
                where="[real]",
            )  # fmt: skip


@dataclass(frozen=True, eq=False)
class Real:
    """Real stars to draw from, each kind with its share; what the bundle says of them."""

    parts: tuple[tuple[StarSampler, float], ...]
    facts: dict[str, Any]
    ids: NDArray[np.int64] | None


def real_rows(options: RealRows, files: Sequence[Path], vocabulary: Vocabulary) -> Real:
    """The real stars that a job asks for; ``files`` are its spectra.

    Raises
    ------
    JobError
        Spectra are asked for and none given, or the other way round.
    InputError
        A file cannot be read.
    """
    if bool(files) != bool(options.spectra):
        raise JobError(
            "the job mixes real spectra in, and needs them" if options.spectra
            else "the job takes no real spectra",
            wanted="--spectra FILE..." if options.spectra else "a job with [real], spectra = SHARE",
            found="none" if not files else files[0], where="[real], spectra",
        )  # fmt: skip
    parts: list[tuple[StarSampler, float]] = []
    facts: dict[str, Any] = {}
    ids = None
    if options.spectra:
        seen, _ = split_spectra(files, vocabulary, options)
        parts.append((seen.sample, options.spectra))
        ids = np.unique(seen.ids)
        facts["real_spectra"] = (
            f"{len(ids):,} Gaia DR3 XP spectra without labels, {options.spectra:.0%} of each step"
        )
        facts["real_spectra_sha256"] = _digest(seen)
    if options.kepler:
        giants = kepler.parts(vocabulary)[0].table()
        column = vocabulary.column("mass")
        parts.append((giants.sampler_hiding(column, options.mass_hidden), options.kepler))
        facts["real_labels"] = (
            f"{len(giants.ids):,} Kepler red giants with seismic masses (Li et al. 2024), "
            f"no spectra, {options.kepler:.0%} of each step"
        )
    return Real(tuple(parts), facts, ids)


def split_spectra(
    files: Sequence[Path], vocabulary: Vocabulary, options: RealRows
) -> tuple[StarTable, StarTable]:
    """Real spectra as tokens, those that a training sees and those that it does not.

    The relevant coefficients over the G flux and the colours; G, BP and RP are synthetic.
    """
    ids, values, errors, _ = read_tokens(StarFiles(files), vocabulary)
    return StarTable(ids, values, errors).split(options.held_out, options.seed)


def _digest(table: StarTable) -> str:
    """SHA-256 (hex) of the rows."""
    arrays = (table.ids, table.values, table.errors)
    return sha256(np.ascontiguousarray(array).tobytes() for array in arrays)
