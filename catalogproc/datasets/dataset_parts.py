"""The parts of a dataset as stars to evaluate models on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TypeGuard

import numpy as np

from catalogproc.datasets.benchmark_stars import GIANT, OUTSIDE, Benchmark
from catalogproc.datasets.dataset import (
    FACTS,
    TEST,
    dataset_columns,
    load_dataset,
    outside_domain,
)
from catalogproc.errors import plural
from catalogproc.features.one_band import one_band_tokens
from catalogproc.network.star_tokens import StarTokens
from catalogproc.vocabulary import BANDS, Vocabulary


def is_dataset(folder: Path | None) -> TypeGuard[Path]:
    """Return whether a folder is a dataset of ``catalogproc dataset``.

    Parameters
    ----------
    folder
        The folder, if there is one.
    """
    return folder is not None and (folder / FACTS).is_file()


def marks_giants(folder: Path | None) -> TypeGuard[Path]:
    """Return whether a folder is a dataset that says which of its stars are giants.

    Parameters
    ----------
    folder
        The folder, if there is one.
    """
    if not is_dataset(folder):
        return False
    giant = dataset_columns(folder, TEST, ["giant"])["giant"]
    return bool(np.isfinite(giant.astype(np.float64)).any())


def giants(stars: Benchmark) -> Benchmark:
    """Return the giants with a spectrum; all stars if they are not marked.

    Parameters
    ----------
    stars
        A part of a dataset.
    """
    if GIANT not in stars.extra:
        return stars
    coefficients = [t.number - 1 for t in stars.vocabulary.tokens if t.kind == "coefficient"]
    with_spectrum = np.isfinite(stars.values[:, coefficients]).any(axis=1)
    found = stars.rows((stars.extra[GIANT] > 0) & with_spectrum)
    return replace(found, name=f"{plural(len(found), 'giant')} among the {stars.name}")


def dataset_part(folder: Path, name: str, vocabulary: Vocabulary) -> Benchmark:
    """Return one part of a dataset: spectra and colours are inputs, the labels are the truth.

    Parameters
    ----------
    folder
        The dataset.
    name
        TRAIN or TEST.
    vocabulary
        Defines the tokens.
    """
    table, unmasked = (
        load_dataset(folder, vocabulary, repeats=False, mask_irrelevant=masked)[name == TEST]
        for masked in (True, False)
    )
    columns = dataset_columns(
        folder,
        name,
        ("phot_g_mean_mag", "parallax_zpc", "e_parallax", "m_h", "distmass_bitmask", "giant"),
        repeats=False,
    )
    labels = vocabulary.columns(vocabulary.named("label"))
    values, errors, every = table.values.copy(), unmasked.errors.copy(), unmasked.values.copy()
    truth, truth_errors = np.full_like(values, np.nan), np.full_like(values, np.nan)
    for inputs, true in ((values, truth), (errors, truth_errors)):
        true[:, labels] = inputs[:, labels]
        inputs[:, labels] = np.nan
    every[:, labels] = np.nan
    parallax = columns["parallax_zpc"].astype(np.float64)
    extra = {
        "phot_g_mean_mag": columns["phot_g_mean_mag"],
        "parallax_over_error": parallax / columns["e_parallax"],
        "dist": 1.0 / np.where(parallax > 0, parallax, np.nan),
        OUTSIDE: outside_domain(columns["m_h"], columns["distmass_bitmask"]).astype(np.float64),
    }
    giant = columns["giant"].astype(np.float64)  # NaN where not stated
    if np.isfinite(giant).any():
        extra[GIANT] = giant
    title = f"{plural(len(table.ids), 'star')} of {folder.name}, {name} part"
    found = Benchmark(
        title, True, table.ids, values, errors, truth, truth_errors, vocabulary, extra, every
    )
    return replace(found, one_band=_one_band(found))


def _one_band(stars: Benchmark) -> dict[str, StarTokens]:
    """Return by hidden band the tokens without it; a dataset has canonical ones of both bands."""
    if stars.vocabulary.basis != "canonical":
        return {}
    every = StarTokens(stars.tree_inputs.values, stars.errors)
    return {band: one_band_tokens(every, stars.inputs, band, stars.vocabulary) for band in BANDS}
