"""Real red giants: their seismic masses, their tokens, and what can be learned from them."""

from __future__ import annotations

import numpy as np
import pytest
from support import real_stars

from catalogproc.datasets.kepler import INPUTS, gravity_mass, kepler_giants, parts, seismic_mass
from catalogproc.evaluation.metrics import score
from catalogproc.evaluation.xgboost_baseline import KEPLER_TREES, TreeSettings, fit_baseline
from catalogproc.features import astrometry


def test_the_sun_weighs_one() -> None:
    sun = [np.array([x]) for x in (3090.0, 135.1, 5777.0, 30.0, 0.1, 10.0)]
    mass, error = seismic_mass(*sun)
    assert mass[0] == pytest.approx(1)
    # 3 % in numax^3, little in the others.
    assert error[0] == pytest.approx(np.hypot(3 * 30 / 3090, 4 * 0.1 / 135.1), rel=0.02)


def test_the_error_of_the_mass_is_that_of_many_draws() -> None:
    random = np.random.default_rng(1)
    one = [np.array([x]) for x in (74.0, 6.9, 4700.0, 0.6, 0.015, 100.0)]
    mass, error = seismic_mass(*one)
    drawn = [x + e * random.standard_normal(200_000) for x, e in zip(one[:3], one[3:], strict=True)]
    many, _ = seismic_mass(*drawn, *one[3:])
    assert np.std(many) == pytest.approx(error[0], rel=0.02)
    assert np.mean(many) == pytest.approx(mass[0], rel=0.01)


def test_the_giants_are_what_is_known_of_them() -> None:
    stars = kepler_giants()
    column = stars.vocabulary.column
    assert len(stars) == 1785
    assert stars.real
    assert len(np.unique(stars.ids)) == 1785
    present = np.isfinite(stars.values)
    assert set(np.flatnonzero(present.any(axis=0))) == set(stars.vocabulary.columns(INPUTS))
    assert present[:, stars.vocabulary.columns(INPUTS)].mean() > 0.995
    mass = stars.truth[:, column("mass")]
    assert np.isfinite(mass).all()
    assert np.median(mass) == pytest.approx(1.3, abs=0.05)
    assert 1.4826 * np.median(np.abs(mass - np.median(mass))) == pytest.approx(0.2, abs=0.02)
    error = stars.truth_errors[:, column("mass")]
    assert 0.03 < np.median(error / mass) < 0.06
    # Red giants and clump stars, as Kepler's: log g of the clump is 2.4.
    assert stars.values[:, column("logg")].min() > 2.1
    assert stars.values[:, column("logg")].max() < 3.4
    assert (
        (stars.values[:, column("teff")] > 4200) & (stars.values[:, column("teff")] < 5400)
    ).all()


def test_tokens_are_those_of_the_features() -> None:
    """The slice in tests/data, through features/ by hand, gives the same tokens."""
    stars, plain = kepler_giants(), real_stars.kepler()
    row = np.searchsorted(stars.ids, plain["KIC"].astype(int))
    assert (stars.ids[row] == plain["KIC"]).all()
    zp = astrometry.zero_point(
        plain["phot_g_mean_mag"],
        plain["nu_eff_used_in_astrometry"],
        plain["pseudocolour"],
        plain["ecl_lat"],
        plain["astrometric_params_solved"],
    )
    f = (plain["parallax"] - zp) * 10 ** (0.2 * plain["phot_g_mean_mag"])
    found = stars.values[row][:, stars.vocabulary.column("g_fakemag")]
    np.testing.assert_allclose(found, f, rtol=1e-12)
    colour = plain["phot_bp_mean_mag"] - plain["phot_rp_mean_mag"]
    found = stars.values[row][:, stars.vocabulary.column("bprp")]
    np.testing.assert_allclose(found, colour, rtol=1e-12)
    # Where 2MASS has no error there is no colour.
    bad = ~((plain["h_msigcom"] > 0) & (plain["j_msigcom"] > 0))
    found = stars.values[row][:, stars.vocabulary.column("jh")]
    np.testing.assert_array_equal(np.isnan(found), bad)


def test_logg_is_the_pulsations_own() -> None:
    """g ∝ numax Teff^0.5: so the mass is not given away, as dnu is in no token."""
    stars = kepler_giants()
    mass = stars.truth[:, stars.vocabulary.column("mass")]
    logg = stars.values[:, stars.vocabulary.column("logg")]
    assert abs(np.corrcoef(mass, logg)[0, 1]) < 0.5


def test_no_giant_is_on_both_sides() -> None:
    kept, held = parts()
    assert len(kept) + len(held) == 1785
    assert not set(kept.ids) & set(held.ids)
    assert len(held) == pytest.approx(446, abs=60)
    again = parts()[1]
    np.testing.assert_array_equal(held.ids, again.ids)
    table = kept.table()
    at = kept.vocabulary.column("mass")
    np.testing.assert_array_equal(table.values[:, at], kept.truth[:, at])
    assert np.isfinite(table.errors[:, at]).all()
    inputs = kept.vocabulary.columns(INPUTS)
    np.testing.assert_array_equal(table.values[:, inputs], kept.values[:, inputs])


def test_what_trees_and_physics_make_of_them() -> None:
    kept, held = parts()
    column = held.vocabulary.column("mass")
    few = TreeSettings(**{**vars(KEPLER_TREES), "trees": 600, "rate": 0.05})
    fitted = fit_baseline(
        kept.values, kept.truth[:, [column]], ("mass",), held.vocabulary.columns(INPUTS), few
    )
    trees = score("mass", fitted.predict(held.values)[:, 0], held.truth[:, column])
    physics = score("mass", gravity_mass(held), held.truth[:, column])
    assert trees.stars == len(held)
    assert 0.055 < trees.scatter < 0.08
    assert abs(trees.bias) < 0.02
    assert physics.scatter == pytest.approx(0.094, abs=0.012)
    assert trees.scatter < 0.85 * physics.scatter
