"""Kepler red giants: seismic masses, tokens, and the baselines fitted to them."""

from __future__ import annotations

import numpy as np
import pytest
from support import real_stars

from catalogproc.datasets.folds import fold_of
from catalogproc.datasets.kepler import (
    INPUTS,
    gravity_mass,
    kepler_giants,
    parts,
    seismic_mass,
    training_giants,
)
from catalogproc.datasets.seismic import read_seismic
from catalogproc.evaluation.scores import score
from catalogproc.evaluation.xgboost_baseline import (
    KEPLER_TREES,
    TreeData,
    TreeSettings,
    fit_baseline,
)
from catalogproc.features import astrometry


def test_the_sun_has_one_solar_mass() -> None:
    sun = ((3090.0, 30.0), (135.1, 0.1), (5777.0, 10.0))
    mass, error = seismic_mass(*((np.array([x]), np.array([e])) for x, e in sun))
    assert mass[0] == pytest.approx(1)
    # 3 % in numax^3, little in the others.
    assert error[0] == pytest.approx(np.hypot(3 * 30 / 3090, 4 * 0.1 / 135.1), rel=0.02)


def test_the_error_of_the_mass_agrees_with_random_draws() -> None:
    random = np.random.default_rng(1)
    star = ((74.0, 0.6), (6.9, 0.015), (4700.0, 100.0))
    mass, error = seismic_mass(*((np.array([x]), np.array([e])) for x, e in star))
    many, _ = seismic_mass(
        *((x + e * random.standard_normal(200_000), np.array([e])) for x, e in star)
    )
    assert np.std(many) == pytest.approx(error[0], rel=0.02)
    assert np.mean(many) == pytest.approx(mass[0], rel=0.01)


def test_the_giants_have_the_published_properties() -> None:
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


def test_tokens_are_computed_by_the_functions_of_a_run() -> None:
    """Rows in tests/data, passed to the functions of features/, give the same tokens."""
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


def test_logg_does_not_determine_the_mass() -> None:
    """g is proportional to numax Teff^0.5, and no token depends on dnu."""
    stars = kepler_giants()
    mass = stars.truth[:, stars.vocabulary.column("mass")]
    logg = stars.values[:, stars.vocabulary.column("logg")]
    assert abs(np.corrcoef(mass, logg)[0, 1]) < 0.5


def test_no_giant_is_in_both_parts() -> None:
    training, test = parts()
    assert len(training) + len(test) == 1785
    assert not set(training.ids) & set(test.ids)
    assert len(test) == pytest.approx(446, abs=60)
    again = parts()[1]
    np.testing.assert_array_equal(test.ids, again.ids)
    table = training.table()
    at = training.vocabulary.column("mass")
    np.testing.assert_array_equal(table.values[:, at], training.truth[:, at])
    assert np.isfinite(table.errors[:, at]).all()
    inputs = training.vocabulary.columns(INPUTS)
    np.testing.assert_array_equal(table.values[:, inputs], training.values[:, inputs])


def test_xgboost_predicts_masses_better_than_gravity_and_radius() -> None:
    training, test = parts()
    column = test.vocabulary.column("mass")
    few = TreeSettings(**{**vars(KEPLER_TREES), "trees": 600, "rate": 0.05})
    data = TreeData(
        training.values, training.truth[:, [column]], ("mass",), test.vocabulary.columns(INPUTS)
    )
    fitted = fit_baseline(data, few)
    trees = score("mass", fitted.predict(test.values)[:, 0], test.truth[:, column])
    physics = score("mass", gravity_mass(test), test.truth[:, column])
    assert trees.stars == len(test)
    assert 0.055 < trees.scatter < 0.08
    assert abs(trees.bias) < 0.02
    assert physics.scatter == pytest.approx(0.094, abs=0.012)
    assert trees.scatter < 0.85 * physics.scatter


def test_giants_to_train_on_are_not_in_the_test_fold() -> None:
    trained, may_be = (set(part.ids.tolist()) for part in (training_giants(), parts()[0]))
    assert 0.75 < len(trained) / len(may_be) < 0.85
    assert trained < may_be
    names = read_seismic().names
    known = {
        int(name[4:]): int(star)
        for name, star in zip(names.name.to_pylist(), names.source_id.tolist(), strict=True)
        if name.startswith("KIC ") and star > 0
    }
    both = trained & set(known)
    assert len(both) > 300
    assert all(fold_of(str(known[number])) != 0 for number in both)
