"""Stars of a dataset as a training sees them: some fainter, some behind more dust.

The spectra with labels end at G = 15 and the catalog at 17.65. In every step other stars are moved,
to other distances and behind other dust, so that no star is seen twice alike.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from catalogproc.datasets.dataset import TRAIN, dataset_columns, load_dataset
from catalogproc.datasets.holdout import COLOURS
from catalogproc.datasets.star_table import StarTable
from catalogproc.features import canonical_signal
from catalogproc.features.extinction import ln_ebv
from catalogproc.simulation.augmentation import (
    ObservedStars,
    fainter,
    photometric_errors,
    reddened,
)
from catalogproc.simulation.noise import parallax_error
from catalogproc.training.config import JobTable
from catalogproc.training.mixed_stars import (
    NEIGHBOURS,
    NO_NEIGHBOUR,
    DrawnStars,
    alike,
    mixed,
)
from catalogproc.training.one_band_stars import hide_bands
from catalogproc.vocabulary import BANDS, Vocabulary

Floats = NDArray[np.float64]

COLUMNS = (
    "phot_g_mean_mag", "phot_bp_mean_mag", "phot_rp_mean_mag", "j_m", "h_m", "ks_m",
)  # fmt: skip
"""Columns of a dataset with the MAGNITUDES of simulation/augmentation.py."""

R_V = (2.8, 3.4)
"""Range of R_V of the added dust."""

MOST_EBV = 1.5
"""Largest added E(B-V), mag."""


@dataclass(frozen=True)
class AugmentationOptions(JobTable):
    """Stars that are moved, table ``augmentation`` of a training job.

    Attributes
    ----------
    fainter, faintest
        Fraction of the stars with a spectrum that are moved to a larger distance, and the largest
        G there; G is uniform between that of the star and it.
    redder, ebv
        Fraction of them that get more dust, and the mean of the added E(B-V) on the SFD scale,
        which is distributed exponentially.
    mixed
        Fraction of them that are mixed with a star that is alike, before they are moved.
    one_band
        Fraction of them of which a band is hidden.
    """

    TABLE = "augmentation"

    fainter: float = 0.0
    faintest: float = 17.65
    redder: float = 0.0
    ebv: float = 0.2
    mixed: float = 0.0
    one_band: float = 0.0

    def __post_init__(self) -> None:
        for name in ("fainter", "redder", "mixed", "one_band"):
            if not 0 <= getattr(self, name) <= 1:
                raise self.invalid(name, getattr(self, name), "not a fraction", "0 to 1")
        for name in ("faintest", "ebv"):
            if not getattr(self, name) > 0:
                raise self.invalid(name, getattr(self, name), "must be positive")


@dataclass(frozen=True, eq=False)
class AugmentedStars:
    """N stars with canonical spectra, of which some are moved whenever they are drawn.

    Attributes
    ----------
    table
        The stars as they are.
    coefficients, errors
        Their coefficients over the G flux (N, 110), none masked, and errors.
    magnitudes
        MAGNITUDES (N, 6), mag, NaN where unknown.
    vocabulary
        Defines the tokens.
    options
        How many are moved, and how far.
    """

    table: StarTable
    coefficients: Floats
    errors: Floats
    magnitudes: Floats
    vocabulary: Vocabulary
    options: AugmentationOptions

    @cached_property
    def with_spectrum(self) -> NDArray[np.bool_]:
        """Which stars (N,) have a spectrum: the others stay where they are."""
        return np.asarray(np.isfinite(self.coefficients).all(axis=1))

    def rows(self, which: NDArray[np.bool_]) -> AugmentedStars:
        """Return some of the stars.

        Parameters
        ----------
        which
            (N,) mask.
        """
        return replace(
            self,
            table=self.table.rows(which),
            coefficients=self.coefficients[which],
            errors=self.errors[which],
            magnitudes=self.magnitudes[which],
        )

    def sample(self, seed: int, n: int) -> tuple[NDArray[Any], ...]:
        """Return n rows, as a :data:`~catalogproc.datasets.star_table.StarSampler` does.

        Parameters
        ----------
        seed
            Seed of the choice of stars, of their moves and of the noise.
        n
            Number of rows.
        """
        random = np.random.default_rng(seed)
        rows = random.integers(len(self.table.ids), size=n)
        stars = self.drawn(rows, random)
        if not self.options.one_band:
            return stars.values, stars.errors
        which = (random.random(n) < self.options.one_band) & self.with_spectrum[rows]
        return stars.values, stars.errors, hide_bands(stars, which, self.vocabulary, random)

    def drawn(self, rows: NDArray[np.integer], random: np.random.Generator) -> DrawnStars:
        """Return given rows, some of them mixed with others or moved.

        Parameters
        ----------
        rows
            Row numbers (n,).
        random
            Source of the moves and of the noise.
        """
        n = len(rows)
        stars = self._as_they_are(rows, random)
        self._mix(stars, rows, random)
        redder, further = (
            random.random(n) < x for x in (self.options.redder, self.options.fainter)
        )
        at = np.flatnonzero((redder | further) & self.with_spectrum[rows])
        if len(at):
            g_mag = stars.magnitudes[at, 0]
            moves = _Moves.draw(g_mag, redder[at], further[at], self.options, random)
            stars.set_rows(at, self.moved(stars.rows(at), moves, random))
        return stars

    def _as_they_are(self, rows: NDArray[np.integer], random: np.random.Generator) -> DrawnStars:
        """Return copies of given rows (n,)."""
        return DrawnStars(
            *self.table.drawn(rows, random),
            self.coefficients[rows], self.errors[rows], self.magnitudes[rows],
        )  # fmt: skip

    @cached_property
    def _alike(self) -> NDArray[np.intp]:
        return alike(self.table.values, self.vocabulary)

    def _mix(
        self, stars: DrawnStars, rows: NDArray[np.integer], random: np.random.Generator
    ) -> None:
        """Mix some of the stars, which are given rows (n,), with one that is alike, in place."""
        if not self.options.mixed:
            return
        n = len(rows)
        other = self._alike[rows, random.integers(NEIGHBOURS, size=n)]
        possible = self.with_spectrum[rows] & (other != NO_NEIGHBOUR) & self.with_spectrum[other]
        # Few stars have a parallax: a mixture with one without would lose it.
        near = np.isfinite(self.table.values[:, self.vocabulary.column("g_fakemag")])
        possible &= ~near[rows] | near[other]
        at = np.flatnonzero((random.random(n) < self.options.mixed) & possible)
        found = mixed(stars.rows(at), self._as_they_are(other[at], random), random.random(len(at)))
        self._set_spectra(found.values, found.errors, found.coefficients, found.coefficient_errors)
        stars.set_rows(at, found)

    def moved(self, stars: DrawnStars, moves: _Moves, random: np.random.Generator) -> DrawnStars:
        """Return stars as they are elsewhere.

        Parameters
        ----------
        stars
            The n stars as they are.
        moves
            Where they are moved.
        random
            Source of the noise.
        """
        noise = torch.Generator().manual_seed(int(random.integers(2**62)))
        magnitudes = torch.from_numpy(stars.magnitudes)
        here = ObservedStars(
            torch.from_numpy(stars.coefficients),
            torch.from_numpy(stars.coefficient_errors),
            magnitudes,
            photometric_errors(magnitudes),
        )
        dusty = reddened(here, torch.from_numpy(moves.ebv), torch.from_numpy(moves.r_v))
        there = fainter(dusty, torch.from_numpy(moves.g_mag), noise)
        values, errors = stars.values.copy(), stars.errors.copy()
        self._set_spectra(values, errors, there.values.numpy(), there.errors.numpy())
        self._set_photometry(values, errors, there)
        v = self.vocabulary.column
        ebv = np.exp(values[:, v("logebv")])
        errors[:, v("logebv")] *= ebv / (ebv + moves.ebv)  # the error of the dust stays the same
        values[:, v("logebv")] = ln_ebv(ebv + moves.ebv)
        # The pseudo-luminosity is that behind the dust; distance changes its error only.
        dimming = (dusty.magnitudes - magnitudes)[:, 0].numpy()
        g_mag = there.magnitudes[:, 0]
        error = parallax_error(g_mag.float(), noise).double() * 10.0 ** (0.2 * g_mag)
        _dim_luminosity(values[:, v("g_fakemag")], errors[:, v("g_fakemag")], dimming,
                        error.numpy(), random)  # fmt: skip
        return DrawnStars(
            values, errors, there.values.numpy(), there.errors.numpy(), there.magnitudes.numpy()
        )

    def _set_spectra(self, values: Any, errors: Any, found: Floats, their_errors: Floats) -> None:
        """Replace the coefficients by others (n, 110), by the mask of their new noise."""
        start = 0
        for band in BANDS:
            at = self.vocabulary.coefficient_columns(band)
            own = slice(start, start + len(at))
            value, error = found[:, own], their_errors[:, own]
            present = canonical_signal.relevance(band, value, error)
            values[:, at] = np.where(present, value, np.nan)
            errors[:, at] = np.where(present, error, np.nan)
            start = own.stop

    def _set_photometry(self, values: Any, errors: Any, stars: ObservedStars) -> None:
        """Replace the colours."""
        at = self.vocabulary.columns(COLOURS)
        colours, their_errors = (x.numpy() for x in stars.colours())
        values[:, at] = colours
        errors[:, at] = np.where(np.isfinite(colours), their_errors, np.nan)


@dataclass(frozen=True, eq=False)
class _Moves:
    """Where n stars are moved: added E(B-V) in mag, its R_V, and G at the new distance (n,)."""

    ebv: Floats
    r_v: Floats
    g_mag: Floats

    @classmethod
    def draw(
        cls,
        g_mag: Floats,
        redder: NDArray[np.bool_],
        further: NDArray[np.bool_],
        options: AugmentationOptions,
        random: np.random.Generator,
    ) -> _Moves:
        """Draw moves of stars of some G (n,), for those that get dust or distance."""
        n = len(g_mag)
        ebv = np.minimum(random.exponential(options.ebv, n), MOST_EBV)
        g = g_mag + random.random(n) * np.maximum(options.faintest - g_mag, 0.0)
        return cls(
            np.where(redder, ebv, 0.0), random.uniform(*R_V, n), np.where(further, g, -np.inf)
        )


def _dim_luminosity(
    value: Any, error: Any, dimming: Floats, typical: Floats, random: np.random.Generator
) -> None:
    """Dim pseudo-luminosities (n,) by some mag, and add noise up to a typical error, in place."""
    factor = 10.0 ** (0.2 * dimming)
    value *= factor
    error *= factor
    missing = np.sqrt(np.maximum(typical**2 - error**2, 0.0))
    value += missing * random.standard_normal(len(value))
    error[:] = np.hypot(error, missing)


def augmented_stars(
    folder: Path, vocabulary: Vocabulary, table: StarTable, content: Mapping[str, Any]
) -> AugmentedStars:
    """Return the training part of a dataset of canonical spectra, with what moving needs.

    Parameters
    ----------
    folder
        The dataset.
    vocabulary
        Defines the tokens.
    table
        The training part, in the order of the files.
    content
        Table ``augmentation`` of the job.
    """
    unmasked, _ = load_dataset(folder, vocabulary, mask_irrelevant=False)
    at = np.concatenate([vocabulary.coefficient_columns(band) for band in BANDS])
    columns = dataset_columns(folder, TRAIN, COLUMNS)
    return AugmentedStars(
        table=table,
        coefficients=unmasked.values[:, at].astype(np.float64),
        errors=unmasked.errors[:, at].astype(np.float64),
        magnitudes=np.stack([columns[name] for name in COLUMNS], axis=1).astype(np.float64),
        vocabulary=vocabulary,
        options=AugmentationOptions.from_dict(content),
    )
