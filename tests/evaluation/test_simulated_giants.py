"""The default model on simulated giants, corrected by real spectra as those of its training.

Read from files as in a run; ``pytest -m slow -s tests/evaluation/test_simulated_giants.py`` prints.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support import real_stars

from catalogproc.evaluation import ood_detection
from catalogproc.flags import load_flags
from catalogproc.inference.engine import Engine
from catalogproc.job import load_job
from catalogproc.network.bundle import load_bundle
from catalogproc.readers.xp import read_spectra
from catalogproc.simulation.simulated_stars import SimulatedStars, write_stars
from catalogproc.simulation.simulator import corrected_stars
from catalogproc.vocabulary import BANDS

pytestmark = pytest.mark.slow

COLOURS = ("bprp", "jh", "jk")
INPUTS = {
    "spectrum": (),
    "colours": COLOURS,
    "parallax": (*COLOURS, "g_fakemag"),
    "E(B-V)": (*COLOURS, "logebv"),
    "all": (*COLOURS, "g_fakemag", "logebv"),
}
STARS = 2000


@cache
def giants() -> SimulatedStars:
    return ood_detection._clean_giants(load_bundle("default"), STARS, 77)


@cache
def catalog(inputs: str) -> pa.Table:
    job = replace(load_job("gaia-dr3-giants"), inputs=INPUTS[inputs])
    return ood_detection._run(Engine(load_bundle("default"), job), giants())


def scatter(label: str, inputs: str, which: np.ndarray) -> float:
    found = catalog(inputs)[label].to_numpy()[which] - giants()[label].numpy()[which]
    return float(1.4826 * np.nanmedian(np.abs(found - np.nanmedian(found))))


def test_the_model_was_trained_on_corrected_stars() -> None:
    assert corrected_stars(load_bundle("default").training)
    assert len(giants()) == STARS


@pytest.mark.parametrize("inputs", INPUTS)
def test_clean_giants_are_not_unlike_the_training_whatever_is_read(inputs: str) -> None:
    flags = catalog(inputs)["quality_flags"].to_numpy()
    share = np.mean(flags & load_flags()["OOD_LATENT"].value > 0)
    print(f"\nOOD_LATENT, {inputs}: {share:.2%}")
    assert share <= 0.02


@pytest.mark.parametrize("hidden", BANDS)
def test_clean_giants_with_one_band_are_not_unlike_it(hidden: str, tmp_path: Path) -> None:
    write_stars(giants(), tmp_path)
    job = replace(load_job("gaia-dr3-giants"), inputs=())
    spectra = pa.Table.from_batches(read_spectra(next(tmp_path.glob("xp_continuous*"))))
    gaia = pq.read_table(next(tmp_path.glob("gaia_source*")))  # G scales the coefficients
    shown = real_stars.nulled(spectra, hidden, list(range(STARS)))
    flags = Engine(load_bundle("default"), job).process(shown, gaia)["quality_flags"].to_numpy()
    assert (flags & load_flags()["XP_ONE_BAND"].value > 0).all()
    share = np.mean(flags & load_flags()["OOD_LATENT"].value > 0)
    print(f"\nOOD_LATENT, without {hidden}: {share:.2%}")
    assert share <= 0.02


def test_parallaxes_tell_gravity_and_dust() -> None:
    stars = giants()
    near = (stars["parallax"] / stars["e_parallax"]).numpy() > 10
    teff, logg = scatter("teff", "all", near), scatter("logg", "all", near)
    without = scatter("logg", "colours", near)
    print(f"\n{near.sum()} stars: Teff {teff:.1f} K, log g {logg:.3f} ({without:.3f} without)")
    assert near.sum() > 800
    assert teff < 60
    assert logg < 0.105  # wanted is 0.10
    assert logg < 0.8 * without
