"""Which zero-point a parallax gets: of the release, of the relation, a mean one, or none."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from support import real_stars

from catalogproc.features import astrometry
from catalogproc.features.parallax import (
    ASSUMED_ERROR,
    ASSUMED_ZERO_POINT,
    Parallaxes,
    parallaxes,
)
from catalogproc.features.star_batch import StarBatch
from catalogproc.release import load_release

INPUTS = ("nu_eff_used_in_astrometry", "pseudocolour", "ecl_lat", "astrometric_params_solved")


def stars(**columns: object) -> StarBatch:
    known = {name: np.asarray(value, dtype=np.float64) for name, value in columns.items()}
    none = {band: np.full((len(known["parallax"]), 1), np.nan) for band in ("bp", "rp")}
    number = {band: np.zeros(len(known["parallax"]), np.int16) for band in ("bp", "rp")}
    return StarBatch(none, none, number, auxiliary=known)


def kepler(**changed: object) -> tuple[StarBatch, dict[str, np.ndarray]]:
    held = {
        name: values
        for name, values in real_stars.kepler().items()
        if name in (*INPUTS, "parallax", "parallax_error", "ra", "dec", "phot_g_mean_mag")
    }
    held |= {name: np.broadcast_to(value, (322,)).copy() for name, value in changed.items()}
    return stars(**held), held


def made(**changed: object) -> tuple[Parallaxes, dict[str, np.ndarray]]:
    batch, held = kepler(**changed)
    return parallaxes(batch, held["phot_g_mean_mag"]), held


def test_with_all_columns_the_relation_is_used() -> None:
    found, held = made()
    wanted = astrometry.zero_point(held["phot_g_mean_mag"], *(held[name] for name in INPUTS))
    assert np.isfinite(wanted).all()
    assert np.array_equal(found.zero_point, wanted)
    assert np.array_equal(found.corrected, held["parallax"] - wanted)
    assert np.array_equal(found.error, held["parallax_error"])
    assert not found.assumed.any()
    assert not found.published.any()
    # What is assumed elsewhere is near what these stars have: 1 sigma for half of them, 2 for most.
    assert np.median(wanted) == pytest.approx(ASSUMED_ZERO_POINT, abs=ASSUMED_ERROR)
    assert np.mean(np.abs(wanted - ASSUMED_ZERO_POINT) < ASSUMED_ERROR) > 0.5
    assert np.mean(np.abs(wanted - ASSUMED_ZERO_POINT) < 2 * ASSUMED_ERROR) > 0.95


@pytest.mark.parametrize(
    "absent",
    [INPUTS, ("nu_eff_used_in_astrometry", "pseudocolour"), ("astrometric_params_solved",),
     ("ecl_lat", "ra", "dec")],
)  # fmt: skip
def test_a_zero_point_whose_inputs_are_not_given_is_assumed(absent: tuple[str, ...]) -> None:
    found, held = made(**dict.fromkeys(absent, np.nan))
    assert found.assumed.all()
    assert found.corrected == pytest.approx(held["parallax"] + 0.04, abs=1e-12)
    assert found.error == pytest.approx(np.sqrt(held["parallax_error"] ** 2 + 0.02**2), rel=1e-12)


def test_what_is_known_to_have_no_zero_point_is_not_assumed() -> None:
    nan = np.nan
    batch = stars(
        #                          2 par., colour outside (3 times), no parallax, G outside
        parallax=[                 1.0,    1.0, 1.0,  1.0, nan, 1.0],
        astrometric_params_solved=[3,      31,  95,   nan, 31,  31],
        nu_eff_used_in_astrometry=[nan,    1.0, nan,  2.0, nan, 1.5],
        pseudocolour=[             nan,    nan, 1.75, nan, nan, nan],
        ecl_lat=[                  nan,    nan, 10.0, nan, nan, 10.0],
    )  # fmt: skip
    found = parallaxes(batch, np.array([12.0, 12.0, 12.0, 12.0, 12.0, 5.0]))
    assert not found.assumed.any()
    assert np.isnan(found.zero_point).all()
    assert np.isnan(found.corrected).all()


def test_the_bias_of_the_release_counts_first_and_is_subtracted() -> None:
    bias = np.full(322, -0.031)
    bias[:10] = np.nan
    params = real_stars.kepler()["astrometric_params_solved"] + 128 + 4096  # bits of DR4
    params[-1] = 3 + 128  # no parallax was solved for
    found, held = made(tentative_parallax_bias=bias, astrometric_params_solved=params)
    assert found.published.tolist() == [False] * 10 + [True] * 311 + [False]
    assert np.array_equal(found.corrected[10:-1], held["parallax"][10:-1] + 0.031)
    assert np.isnan(found.zero_point[-1])
    # The other bits do not change what Lindegren et al. give.
    plain, _ = made()
    assert np.array_equal(found.relation[:-1], plain.relation[:-1])
    assert np.array_equal(found.zero_point[:10], plain.zero_point[:10])
    assert not found.assumed.any()


def test_the_bits_of_solved_parameters_are_those_of_the_release() -> None:
    batch, held = kepler()
    wanted = parallaxes(batch, held["phot_g_mean_mag"])
    dr3 = load_release("dr3")
    other = replace(dr3, parallax=replace(dr3.parallax, parallax_bit=8, pseudocolour_bit=512))
    six = held["astrometric_params_solved"] == 95
    assert 0 < six.sum() < len(six)
    bits = 8 + 512.0 * six  # those of DR3, 4 and 64, are not set
    bits[0] = 4 + 64  # here they mean something else: no parallax
    renamed = replace(stars(**(held | {"astrometric_params_solved": bits})), release=other)
    found = parallaxes(renamed, held["phot_g_mean_mag"])
    assert np.isnan(found.zero_point[0])
    assert np.array_equal(found.zero_point[1:], wanted.zero_point[1:])


def test_the_thirty_bright_stars_keep_their_parallaxes() -> None:
    table = real_stars.bright_auxiliary()
    known = {n: table.column(n).cast(pa.float64()).to_numpy() for n in ("parallax", "ra", "dec")}
    found = parallaxes(stars(**known), table.column("phot_g_mean_mag").to_numpy())
    assert found.corrected == pytest.approx(known["parallax"] + 0.04, abs=1e-12)
    assert found.assumed.all()
