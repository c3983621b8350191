"""Zero-points, luminosities and distances, on Kepler red giants and against plain formulas."""

from __future__ import annotations

import numpy as np
import pytest
from support import real_stars

from catalogproc.features import astrometry, extinction
from catalogproc.release import load_release

DR3 = load_release("dr3")


def corrected() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Zero-point, corrected parallax, and parallax over error of the Kepler giants."""
    stars = real_stars.kepler()
    zp = astrometry.zero_point(
        stars["phot_g_mean_mag"],
        stars["nu_eff_used_in_astrometry"],
        stars["pseudocolour"],
        stars["ecl_lat"],
        stars["astrometric_params_solved"],
    )
    parallax = stars["parallax"] - zp
    return zp, parallax, parallax / stars["parallax_error"]


def test_zero_points_are_those_of_the_package_star_by_star() -> None:
    from zero_point import zpt

    zpt.load_tables()
    stars, (zp, _, _) = real_stars.kepler(), corrected()
    names = ("phot_g_mean_mag", "nu_eff_used_in_astrometry", "pseudocolour", "ecl_lat")
    # The package's own path for single numbers fails with NumPy 2: lists of one.
    plain = [
        zpt.get_zpt(*([float(stars[name][i])] for name in names), [solved], _warnings=False)[0]
        + (0.005 * min(max(stars["phot_g_mean_mag"][i] - 13, 0), 4))
        for i, solved in enumerate(stars["astrometric_params_solved"])
    ]
    assert zp == pytest.approx(plain, abs=1e-12)
    assert (stars["astrometric_params_solved"] == 95).sum() == 29
    assert -0.06 < zp.min() < zp.max() < 0.01  # mas


@pytest.mark.parametrize(
    ("g", "nu", "pseudo", "latitude", "solved", "known"),
    [
        (12.0, 1.4, np.nan, 20.0, 31, True),
        (12.0, np.nan, 1.4, 20.0, 95, True),
        (12.0, 1.4, 1.4, 20.0, 3, False),  # two parameters: no parallax
        (12.0, 1.4, 1.4, 20.0, np.nan, False),
        (12.0, 1.4, 1.4, 20.0, 0, False),
        (6.0, 1.4, np.nan, 20.0, 31, False),
        (21.0, 1.4, np.nan, 20.0, 31, False),
        (12.0, 1.9, np.nan, 20.0, 31, False),
        (12.0, 1.1, np.nan, 20.0, 31, False),
        (12.0, np.nan, np.nan, 20.0, 31, False),
        (12.0, np.nan, 1.72, 20.0, 95, False),
        (12.0, 1.4, np.nan, 20.0, 95, False),
        (np.nan, 1.4, np.nan, 20.0, 31, False),
        (12.0, 1.4, np.nan, np.nan, 31, False),
    ],
)
def test_a_zero_point_is_nan_where_there_is_none(g, nu, pseudo, latitude, solved, known) -> None:  # type: ignore[no-untyped-def]
    """Alone, and beside a star that has one: never a warning, never the neighbour's fate."""
    star = np.array([[g, nu, pseudo, latitude, solved]])
    fine = np.array([[12.0, 1.4, np.nan, 20.0, 31]])
    alone = astrometry.zero_point(*star.T)
    beside = astrometry.zero_point(*np.vstack([fine, star]).T)
    assert np.isfinite(alone[0]) == known
    assert np.array_equal(beside[1:], alone, equal_nan=True)
    assert beside[0] == astrometry.zero_point(*fine.T)[0]


def test_the_faint_term_is_at_most_20_microarcseconds() -> None:
    """Leung et al. 2023: 0 to G = 13, then 5 per magnitude, constant from G = 17."""
    from zero_point import zpt

    zpt.load_tables()
    g = np.array([12.0, 13.0, 15.0, 17.0, 19.0])
    rest = [np.full(5, value) for value in (1.4, np.nan, 10.0, 31)]
    lindegren = zpt.get_zpt(g, *rest, _warnings=False)
    term = astrometry.zero_point(g, *rest) - lindegren
    assert term == pytest.approx([0, 0, 0.01, 0.02, 0.02], abs=1e-12)


def test_distances_are_those_of_bailer_jones_for_good_parallaxes() -> None:
    """Within one percent, where the prior of Bailer-Jones et al. 2021 does not matter."""
    stars, (_, parallax, snr) = real_stars.kepler(), corrected()
    f, sigma = astrometry.pseudo_luminosity(
        parallax, stars["parallax_error"], stars["phot_g_mean_mag"]
    )
    near, middle, far = astrometry.distance(f, sigma, stars["phot_g_mean_mag"])
    ratio = 1000 * middle / stars["rpgeo"]
    good = snr > 50
    assert good.sum() > 200
    assert np.median(ratio[good]) == pytest.approx(1.0, abs=0.001)
    assert np.percentile(np.abs(ratio[good] - 1), 97.5) < 0.01
    assert (near < middle).all()
    assert (middle < far).all()
    # Their own width in parallax is the parallax error.
    assert (1 / near - 1 / far) / 2 == pytest.approx(stars["parallax_error"], rel=1e-9)


def test_luminosities_are_the_published_ones_less_the_bolometric_correction() -> None:
    """BC_G(Teff) of Andrae et al. 2018, eq. 7 and table 4, for 4000 to 8000 K; Sun M_bol 4.74."""
    stars, (_, parallax, _) = real_stars.kepler(), corrected()
    f, sigma = astrometry.pseudo_luminosity(
        parallax, stars["parallax_error"], stars["phot_g_mean_mag"]
    )
    m_g, _ = astrometry.absolute_magnitude(f, sigma)
    m_g0 = m_g - extinction.g_extinction(stars["ebv"] / extinction.TRUE_PER_SFD, stars["Teff"], DR3)
    t = stars["Teff"] - 5772.0
    correction = 0.06 + 6.731e-5 * t - 6.647e-8 * t**2 + 2.859e-11 * t**3 - 7.197e-15 * t**4
    bolometric = 0.4 * (4.74 - m_g0 - correction)
    off = np.log10(stars["luminosity"]) - bolometric
    assert np.median(off) == pytest.approx(0.0, abs=0.03)
    assert 1.4826 * np.median(np.abs(off - np.median(off))) < 0.02
    # In the G band alone: the same, but for the correction, which is smooth.
    assert astrometry.log_luminosity(m_g0) == pytest.approx(0.4 * (4.67 - m_g0))


def test_pseudo_luminosity_is_linear_in_the_parallax_and_finite_at_zero() -> None:
    parallax = np.array([-0.2, 0.0, 0.2, 0.4])
    f, sigma = astrometry.pseudo_luminosity(parallax, np.full(4, 0.05), np.full(4, 15.0))
    assert f == pytest.approx([-200.0, 0.0, 200.0, 400.0])
    assert sigma == pytest.approx(np.full(4, 50.0))
    back, error = astrometry.model_parallax(f, sigma, np.full(4, 15.0))
    assert back == pytest.approx(parallax, abs=1e-15)
    assert error == pytest.approx(np.full(4, 0.05))


def test_what_has_no_positive_parallax_has_no_distance_and_no_magnitude() -> None:
    f, sigma = (
        np.array([100.0, 100.0, -1.0, -300.0, np.nan]),
        np.array([10.0, 100.0, 2.0, 10.0, 1.0]),
    )
    near, middle, far = astrometry.distance(f, sigma, np.full(5, 10.0))
    assert np.isfinite(near).tolist() == [True, True, True, False, False]
    assert np.isfinite(middle).tolist() == [True, True, False, False, False]
    assert np.isfinite(far).tolist() == [True, False, False, False, False]
    magnitude, error = astrometry.absolute_magnitude(f, sigma)
    assert (
        np.isfinite(magnitude).tolist() == np.isfinite(error).tolist() == [True, True] + [False] * 3
    )
    assert middle[0] == pytest.approx(1.0)  # G = 10, M_G = 0: 1 kpc
    assert magnitude[0] == pytest.approx(0.0)


def test_percentiles_and_errors_are_those_of_many_draws() -> None:
    rng = np.random.default_rng(1)
    f, sigma, g = 250.0, 20.0, 12.0
    draws = rng.normal(f, sigma, 200_000)
    wanted = np.percentile(10 ** (0.2 * g) / draws, [15.866, 50, 84.134])
    made = [value[0] for value in astrometry.distance([f], [sigma], [g])]
    assert made == pytest.approx(wanted, rel=2e-3)
    _, error = astrometry.absolute_magnitude([f], [sigma])
    assert error[0] == pytest.approx(np.std(5 * np.log10(draws)), rel=0.02)


def test_combination_is_the_inverse_variance_mean() -> None:
    """Against a least-squares fit of a constant, and as the error of many such means."""
    f, sigma = np.array([120.0, 100.0]), np.array([20.0, 10.0])
    weights, covariance = np.polyfit([0.0, 1.0], f, 0, w=1 / sigma, cov="unscaled")
    made, error = astrometry.combine(f[:1], sigma[:1], f[1:], sigma[1:])
    assert made[0] == pytest.approx(weights[0])
    assert error[0] == pytest.approx(np.sqrt(covariance[0, 0]))
    assert astrometry.tension(f[:1], sigma[:1], f[1:], sigma[1:])[0] == pytest.approx(20 / 500**0.5)


def test_combination_with_an_unknown_is_the_other() -> None:
    nan = np.nan
    made, error = astrometry.combine(
        [nan, 5.0, nan, 5.0], [1.0, 2.0, nan, 0.0], [4.0, nan, nan, 4.0], [3.0, 1.0, 1.0, 3.0]
    )
    assert np.array_equal(made, [4.0, 5.0, nan, 4.0], equal_nan=True)
    assert np.array_equal(error, [3.0, 2.0, nan, 3.0], equal_nan=True)


def test_usable_parallaxes() -> None:
    zp = np.array([0.0, np.nan, 0.0, 0.0, 0.0])
    error = np.array([0.1, 0.05, 0.11, 0.05, 0.05])
    ruwe = np.array([1.4, 1.0, 1.0, 1.41, np.nan])
    assert astrometry.parallax_usable(zp, error, ruwe).tolist() == [True, False, False, False, True]


def test_positions_are_gaias_own() -> None:
    """l, b of gaia_source to a thousandth of a milliarcsecond; astropy's differ by 20."""
    source = real_stars.bright_auxiliary()
    ra, dec, l, b = (source.column(name).to_numpy() for name in ("ra", "dec", "l", "b"))  # noqa: E741
    made = astrometry.galactic(ra, dec)
    assert made[0] == pytest.approx(l, abs=1e-5 / 3600)
    assert made[1] == pytest.approx(b, abs=1e-5 / 3600)
    stars = real_stars.kepler()
    latitude = astrometry.ecliptic_latitude(stars["ra"], stars["dec"])
    assert latitude == pytest.approx(stars["ecl_lat"], abs=0.05 / 3600)


def test_healpix_is_the_pixel_in_every_source_id() -> None:
    """A Gaia source_id is its pixel of order 12, times 2^35, at the epoch of its making."""
    source = real_stars.bright_auxiliary()
    ra, dec = (source.column(name).to_numpy() for name in ("ra", "dec"))
    wanted = source.column("source_id").to_numpy() // 2**35
    assert np.mean(astrometry.healpix(ra, dec, order=12) == wanted) > 0.9
    fine = astrometry.healpix(ra, dec)
    assert np.array_equal(fine >> 34, astrometry.healpix(ra, dec, order=12))
    assert astrometry.healpix([np.nan, 10.0, 10.0], [0.0, np.nan, 91.0]).tolist() == [-1] * 3
