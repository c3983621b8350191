"""Extinction: the published relation against an integral over spectra, and the curves."""

from __future__ import annotations

import numpy as np
import pytest
from support.real_stars import unfolded_passbands

from catalogproc.errors import CatalogprocError
from catalogproc.features import extinction
from catalogproc.release import load_release
from catalogproc.resources import shipped

DR3 = load_release("dr3")


def test_scales() -> None:
    assert extinction.true_ebv([1.0])[0] == 0.884
    assert extinction.v_extinction([1.0])[0] == pytest.approx(2.7404)


@pytest.mark.parametrize("teff", [4500, 4750, 5000, 5500])
def test_extinction_in_g_is_the_integral_over_a_giants_spectrum(teff: int) -> None:
    """ATLAS9 at log g 2.5, curve of Fitzpatrick et al. 2019, G from GaiaXPy's tables: a route
    that shares nothing with the polynomial, which its makers give an error of 3.5 %."""
    flux, band, wavelength = atlas9(teff)
    curve = extinction.curve(wavelength, law="F19") / extinction.curve(550.0, law="F19")
    for a_0 in (0.01, 0.5, 1.0, 3.0):
        dimmed = (band * flux * 10 ** (-0.4 * a_0 * curve)).sum() / (band * flux).sum()
        integral = -2.5 * np.log10(dimmed)
        ebv = a_0 / extinction.R_V / extinction.TRUE_PER_SFD
        assert extinction.g_extinction([ebv], [teff], DR3)[0] == pytest.approx(integral, rel=0.025)


def atlas9(teff: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Flux, photon-weighted G pass-band, and wavelengths in nm (L,) each."""
    from astropy.io import fits

    bands, wavelength = unfolded_passbands()
    with fits.open(shipped("grids") / "ck04_atlas9.fits.gz") as file:
        place = [
            int(np.argmin(np.abs(file[name].data.field(0) - value)))
            for name, value in (("MH", 0.0), ("TEFF", teff), ("LOGG", 2.5))
        ]
        flux = np.interp(wavelength, file["WAVE"].data.field(0) / 10, file[0].data[tuple(place)])
    return flux, bands[0], wavelength


def test_the_ratio_of_extinctions_is_the_published_one() -> None:
    """A_G / A_V of red giants: 0.82 at 4800 K and low extinction, less for red and dusty stars."""
    ratio = extinction.g_extinction([0.01] * 3, [4200, 4800, 6000], DR3) / extinction.v_extinction(
        0.01
    )
    assert ratio[1] == pytest.approx(0.82, abs=0.005)
    assert (np.diff(ratio) > 0).all()
    dusty = np.array([0.01, 0.3, 1.0, 3.0])

    ratio = extinction.g_extinction(dusty, np.full(4, 4800.0), DR3) / extinction.v_extinction(dusty)
    assert (np.diff(ratio) < 0).all()


def test_extinction_stays_sane_outside_its_range() -> None:
    ebv = np.array([0.0, -0.01, 20.0, 0.1, 0.1, np.nan])
    teff = np.array([4800.0, 4800.0, 4800.0, 3000.0, 12000.0, 4800.0])
    made = extinction.g_extinction(ebv, teff, DR3)
    assert made[0] == 0
    assert -0.03 < made[1] < 0
    assert 0.2 < made[2] / extinction.v_extinction(20.0) < 0.8
    assert made[3] == extinction.g_extinction([0.1], [3500.0], DR3)[0]
    assert made[4] == extinction.g_extinction([0.1], [10000.0], DR3)[0]
    assert np.isnan(made[5])


def test_ln_ebv_has_a_floor_and_a_ceiling() -> None:
    made = extinction.ln_ebv([1.0, np.exp(-2.0), 0.0, -0.1, 1e-9, 10.0, 10.1, np.nan])
    wanted = [0.0, -2.0, -7.0, -7.0, -7.0, np.log(10.0), np.nan, np.nan]
    assert made == pytest.approx(wanted, nan_ok=True)


@pytest.mark.parametrize(
    ("wavelength", "wanted"),
    # A / E(B-V) of Fitzpatrick 1999 at R_V = 3.1, its table 3: 6000, 5470, 4670, 4110, 2600 A
    [(600.0, 2.688), (547.0, 3.055), (467.0, 3.806), (411.0, 4.315), (260.0, 6.591)],
)
def test_the_curve_is_the_one_that_fitzpatrick_tabulates(wavelength: float, wanted: float) -> None:
    assert extinction.curve(wavelength) == pytest.approx(wanted, rel=0.005)


def test_the_curve_keeps_its_shape_and_scales_with_r_v() -> None:
    grid = np.linspace(336.0, 1020.0, 12).reshape(3, 4)
    assert extinction.curve(grid).shape == (3, 4)
    assert (np.diff(extinction.curve(grid).ravel()) < 0).all()
    # E(B-V) is a colour: whatever R_V, a magnitude of it is one between B and V.
    for r_v in (2.5, 3.1, 5.0):
        b, v = extinction.curve([442.0, 545.0], r_v)
        assert b - v == pytest.approx(1.0, abs=0.07)
        assert v == pytest.approx(r_v, rel=0.04)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ({"law": "CCM89"}, "no such extinction curve(.|\n)*found: CCM89"),
        ({"wavelength": 50_000.0}, "outside the range of the extinction curve F99"),
        ({"r_v": 9.0}, "outside the range of the extinction curve F99"),
    ],
)
def test_what_no_curve_covers_is_refused(call: dict, message: str) -> None:
    with pytest.raises(CatalogprocError, match=message):
        extinction.curve(**({"wavelength": 500.0} | call))
