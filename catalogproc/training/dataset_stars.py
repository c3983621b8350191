"""Stars of a dataset in a training: groups with given shares, moved stars, and the holdout."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from catalogproc.datasets.apogee_xp import GIANT_LOGG, GIANT_TEFF
from catalogproc.datasets.dataset import TRAIN, dataset_columns, load_dataset
from catalogproc.datasets.holdout import Holdout, real_holdout
from catalogproc.datasets.star_table import StarSampler, StarTable, in_second_part, mixture
from catalogproc.errors import JobError, plural
from catalogproc.training.augmented_stars import AugmentedStars, augmented_stars
from catalogproc.training.config import JobTable
from catalogproc.training.one_band_stars import hide_bands
from catalogproc.vocabulary import BANDS, Vocabulary

READINGS = 4
"""How often a star calibrates, as it is and moved: each time with other noise, read otherwise."""

SEISMIC_HIDDEN = 0.7
"""Fraction of the rows without a spectrum whose mass and age are never shown, but requested."""


@dataclass(frozen=True)
class DatasetOptions(JobTable):
    """Stars of a dataset in a training, table ``data`` of its job.

    Attributes
    ----------
    seed, validation
        Seed and fraction of the training part's stars that are used for validation instead.
    label_weight
        Probability of requesting a label relative to a coefficient or a colour.
    mask_irrelevant
        Leave out coefficients past the number of relevant bases, as a run does.
    giants, with_parallax, labels_only
        Fractions of the dataset's stars in each step that are giants with a spectrum, giants with
        a spectrum and a pseudo-luminosity besides these, and stars with labels and no spectrum;
        all 0: every row is as likely.
    replay, replay_stars, corrected
        Fraction of each step's stars that are simulated, number of stars to simulate, and whether
        these are corrected by real spectra: in fine-tuning, they keep tokens that the dataset
        lacks from being forgotten.
    """

    TABLE = "data"

    seed: int = 1
    validation: float = 0.1
    label_weight: float = 1.0
    mask_irrelevant: bool = True
    giants: float = 0.0
    with_parallax: float = 0.0
    labels_only: float = 0.0
    replay: float = 0.0
    replay_stars: int = 50_000
    corrected: bool = False

    def __post_init__(self) -> None:
        for name in ("validation", "giants", "with_parallax", "labels_only", "replay"):
            if not (0 <= getattr(self, name) < 1 and (name != "validation" or self.validation)):
                raise self.invalid(
                    name, getattr(self, name), "not a fraction", "from 0 to below 1"
                )  # fmt: skip
        if self.shares > 1:
            raise JobError(
                "more than all stars", wanted="giants + with_parallax + labels_only up to 1",
                found=f"{self.giants} + {self.with_parallax} + {self.labels_only}",
                where=f"[{self.TABLE}]",
            )  # fmt: skip

    @property
    def shares(self) -> float:
        """Sum of the shares that are given; other stars have the rest."""
        return self.giants + self.with_parallax + self.labels_only


@dataclass(frozen=True, eq=False)
class DatasetStars:
    """Stars of a dataset as a training uses them.

    Attributes
    ----------
    vocabulary, options
        The tokens, and table ``data`` of the job.
    training, validation, test
        Stars to train on, stars for validation and calibration, and stars for the evaluation.
    g_mag
        G of the validation stars (n,), mag.
    moving, moving_validation
        Training and validation stars that can be moved; None without table ``augmentation``.
    """

    vocabulary: Vocabulary
    options: DatasetOptions
    training: StarTable
    validation: StarTable
    test: StarTable
    g_mag: NDArray[np.floating]
    moving: AugmentedStars | None = None
    moving_validation: AugmentedStars | None = None

    def sampler(self) -> StarSampler:
        """Return a sampler that takes the job's shares of giants, other stars, and labels only."""
        stars = self.training if self.moving is None else self.moving
        if not self.options.shares:
            return stars.sample
        groups = [(which, share) for which, share in self._groups() if share > 0 and which.any()]
        parts: list[tuple[StarSampler, float]] = [
            (stars.rows(which).sample, share) for which, share in groups
        ]
        without = self._labels_only
        if self.options.labels_only and without.any():
            # Their labels are shown, also in a training that mostly shows none: they have no more.
            seismic = self.vocabulary.columns(["mass", "log_age"])
            rows = self.training.rows(without).sampler_hiding(seismic, SEISMIC_HIDDEN)
            parts.append((rows, self.options.labels_only))
        return mixture(parts)

    def holdout(self) -> Holdout:
        """Return the validation stars as they are and, if stars are moved, fainter and one-band.

        Each is there READINGS times as it is, and as often fainter, whatever the fraction in
        training: the faint ones of the catalog are calibrated with as many stars as the bright
        ones, and as often with one band, for the latent statistics alone.
        """
        random = np.random.default_rng(self.options.seed)
        ids = self.validation.ids
        parts = [(*self.validation.drawn(np.arange(len(ids)), random), self.g_mag, ids)
                 for _ in range(READINGS)]  # fmt: skip
        if self.moving_validation is not None:
            moving = self.moving_validation
            moving = replace(moving, options=replace(moving.options, fainter=1.0, mixed=0.0))
            rows = np.flatnonzero(moving.with_spectrum)
            for _ in range(READINGS):
                there = moving.drawn(rows, random)
                parts.append((there.values, there.errors, there.magnitudes[:, 0], ids[rows]))
        values, errors, g_mag, ids = (np.concatenate(items) for items in zip(*parts, strict=True))
        table = StarTable(ids, values, errors)
        holdout = real_holdout(table, g_mag, self.vocabulary, self.options.seed)
        if self.moving_validation is None:
            return holdout
        for _ in range(READINGS):
            holdout = holdout.joined(self._one_band_holdout(self.moving_validation, random))
        return holdout

    def _one_band_holdout(self, moving: AugmentedStars, random: np.random.Generator) -> Holdout:
        """Return the validation stars with a spectrum, half of them fainter, with one band."""
        moving = replace(moving, options=replace(moving.options, fainter=0.5, mixed=0.0))
        rows = np.flatnonzero(moving.with_spectrum)
        stars = moving.drawn(rows, random)
        hidden = hide_bands(stars, np.ones(len(rows), dtype=bool), self.vocabulary, random)
        table = StarTable(
            self.validation.ids[rows],
            np.where(hidden, np.nan, stars.values),
            np.where(hidden, np.nan, stars.errors),
        )
        g_mag, seed = stars.magnitudes[:, 0], self.options.seed
        return real_holdout(table, g_mag, self.vocabulary, seed).latent_only()

    def prior_stars(self) -> Holdout:
        """Return the validation stars once, as they are, for the training prior."""
        random = np.random.default_rng(self.options.seed)
        ids = self.validation.ids
        values, errors = self.validation.drawn(np.arange(len(ids)), random)
        table = StarTable(ids, values, errors)
        return real_holdout(table, self.g_mag, self.vocabulary, self.options.seed, alike=True)

    def _groups(self) -> list[tuple[NDArray[np.bool_], float]]:
        """Return masks (n,) of the groups with spectra, and their shares of each step."""
        options = self.options
        spectrum = ~self._labels_only
        teff, logg, luminosity = (
            self.training.values[:, self.vocabulary.column(name)]
            for name in ("teff", "logg", "g_fakemag")
        )
        giant = spectrum & (logg < GIANT_LOGG) & (teff < GIANT_TEFF)
        return [
            (giant, options.giants),
            (giant & np.isfinite(luminosity), options.with_parallax),
            (spectrum & ~giant, 1.0 - options.shares),
        ]

    @property
    def _labels_only(self) -> NDArray[np.bool_]:
        """Which training stars (n,) have no spectrum."""
        at = np.concatenate([self.vocabulary.coefficient_columns(band) for band in BANDS])
        return np.asarray(~np.isfinite(self.training.values[:, at]).any(axis=1))


def read_stars(
    folder: Path, vocabulary: Vocabulary, options: DatasetOptions, augmentation: Mapping[str, Any]
) -> DatasetStars:
    """Read a dataset for a training.

    Parameters
    ----------
    folder
        The dataset.
    vocabulary
        Defines the tokens.
    options, augmentation
        Tables ``data`` and ``augmentation`` of the job.

    Raises
    ------
    InputError
        No dataset, or one that was changed.
    JobError
        Too few stars; or stars are to be moved whose spectra are not canonical coefficients.
    """
    table, test = load_dataset(folder, vocabulary, mask_irrelevant=options.mask_irrelevant)
    held_out = in_second_part(table.ids, options.validation, options.seed)
    if held_out.all() or not held_out.any():
        raise JobError(
            "too few stars to train and to validate",
            found=plural(len(table.ids), "row"), where=folder,
        )  # fmt: skip
    if augmentation and vocabulary.basis != "canonical":
        raise JobError(
            "only stars with canonical coefficients can be moved",
            wanted="a dataset of canonical coefficients", found=f"{vocabulary.basis} coefficients",
            where="[augmentation]",
        )  # fmt: skip
    g_mag = dataset_columns(folder, TRAIN, ["phot_g_mean_mag"])["phot_g_mean_mag"][held_out]
    stars = DatasetStars(
        vocabulary, options, table.rows(~held_out), table.rows(held_out), test, g_mag
    )
    if not augmentation:
        return stars
    moving = augmented_stars(folder, vocabulary, table, augmentation)
    return replace(stars, moving=moving.rows(~held_out), moving_validation=moving.rows(held_out))
