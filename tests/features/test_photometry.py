"""Colours and synthetic magnitudes, against GaiaXPy, published photometry and pass-bands."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from support import real_stars

from catalogproc.errors import ReleaseError
from catalogproc.features import photometry
from catalogproc.release import load_release

DR3 = load_release("dr3")

NAMES = ("G", "BP", "RP")


def ours(table, correlations: bool = False) -> photometry.Magnitudes:  # type: ignore[no-untyped-def]
    bp, rp, e_bp, e_rp = (
        real_stars.stacked(table, f"{band}_{what}")
        for what in ("coefficients", "coefficient_errors")
        for band in ("bp", "rp")
    )
    packed = (
        (real_stars.stacked(table, "bp_coefficient_correlations"),
         real_stars.stacked(table, "rp_coefficient_correlations")) if correlations else None
    )  # fmt: skip
    return photometry.synthetic_photometry(bp, rp, DR3, (e_bp, e_rp), packed)


@pytest.mark.parametrize("correlations", [True, False])
def test_magnitudes_and_errors_equal_gaiaxpys(correlations: bool) -> None:
    """30 bright stars with full covariances; 100 faint ones with errors only."""
    table = real_stars.bright() if correlations else real_stars.faint().slice(0, 100)
    theirs, made = real_stars.gaiaxpy_magnitudes(table), ours(table, correlations)
    for name in NAMES:
        assert getattr(made, name.lower()) == pytest.approx(theirs[name], abs=1e-9)
        error = theirs[f"e_{name}"] * 2.5 / np.log(10)
        assert getattr(made, f"e_{name.lower()}") == pytest.approx(error, rel=1e-9)


def test_synthetic_magnitudes_equal_published_ones() -> None:
    """Published photometry of the same stars, with other detectors and calibration."""
    made, published = ours(real_stars.bright()), real_stars.bright_auxiliary()
    for name in NAMES:
        off = getattr(made, name.lower()) - published.column(f"phot_{name.lower()}_mean_mag")
        assert abs(np.median(off)) < 0.015
        assert np.std(off) < 0.006


def test_pivot_wavelengths_of_the_pass_bands_are_the_published_ones() -> None:
    """Unfold the pass-band from GaiaXPy's weights with its design matrices, two tables that
    were made apart: its pivot wavelength is the published one (Riello et al. 2021, table 2)."""
    band, wavelength = real_stars.unfolded_passbands()
    pivot = np.sqrt(band.sum(axis=1) / (band / wavelength**2).sum(axis=1))
    assert pivot == pytest.approx([621.79, 510.97, 776.91], rel=0.006)


def test_a_hundred_times_the_flux_is_five_magnitudes() -> None:
    bp, rp = (real_stars.stacked(real_stars.bright(), f"{b}_coefficients") for b in ("bp", "rp"))
    one, other = (photometry.synthetic_photometry(bp * k, rp * k, DR3) for k in (1.0, 100.0))
    for name in ("g", "bp", "rp"):
        assert getattr(one, name) - getattr(other, name) == pytest.approx(5.0, abs=1e-9)
    assert np.isnan(one.e_g).all()


def test_errors_equal_the_scatter_of_noisy_spectra() -> None:
    """A third route: 4,000 realisations of one star's noise from its full covariance."""
    from catalogproc.features import spectra

    table = real_stars.bright().slice(3, 1)
    rng = np.random.default_rng(3)
    draws = []
    for band in ("bp", "rp"):
        covariance = spectra.covariance(
            real_stars.stacked(table, f"{band}_coefficient_errors"),
            real_stars.stacked(table, f"{band}_coefficient_correlations"),
        )[0]
        mean = real_stars.stacked(table, f"{band}_coefficients")[0]
        draws.append(rng.multivariate_normal(mean, covariance, size=4000))
    made, noisy = (
        ours(table, correlations=True),
        photometry.synthetic_photometry(*draws, DR3),
    )
    for name in ("g", "bp", "rp"):
        assert np.std(getattr(noisy, name)) == pytest.approx(
            getattr(made, f"e_{name}")[0], rel=0.05
        )


def test_a_missing_band_or_negative_flux_gives_nan() -> None:
    bp, rp = (real_stars.stacked(real_stars.bright(), f"{b}_coefficients") for b in ("bp", "rp"))
    bp[0], rp[1] = np.nan, np.nan
    bp[2], rp[2] = -bp[2], -rp[2]
    made = photometry.synthetic_photometry(bp, rp, DR3)
    for name in ("g", "bp", "rp"):
        assert np.array_equal(np.isfinite(getattr(made, name)), np.arange(len(bp)) > 2)


def test_spectra_of_another_release_are_refused() -> None:
    with pytest.raises(ReleaseError, match=r"BP spectra(.|\n)*wanted: 55(.|\n)*found: 51"):
        photometry.synthetic_photometry(np.ones((1, 51)), np.ones((1, 55)), DR3)
    with pytest.raises(ReleaseError, match=r"Gaia DR4(.|\n)*its design matrices"):
        photometry.synthetic_photometry(np.ones((1, 51)), np.ones((1, 55)), load_release("dr4"))


def test_neither_gaiaxpy_nor_astropy_is_imported() -> None:
    """Importing GaiaXPy takes 1.9 s and switches off every RuntimeWarning of the process."""
    code = (
        "import sys, numpy as np; from catalogproc.features import photometry, spectra, tokens;"
        "from catalogproc.release import load_release;"
        "photometry.synthetic_photometry(np.ones((1, 55)), np.ones((1, 55)), load_release());"
        "print([m for m in ('gaiaxpy', 'astropy', 'torch', 'zero_point') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_colour_errors_are_those_of_the_formula() -> None:
    """Signal to noise 100 and 50: 0.01086 and 0.02171 mag, and those of the zero-points."""
    wanted = np.sqrt(
        (1.0857362 / 100) ** 2 + 0.00279017**2 + (1.0857362 / 50) ** 2 + 0.0037793818**2
    )
    assert photometry.bp_rp_error([100.0], [50.0], DR3) == pytest.approx(wanted, rel=1e-7)
    assert np.isnan(photometry.bp_rp_error([np.nan, 0.0, -1.0], [50.0, 50.0, 50.0], DR3)).all()


def test_tmass_fillers_and_poor_photometry_are_nan() -> None:
    value = np.array([9.5, 99.999, 9.5, np.nan])
    good = np.array([True, True, False, True])
    made = photometry.tmass_magnitude(value, good)
    assert made[0] == 9.5
    assert np.isnan(made[1:]).all()


def test_tmass_colours_of_kepler_giants() -> None:
    stars = real_stars.kepler()
    jk, error = photometry.colour(
        stars["j_m"], stars["k_m"], stars["j_msigcom"], stars["k_msigcom"]
    )
    assert np.median(jk) == pytest.approx(0.67, abs=0.05)  # red clump and branch
    assert error == pytest.approx(np.sqrt(stars["j_msigcom"] ** 2 + stars["k_msigcom"] ** 2))
