"""The catalog of a dataset's stars, as a run would write it from their spectra and photometry.

The rows go through the engine of ``run``, so errors, percentiles and quality flags are those that
users get. What a dataset does not have (position, RUWE, blending) is unknown to the flags.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray

from catalogproc.features import astrometry, spectra
from catalogproc.features.one_band import OTHER
from catalogproc.features.star_batch import StarBatch
from catalogproc.features.tokens import Tokens, from_stars
from catalogproc.inference.catalog_columns import CATALOG_LABELS
from catalogproc.inference.engine import Engine
from catalogproc.job import Job
from catalogproc.simulation.augmentation import ObservedStars, fainter, photometric_errors
from catalogproc.vocabulary import BANDS, Vocabulary

if TYPE_CHECKING:
    from catalogproc.network.bundle import Bundle

Floats = NDArray[np.float64]

COLOURS = ("bprp", "jh", "jk")
LUMINOSITY = "g_fakemag"

MAGNITUDES = (
    "phot_g_mean_mag", "phot_bp_mean_mag", "phot_rp_mean_mag", "j_m", "h_m", "ks_m",
)  # fmt: skip

NOISE_SEED = 20_261_127
"""Seed of the added noise."""

PIECE = 2048
"""Rows predicted at a time."""


@dataclass(frozen=True)
class Question:
    """What is read of each star besides the spectrum and the colours.

    Attributes
    ----------
    parallax
        The parallax, where a star has one.
    only
        The band that is read alone, bp or rp: its coefficients are made without the other. None
        reads both.
    faint
        Range of G, mag, to which the stars are moved, each to a random one: noise is added to
        spectra and colours, so that their errors are those of real stars of that magnitude. None
        leaves them as they are.
    """

    parallax: bool = False
    only: str | None = None
    faint: tuple[float, float] | None = None

    def job(self, bundle: Bundle) -> Job:
        """Return the settings of a run that asks this.

        Parameters
        ----------
        bundle
            The model.
        """
        inputs = (*COLOURS, LUMINOSITY) if self.parallax else COLOURS
        able = bundle.requestable
        return Job(
            "evaluation",
            labels=tuple(label for label in CATALOG_LABELS if label in able),
            inputs=tuple(name for name in inputs if name in bundle.vocabulary),
        )


def dataset_catalog(bundle: Bundle, path: Path, question: Question, device: str) -> pa.Table:
    """Return rows of the contract catalog, one for each star of a part of a dataset, in its order.

    Parameters
    ----------
    bundle
        The model.
    path
        Parquet file of the part; further spectra of a star are left out.
    question
        What is read of each star.
    device
        Device of the model.
    """
    engine = Engine(bundle, question.job(bundle), device)
    return pa.concat_tables(list(_processed(engine, path, question)))


def _processed(engine: Engine, path: Path, question: Question) -> Iterator[pa.Table]:
    vocabulary, noise = engine.bundle.vocabulary, torch.Generator().manual_seed(NOISE_SEED)
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(PIECE, use_threads=False):
            table = pa.Table.from_batches([batch])
            table = table.filter(pa.array(table["repeat"].to_numpy() == 0))
            stars = _Stars.read(table, vocabulary)
            if question.only is not None:
                stars = stars.without(OTHER[question.only])
            if question.faint is not None:
                stars = stars.moved(question.faint, noise)
            made = _tokens(engine, stars)
            if question.parallax:
                made = _with_parallax(made, table, vocabulary)
            yield engine.to_catalog(table["source_id"], made, engine.predict(made))


@dataclass(frozen=True, eq=False)
class _Stars:
    """N stars of a dataset.

    Attributes
    ----------
    values, errors, n_relevant
        By band: coefficients over the G flux, their errors (N, n), and the number of relevant ones.
    magnitudes
        G, BP, RP, J, H and Ks (N, 6), mag.
    colours
        Values and errors (N,) by name.
    canonical
        Whether the coefficients are canonical ones (N,).
    ids
        (N,) source_id.
    """

    values: dict[str, Floats]
    errors: dict[str, Floats]
    n_relevant: dict[str, NDArray[np.integer[Any]]]
    magnitudes: Floats
    colours: dict[str, tuple[Floats, Floats]]
    canonical: NDArray[np.bool_]
    ids: NDArray[np.int64]

    @classmethod
    def read(cls, table: pa.Table, vocabulary: Vocabulary) -> _Stars:
        """Return the stars of rows of the contract ``training``."""

        def by_band(name: str) -> dict[str, Floats]:
            return {
                band: spectra.matrix(table[f"{band}_{name}"], vocabulary.coefficients(band)).astype(
                    np.float64
                )
                for band in BANDS
            }

        return cls(
            by_band("coefficients"),
            by_band("coefficient_errors"),
            {band: table[f"{band}_n_relevant_bases"].to_numpy() for band in BANDS},
            np.stack([_column(table, name) for name in MAGNITUDES], axis=1),
            {name: (_column(table, name), _column(table, f"e_{name}")) for name in COLOURS},
            np.array(table["basis"].is_valid().to_numpy(), dtype=bool),
            table["source_id"].to_numpy(),
        )

    def without(self, band: str) -> _Stars:
        """Return the stars without a band; the other one is projected by its own operator."""
        hidden = {band: np.full_like(self.values[band], np.nan)}
        return replace(
            self,
            values=self.values | hidden,
            errors=self.errors | hidden,
            canonical=np.zeros_like(self.canonical),
        )

    def moved(self, g_range: tuple[float, float], random: torch.Generator) -> _Stars:
        """Return the stars at larger distances, with the noise that real stars have there."""
        both = [
            torch.from_numpy(np.concatenate([part[band] for band in BANDS], axis=1))
            for part in (self.values, self.errors)
        ]
        magnitudes = torch.from_numpy(self.magnitudes)
        share = torch.rand(len(self.ids), generator=random, dtype=torch.float64)
        there = fainter(
            ObservedStars(both[0], both[1], magnitudes, photometric_errors(magnitudes)),
            g_range[0] + share * (g_range[1] - g_range[0]),
            random,
        )
        at = [self.values[BANDS[0]].shape[1]]
        values, errors = (
            dict(zip(BANDS, np.split(part.numpy(), at, axis=1), strict=True))
            for part in (there.values, there.errors)
        )
        colours = [part.numpy().T for part in there.colours()]
        return replace(
            self,
            values=values,
            errors=errors,
            magnitudes=there.magnitudes.numpy(),
            colours=dict(zip(COLOURS, zip(*colours, strict=True), strict=True)),
        )


def _tokens(engine: Engine, stars: _Stars) -> Tokens:
    """Return the tokens of stars; the number of relevant coefficients is that of their errors."""
    vocabulary, job, release = engine.bundle.vocabulary, engine.job, engine.bundle.release
    g_mag = stars.magnitudes[:, 0]
    flux = spectra.g_flux(g_mag, release.magnitude("G").zero_point)[:, None]
    flux = np.where(np.isfinite(flux), flux, 1.0)
    batch = StarBatch(
        {band: flux * part for band, part in stars.values.items()},
        {band: flux * part for band, part in stars.errors.items()},
        stars.n_relevant,
        auxiliary={"phot_g_mean_mag": g_mag},
        source_id=stars.ids,
        canonical=stars.canonical if stars.canonical.any() else None,
        release=release,
    )
    made = from_stars(batch, vocabulary, replace(job, inputs=()))
    values, errors = made.values.copy(), made.errors.copy()
    for name in set(COLOURS) & set(job.inputs):
        column = vocabulary.column(name)
        values[:, column], errors[:, column] = stars.colours[name]
    has_tmass = [np.isfinite(stars.colours[name][0]) for name in ("jh", "jk")]
    return replace(
        made,
        values=values,
        errors=np.where(np.isfinite(values), errors, np.nan),
        bp_rp=stars.colours["bprp"][0],
        has_tmass=has_tmass[0] & has_tmass[1],
    )


def _with_parallax(made: Tokens, table: pa.Table, vocabulary: Vocabulary) -> Tokens:
    """Return tokens that know the parallax, which is corrected already."""
    parallax, error = _column(table, "parallax_zpc"), _column(table, "e_parallax")
    with np.errstate(invalid="ignore", over="ignore"):
        luminosity, e_luminosity = astrometry.pseudo_luminosity(parallax, error, made.g_mag)
    usable = np.isfinite(luminosity) & np.isfinite(error)
    values, errors = made.values.copy(), made.errors.copy()
    if LUMINOSITY in vocabulary:
        column = vocabulary.column(LUMINOSITY)
        values[:, column] = np.where(usable, luminosity, np.nan)
        errors[:, column] = np.where(usable, e_luminosity, np.nan)
    return replace(
        made,
        values=values,
        errors=errors,
        parallax_zpc=parallax,
        e_parallax=error,
        parallax_zp=np.where(np.isfinite(parallax), 0.0, np.nan),
        parallax_usable=usable,
        pseudo_luminosity=luminosity,
        e_pseudo_luminosity=e_luminosity,
    )


def _column(table: pa.Table, name: str) -> Floats:
    return np.asarray(table[name].to_numpy(), dtype=np.float64)
