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
from numpy.typing import NDArray

from catalogproc.features import astrometry, spectra
from catalogproc.features.star_batch import StarBatch
from catalogproc.features.tokens import Tokens, from_stars
from catalogproc.inference.catalog_columns import LABEL_COLUMNS
from catalogproc.inference.engine import Engine
from catalogproc.job import Job
from catalogproc.vocabulary import BANDS

if TYPE_CHECKING:
    from catalogproc.network.bundle import Bundle

Floats = NDArray[np.float64]

COLOURS = ("bprp", "jh", "jk")
LUMINOSITY = "g_fakemag"

PIECE = 2048
"""Rows predicted at a time."""


@dataclass(frozen=True)
class Question:
    """What is read of each star besides the spectrum and the colours.

    Attributes
    ----------
    parallax
        The parallax, where a star has one.
    """

    parallax: bool = False

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
            labels=tuple(label for label in LABEL_COLUMNS if label in able),
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
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(PIECE, use_threads=False):
            table = pa.Table.from_batches([batch])
            table = table.filter(pa.array(table["repeat"].to_numpy() == 0))
            made = _tokens(engine, table, question)
            yield engine.to_catalog(table["source_id"], made, engine.predict(made))


def _tokens(engine: Engine, table: pa.Table, question: Question) -> Tokens:
    """Return the tokens of stars, whose spectra are those of the dataset over the G flux."""
    vocabulary, job = engine.bundle.vocabulary, engine.job
    stars = _stars(engine.bundle, table)
    made = from_stars(stars, vocabulary, replace(job, inputs=()))
    values, errors = made.values.copy(), made.errors.copy()
    for name in job.inputs:
        column = vocabulary.column(name)
        values[:, column], errors[:, column] = _column(table, name), _column(table, f"e_{name}")
    errors = np.where(np.isfinite(values), errors, np.nan)
    made = replace(
        made,
        values=values,
        errors=errors,
        bp_rp=_column(table, "bprp"),
        has_tmass=np.isfinite(_column(table, "jh")) & np.isfinite(_column(table, "jk")),
    )
    return _with_parallax(made, table) if question.parallax else made


def _stars(bundle: Bundle, table: pa.Table) -> StarBatch:
    """Return the spectra in electrons per second, and G."""
    vocabulary = bundle.vocabulary
    g_mag = _column(table, "phot_g_mean_mag")
    flux = spectra.g_flux(g_mag, bundle.release.magnitude("G").zero_point)[:, None]
    flux = np.where(np.isfinite(flux), flux, 1.0)
    by_band: list[dict[str, Any]] = [{}, {}, {}]
    for band in BANDS:
        count = vocabulary.coefficients(band)
        by_band[0][band], by_band[1][band] = (
            flux * spectra.matrix(table[f"{band}_{name}"], count)
            for name in ("coefficients", "coefficient_errors")
        )
        by_band[2][band] = table[f"{band}_n_relevant_bases"].to_numpy()
    values, errors, relevant = by_band
    canonical = np.array(table["basis"].is_valid().to_numpy(), dtype=bool)
    return StarBatch(
        values,
        errors,
        relevant,
        auxiliary={"phot_g_mean_mag": g_mag},
        source_id=table["source_id"].to_numpy(),
        canonical=canonical if canonical.any() else None,
        release=bundle.release,
    )


def _with_parallax(made: Tokens, table: pa.Table) -> Tokens:
    """Return tokens that know the parallax, which is corrected already."""
    parallax, error = _column(table, "parallax_zpc"), _column(table, "e_parallax")
    with np.errstate(invalid="ignore", over="ignore"):
        luminosity, e_luminosity = astrometry.pseudo_luminosity(parallax, error, made.g_mag)
    return replace(
        made,
        parallax_zpc=parallax,
        e_parallax=error,
        parallax_zp=np.where(np.isfinite(parallax), 0.0, np.nan),
        parallax_usable=np.isfinite(luminosity) & np.isfinite(error),
        pseudo_luminosity=luminosity,
        e_pseudo_luminosity=e_luminosity,
    )


def _column(table: pa.Table, name: str) -> Floats:
    return np.asarray(table[name].to_numpy(), dtype=np.float64)
