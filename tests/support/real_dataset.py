"""A small dataset in the form of ``catalogproc dataset apogee-xp``, made of simulated giants."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
from support.simulated import simulator

from catalogproc.datasets.apogee_xp import CUTS
from catalogproc.datasets.dataset import TEST, TRAIN
from catalogproc.datasets.writer import Selection, Split, candidate_batch, write_dataset
from catalogproc.features import canonical, canonical_signal
from catalogproc.features.spectra import g_flux
from catalogproc.readers.arrow_lists import matrix_lists
from catalogproc.release import load_release
from catalogproc.vocabulary import BANDS

ERRORS = {"teff": 30.0, "logg": 0.05, "m_h": 0.03, "alpha_m": 0.02, "mass": 0.1, "log_age": 0.1}
"""Gaussian errors of the labels."""

TEST_STARS = 0.4


def write_real_dataset(
    folder: Path, stars: int = 500, seed: int = 5, fold_of_seismic: int = 0
) -> Path:
    """Write the dataset; every fifth star is no giant, every third has seismic values.

    The seismic stars of the test part have the fold ``fold_of_seismic``.
    """
    drawn = simulator().draw(stars, seed)
    random = np.random.default_rng(seed)
    c = {name: value.cpu().double().numpy() for name, value in drawn.columns.items()}
    number = np.arange(stars)
    columns = _spectra(drawn, c["g_mag"]) | _photometry(c)
    c["alpha_m"] = random.normal(0.1, 0.1, stars)
    for name, error in ERRORS.items():
        columns[name] = c[name] + error * random.normal(size=stars)
        columns[f"e_{name}"] = np.full(stars, error)
    columns |= {"logebv": np.log(c["ebv"]), "e_logebv": np.full(stars, 0.1)}
    giant = number % 5 != 0
    seismic = number % 3 == 0
    parallax = np.where(number % 2 == 0, c["parallax"], np.nan)
    error = np.where(np.isfinite(parallax), c["e_parallax"], np.nan)
    factor = 10.0 ** (0.2 * c["g_mag"])
    test = number < TEST_STARS * stars
    columns |= {
        "source_id": 10_000 + number,
        "published_part": np.where(test, TEST, TRAIN).astype(object),
        "fold": np.where(test, np.where(seismic, fold_of_seismic, 0), 1 + number % 4),
        "giant": giant,
        "parallax_zpc": parallax, "e_parallax": error,
        "g_fakemag": parallax * factor, "e_g_fakemag": error * factor,
        "mass_source": pa.array(np.where(seismic, "APO-K2", "teacher").tolist(), pa.string()),
        "age_source": pa.array(
            np.where(seismic, "APO-K2 ages RGB", "teacher").tolist(), pa.string()
        ),
        "rc_prob": np.where(number % 4 == 0, 1.0, 0.0), "e_rc_prob": np.zeros(stars),
        "rc_source": pa.array(np.where(seismic, "APO-K2", "teacher").tolist(), pa.string()),
        "preference": np.zeros(stars),
    }  # fmt: skip
    about = {
        "made from": "simulated giants", "credit": "none", "basis": canonical.BASIS_ID,
    }  # fmt: skip
    write_dataset([candidate_batch(columns, stars)], folder, Selection(CUTS, Split()), about)
    return folder


def _spectra(drawn, g_mag: np.ndarray) -> dict:  # type: ignore[no-untyped-def, type-arg]
    published = [
        {band: drawn.coefficients(band, name).cpu().double().numpy() for band in BANDS}
        for name in ("coefficients", "coefficient_errors")
    ]
    made = canonical.from_coefficients(*published)
    scale = g_flux(g_mag, load_release().magnitude("G").zero_point)[:, None]
    found: dict = {"basis": [canonical.BASIS_ID] * len(g_mag)}  # type: ignore[type-arg]
    for band in BANDS:
        value, error = made.values[band], made.errors[band]
        found[f"{band}_n_relevant_bases"] = canonical_signal.relevant_number(band, value, error)
        found[f"{band}_coefficients"] = matrix_lists(value / scale, pa.float32())
        found[f"{band}_coefficient_errors"] = matrix_lists(error / scale, pa.float32())
    return found


def _photometry(c: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    names = {"phot_g_mean_mag": "g", "phot_bp_mean_mag": "bp", "phot_rp_mean_mag": "rp",
             "j_m": "j", "h_m": "h", "ks_m": "ks"}  # fmt: skip
    found = {name: c[f"{band}_mag"] for name, band in names.items()}
    pairs = {"bprp": ("bp", "rp"), "jh": ("j", "h"), "jk": ("j", "ks")}
    for colour, (blue, red) in pairs.items():
        found[colour] = c[f"{blue}_mag"] - c[f"{red}_mag"]
        found[f"e_{colour}"] = np.hypot(c[f"e_{blue}_mag"], c[f"e_{red}_mag"])
    return found
