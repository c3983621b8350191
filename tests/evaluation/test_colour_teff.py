"""Comparison of Teff with a published colour-temperature relation."""

from __future__ import annotations

import numpy as np
import pyarrow.parquet as pq
import pytest
from support import real_stars, simulated
from support.paths import EXAMPLES

from catalogproc.datasets import kepler
from catalogproc.evaluation import colour_teff
from catalogproc.evaluation.colour_teff import ColourCheck, colour_check, teff_of_colour
from catalogproc.network.bundle import load_bundle
from catalogproc.resources import shipped


def test_the_relation_gives_the_teff_of_real_giants() -> None:
    table = pq.read_table(shipped("grids") / kepler.FILE).to_pandas()
    bp_rp = table["phot_bp_mean_mag"] - table["phot_rp_mean_mag"]
    # E(B-V) of Green et al. (2019), as Li et al. give it, is on the true scale.
    bp_rp0 = (bp_rp - colour_teff.REDDENING * table["ebv"]).to_numpy(dtype=float)
    residual = table["teff"].to_numpy(dtype=float) - teff_of_colour(bp_rp0, table["m_h"].to_numpy())
    residual = residual[np.isfinite(residual)]
    assert len(residual) > 1000
    # Teff of APOGEE is cooler than that of the infrared flux method, used in the relation.
    assert -120 < np.median(residual) < 0
    assert 1.4826 * np.median(np.abs(residual - np.median(residual))) < colour_teff.RELATION_SCATTER
    # Redder is cooler everywhere; NaN outside the range.
    grid = np.linspace(0.34, 1.80, 100)
    for metals in (-2.0, 0.0):
        assert (np.diff(teff_of_colour(grid, np.full(100, metals))) < 0).all()
    assert np.isnan(teff_of_colour(np.array([0.2, 2.0]), np.zeros(2))).all()


def test_reddening_of_the_colour_is_that_of_the_simulator() -> None:
    simulator = simulated.simulator()
    drawn = simulator.draw(400, 5)
    names = ("m_h", "teff", "logg", "log_l", "distance")
    state = [drawn[name] for name in names]
    ebv, r_v = 0 * drawn["ebv"] + 0.1, 0 * drawn["r_v"] + 3.1
    bp_rp = [
        gaia[:, 1] - gaia[:, 2]
        for gaia in (simulator.spectra(*state, e, r_v)[1] for e in (0 * ebv, ebv))
    ]
    ratio = np.median(((bp_rp[1] - bp_rp[0]) / 0.1).numpy())
    assert ratio == pytest.approx(colour_teff.REDDENING, rel=0.08)


def test_scatter_and_bias_are_of_the_differences() -> None:
    random = np.random.default_rng(1)
    expected = np.full(20_000, 4800.0)
    check = ColourCheck(
        np.arange(20_000),
        np.ones(20_000),
        expected + 30 + 90 * random.normal(size=20_000),
        expected,
    )
    assert check.scatter == pytest.approx(90, rel=0.03)
    assert check.bias == pytest.approx(30, abs=2)
    assert np.isnan(check.rows(np.zeros(20_000, dtype=bool)).scatter)


def test_real_giants_with_clean_flags_have_the_teff_of_their_colour() -> None:
    found = colour_check(load_bundle("default"), sorted(EXAMPLES.glob("*.parquet")))
    assert len(found.teff) > 30
    assert set(found.source_id) <= set(real_stars.faint()["source_id"].to_numpy())
    assert found.scatter < 150
    # The model's E(B-V) of little dust is too large by some 0.05 mag: colours are 120 K too hot.
    assert abs(found.bias) < 150
