"""Real stars in a simulated training: spectra without labels, giants with seismic masses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from catalogproc.datasets import kepler
from catalogproc.datasets.star_reader import StarFiles
from catalogproc.datasets.star_table import StarSampler, StarTable
from catalogproc.datasets.test_sets import read_stars_of
from catalogproc.errors import JobError
from catalogproc.io.hashes import sha256
from catalogproc.io.remote_file import File
from catalogproc.training.config import JobTable
from catalogproc.vocabulary import Vocabulary


@dataclass(frozen=True)
class RealOptions(JobTable):
    """Real stars in a training on simulated ones, table ``real`` of its job.

    Attributes
    ----------
    spectra
        Fraction of each step's stars that are real spectra, without labels.
    held_out, seed
        Fraction of the spectra that is never trained on, and the seed that selects it.
    kepler
        Fraction of each step's stars that are red giants with asteroseismic masses; those that
        datasets/kepler.py does not hold out, without the test fold.
    mass_hidden
        Fraction of these whose mass is never shown, so that the network must predict it.
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
                raise self.invalid(name, getattr(self, name), "not a fraction", "0 to 1")
        if self.spectra + self.kepler >= 1:
            raise JobError(
                "no room for simulated stars",
                wanted="spectra + kepler below 1", found=self.spectra + self.kepler,
                where="[real]",
            )  # fmt: skip


@dataclass(frozen=True, eq=False)
class RealStars:
    """Real stars of a training.

    Attributes
    ----------
    samplers
        Samplers of each type of star, and their fractions of each step.
    facts
        Facts that the bundle records.
    ids
        Sorted source_id of the spectra; None without any.
    """

    samplers: tuple[tuple[StarSampler, float], ...]
    facts: dict[str, Any]
    ids: NDArray[np.int64] | None


def load_real_stars(
    options: RealOptions, files: Sequence[File], vocabulary: Vocabulary
) -> RealStars:
    """Return the real stars that a job asks for.

    Parameters
    ----------
    options
        Table ``real`` of the job.
    files
        Files of spectra.
    vocabulary
        Defines the tokens.

    Raises
    ------
    JobError
        The job uses spectra and none are given, or it uses none and some are given.
    InputError
        A file cannot be read.
    """
    if bool(files) != bool(options.spectra):
        raise JobError(
            "the job uses real spectra, and needs them" if options.spectra
            else "the job uses no real spectra",
            wanted="--spectra FILE..." if options.spectra else "a job with [real], spectra = SHARE",
            found="none" if not files else files[0], where="[real], spectra",
        )  # fmt: skip
    samplers: list[tuple[StarSampler, float]] = []
    facts: dict[str, Any] = {}
    ids = None
    if options.spectra:
        training, _ = split_spectra(files, vocabulary, options)
        samplers.append((training.sample, options.spectra))
        ids = np.unique(training.ids)
        facts["real_spectra"] = (
            f"{len(ids):,} {vocabulary.data_release.title} XP spectra without labels, "
            f"{options.spectra:.0%} of each step"
        )
        facts["real_spectra_sha256"] = _digest(training)
    if options.kepler:
        giants = kepler.training_giants(vocabulary).table()
        mass = vocabulary.columns(["mass"])
        samplers.append((giants.sampler_hiding(mass, options.mass_hidden), options.kepler))
        facts["real_labels"] = (
            f"{len(giants.ids):,} Kepler red giants with seismic masses (Li et al. 2024), "
            f"no spectra, {options.kepler:.0%} of each step"
        )
    return RealStars(tuple(samplers), facts, ids)


def split_spectra(
    files: Sequence[File], vocabulary: Vocabulary, options: RealOptions
) -> tuple[StarTable, StarTable]:
    """Return real spectra as tokens: those to train on, and those held out.

    Tokens are the relevant coefficients over the G flux, and colours; G, BP and RP are
    synthetic.

    Parameters
    ----------
    files
        Files of spectra.
    vocabulary
        Defines the tokens.
    options
        Fraction and seed of the held-out spectra.
    """
    read = read_stars_of(StarFiles(files), vocabulary)
    return StarTable(read.ids, read.values, read.errors).split(options.held_out, options.seed)


def _digest(table: StarTable) -> str:
    """Return the SHA-256 (hex) of the rows."""
    arrays = (table.ids, table.values, table.errors)
    return sha256(np.ascontiguousarray(array).tobytes() for array in arrays)
