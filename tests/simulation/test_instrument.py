"""Simulated spectra: interpolation, dust, instrument, photometry; comparison with real stars."""

from __future__ import annotations

import warnings
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.interpolate import make_interp_spline
from support import real_stars, simulated
from support.paths import DATA

from catalogproc.errors import CatalogprocError
from catalogproc.features.extinction import R_V, TRUE_PER_SFD, curve, g_extinction
from catalogproc.features.flux_calibration import calibration
from catalogproc.features.photometry import synthetic_photometry
from catalogproc.release import load_release
from catalogproc.resources import shipped
from catalogproc.simulation import (
    atmospheres,
    build_grids,
    compare_with_real,
    instrument,
    instrument_fit,
)

DR3 = load_release("dr3")


def spectra(
    teff: float | np.ndarray,
    logg: float | np.ndarray = 2.5,
    m_h: float | np.ndarray = 0.0,
    ebv: float | np.ndarray = 0.0,
    log_l: float | np.ndarray = 1.7,
    distance: float | np.ndarray = 1.0,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Noiseless coefficients, G/BP/RP and J/H/Ks, float64."""
    wide = np.broadcast_arrays(m_h, teff, logg, log_l, distance, ebv, R_V)
    columns = [torch.tensor(np.atleast_1d(item), dtype=torch.float32) for item in wide]
    seen = simulated.simulator().spectra(*columns)
    coefficients, gaia, tmass = (item.double().numpy() for item in seen)
    return coefficients, gaia, tmass


@cache
def grid() -> atmospheres.Grid:
    return atmospheres.read_grid()


def test_the_interpolated_spectrum_at_a_model_equals_the_model() -> None:
    models = grid()
    plain = atmospheres.build(models)
    random = np.random.default_rng(1)
    m, t, g = random.integers(0, (8, 15, 8), (400, 3)).T
    made = plain.log_flux(
        *(
            torch.tensor(axis[i], dtype=torch.float32)
            for axis, i in ((models.m_h, m), (models.teff, t), (models.logg, g))
        )
    )
    off = made.double().numpy() - models.log_flux[m, t, g]
    seen = (models.wavelength > 330) & (models.wavelength < 1080)
    assert off[:, seen].std() < 1.5e-3


def test_models_left_out_are_recovered_by_interpolation() -> None:
    """Leave one value of a parameter out and interpolate there."""
    models = grid()
    seen = (models.wavelength > 400) & (models.wavelength < 950)
    cases = (
        (0, -0.5, 0.003),
        (0, 0.2, 0.003),
        (1, 4250.0, 0.010),
        (1, 4750.0, 0.002),
        (1, 5500.0, 0.002),
        (2, 1.5, 0.002),
        (2, 2.5, 0.002),
    )
    flux = models.log_flux[..., seen][:, 1:13, :9]  # 3750 to 6500 K, log g 0 to 4
    axes = (models.m_h, models.teff[1:13], models.logg[:9])
    for axis, value, most in cases:
        nodes = axes[axis]
        (gone,) = np.flatnonzero(nodes == value)
        kept = np.delete(np.arange(len(nodes)), gone)
        spline = make_interp_spline(nodes[kept], np.take(flux, kept, axis), k=3, axis=axis)
        off = spline(value) - np.take(flux, gone, axis)
        assert np.median(np.abs(off)) < most, (axis, value)


def test_spectra_change_smoothly_between_models() -> None:
    for name, start, stop in (("teff", 4400.0, 4600.0), ("logg", 1.9, 2.1), ("m_h", -0.1, 0.1)):
        steps = np.linspace(start, stop, 17)  # a node of the grid is in the middle
        line = {"teff": 4500.0, "logg": 2.0, "m_h": 0.0, name: steps}
        colour = np.diff(spectra(**line)[1][:, 1:], axis=1)[:, 0]
        slope = np.diff(colour)
        jump = np.abs(np.diff(slope)) / np.abs(slope).max()
        assert jump.max() < 0.12, name


def test_holes_of_the_grid_are_filled() -> None:
    assert np.isfinite(grid().log_flux).all()
    coefficients, gaia, tmass = spectra(8000.0, logg=0.1)
    assert all(np.isfinite(item).all() for item in (coefficients, gaia, tmass))


@pytest.mark.parametrize("r_v", [2.8, 3.1, 3.4])
def test_extinction_equals_the_published_curve(r_v: float) -> None:
    models = simulated.simulator().atmospheres
    made = models.extinction(torch.tensor([1.0]), torch.tensor([r_v]))[0].numpy()
    np.testing.assert_allclose(made, curve(models.wavelength, r_v), atol=0.003)


def test_extinction_in_g_and_in_colours_is_the_published_one() -> None:
    ebv = np.array([0.0, 0.3])
    for teff in (4200.0, 4700.0, 5200.0):
        _, gaia, tmass = spectra(teff, ebv=ebv * TRUE_PER_SFD)
        a_g, a_bp, a_rp = gaia[1] - gaia[0]
        expected = g_extinction(ebv[1:], np.array([teff]), DR3)[0]
        assert abs(a_g / expected - 1) < 0.05  # another curve, with an uncertainty of 3.5 %
        a_v = R_V * TRUE_PER_SFD * ebv[1]
        # Wang & Chen (2019), table 3: E(BP-RP)/A_V 0.42; and the infrared's order.
        assert abs((a_bp - a_rp) / a_v - 0.42) < 0.04
        a_j, a_h, a_k = tmass[1] - tmass[0]
        assert 0.30 > a_j / a_v > a_h / a_v > a_k / a_v > 0.07


def test_the_sun_at_ten_parsecs_has_its_absolute_magnitudes() -> None:
    _, gaia, tmass = spectra(5772.0, logg=4.438, log_l=0.0, distance=0.01)
    assert abs(gaia[0, 0] - 4.67) < 0.03  # Casagrande & VandenBerg (2018)
    assert abs(gaia[0, 1] - gaia[0, 2] - 0.82) < 0.04
    np.testing.assert_allclose(tmass[0], [3.67, 3.32, 3.27], atol=0.05)  # Willmer (2018)


def test_magnitudes_equal_synthetic_photometry_of_the_spectrum() -> None:
    """A second route: G, BP, RP by features/photometry from the coefficients."""
    coefficients, gaia, _ = spectra(np.array([3800.0, 4800.0, 6000.0]), ebv=0.2)
    made = synthetic_photometry(coefficients[:, :55], coefficients[:, 55:], DR3)
    np.testing.assert_allclose(np.stack([made.g, made.bp, made.rp], 1), gaia, atol=2e-4)


def test_magnitudes_follow_luminosity_and_distance() -> None:
    near, far, bright = (
        spectra(4800.0, distance=d, log_l=level)
        for d, level in ((1.0, 1.0), (10.0, 1.0), (1.0, 2.0))
    )
    for band in (1, 2):
        np.testing.assert_allclose(far[band] - near[band], 5.0, atol=1e-4)
        np.testing.assert_allclose(near[band] - bright[band], 2.5, atol=1e-4)


def test_colours_follow_published_temperature_scales() -> None:
    teff = np.arange(4200.0, 5601.0, 100.0)
    for m_h in (-1.0, -0.5, 0.0):
        _, gaia, tmass = spectra(teff, logg=2.6 + (teff - 4800) / 800, m_h=m_h)
        x = gaia[:, 1] - gaia[:, 2]
        # Mucciarelli, Bellazzini & Massari (2021), giants; dispersion 83 K.
        theta = 0.5323 + 0.4775 * x - 0.0344 * x**2 - 0.0110 * m_h - 0.0020 * m_h**2
        theta -= 0.0009 * m_h * x
        # At the cool end it is hotter than the Kepler giants' scale, too, by 90 K.
        assert np.abs(5040 / theta - teff).max() < 210, m_h
        assert np.abs(np.median(5040 / theta - teff)) < 80, m_h
        y = tmass[:, 0] - tmass[:, 2]
        # González Hernández & Bonifacio (2009), giants; dispersion 139 K.
        theta = 0.6517 + 0.6312 * y + 0.0168 * y**2 - 0.0381 * y * m_h
        theta += 0.0256 * m_h + 0.0013 * m_h**2
        assert np.abs(5040 / theta - teff).max() < 100, m_h
        assert np.abs(np.median(5040 / theta - teff)) < 80, m_h


def test_colours_of_kepler_red_giants_are_the_observed_ones() -> None:
    stars = real_stars.kepler()
    good = (stars["j_msigcom"] < 0.03) & np.isfinite(stars["ebv"] * stars["Teff"])
    star = {name: values[good] for name, values in stars.items()}
    _, gaia, tmass = spectra(
        star["Teff"], star["logg"], -0.03, TRUE_PER_SFD * star["ebv"],
        np.log10(star["luminosity"]), star["rpgeo"] / 1e3,
    )  # fmt: skip
    seen = {
        "G": star["phot_g_mean_mag"],
        "BP-RP": star["phot_bp_mean_mag"] - star["phot_rp_mean_mag"],
        "J-H": star["j_m"] - star["h_m"],
        "J-K": star["j_m"] - star["k_m"],
        "G-J": star["phot_g_mean_mag"] - star["j_m"],
    }
    made = {
        "G": gaia[:, 0],
        "BP-RP": gaia[:, 1] - gaia[:, 2],
        "J-H": tmass[:, 0] - tmass[:, 1],
        "J-K": tmass[:, 0] - tmass[:, 2],
        "G-J": gaia[:, 0] - tmass[:, 0],
    }
    for name, values in seen.items():
        assert abs(np.median(made[name] - values)) < 0.02, name
    warm = star["Teff"] > 4800
    for part in (warm, ~warm):
        for name, values in seen.items():
            assert abs(np.median((made[name] - values)[part])) < 0.03, name


def calibrated(coefficients: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Flux by gaiaxpy.calibrate (N, L) and its wavelengths (L,) in nm."""
    import pandas as pd

    package = real_stars.gaiaxpy()
    frame = pd.DataFrame({"source_id": np.arange(len(coefficients))})
    for band, part in (("bp", coefficients[:, :55]), ("rp", coefficients[:, 55:])):
        frame[f"{band}_coefficients"] = list(part)
        frame[f"{band}_coefficient_errors"] = [np.full(55, 1e-3)] * len(part)
        frame[f"{band}_coefficient_correlations"] = [np.zeros(55 * 27)] * len(part)
        frame[f"{band}_n_parameters"] = 55
        frame[f"{band}_n_relevant_bases"] = 55
        frame[f"{band}_standard_deviation"] = 1.0
        frame[f"{band}_basis_function_id"] = {"bp": 56, "rp": 57}[band]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made, wavelength = package.calibrate(frame, save_file=False)
    return np.stack(made["flux"].to_numpy()), np.asarray(wavelength)


def test_gaiaxpys_calibration_recovers_the_input_spectrum() -> None:
    """Without noise, with dust, at the resolution of calibrated spectra."""
    simulator = simulated.simulator()
    stars = simulator.draw(1500, seed=21).columns
    mild = stars["ebv"] < 0.3
    physics = {name: stars[name][mild] for name in ("m_h", "teff", "logg")}
    ebv, r_v = TRUE_PER_SFD * stars["ebv"][mild], stars["r_v"][mild]
    models = simulator.atmospheres
    log_flux = models.log_flux(**physics) - 0.921034 * models.extinction(ebv, r_v)
    flux = torch.exp(log_flux).double().numpy()
    level = torch.zeros(len(ebv))
    seen, _, _ = simulator.spectra(**physics, log_l=level, distance=level + 1, ebv=ebv, r_v=r_v)
    calibrator = calibration(DR3)
    smooth = instrument_fit.merged_resolution(
        calibrator, models.wavelength, shipped("grids") / "instrument"
    )
    back, wavelength = calibrated(seen.double().numpy()[:50])
    np.testing.assert_allclose(wavelength, calibrator.wavelengths)
    dilution = np.exp(atmospheres.dilution(level, physics["teff"], level + 1).double().numpy())
    went_in = (flux * dilution[:, None]) @ smooth.T
    by_matrix = seen.double().numpy() @ instrument_fit.design_matrix(calibrator).T
    np.testing.assert_allclose(by_matrix[:50], back, rtol=1e-6, atol=1e-25)
    off = (by_matrix / went_in - 1)[:, (wavelength >= 400) & (wavelength <= 950)]
    red = off[:, 25:]  # from 450 nm
    assert np.median(np.abs(off)) < 0.005
    assert off.std() < 0.01
    assert red.std() < 0.007
    assert (np.abs(off) < 0.01).mean() > 0.85
    assert (np.abs(red) < 0.01).mean() > 0.9
    assert np.abs(np.median(off, axis=0)).max() < 0.035
    assert np.abs(np.median(red, axis=0)).max() < 0.018


def test_the_shipped_matrix_is_close_to_the_published_instrument() -> None:
    """Without corrections the published tables give the low coefficients to 15 %."""
    models = grid()
    shipped_matrix = simulated.simulator().instrument.xp.numpy().T
    flux = np.exp(models.log_flux[5, 4:12, 5].astype(np.float64))
    start = 0
    for band in instrument.BANDS:
        plain = instrument.band_matrix(band, models.wavelength, shipped("grids") / "instrument")
        rows = shipped_matrix[start : start + len(plain)]
        made, theirs = flux @ plain.T, flux @ rows.T
        scale = theirs[:, :1] / made[:, :1]
        assert scale.std() / scale.mean() < 0.02
        off = (made * scale - theirs)[:, 1:4] / theirs[:, :1]
        assert np.abs(off).max() < 0.15
        start += len(plain)


@pytest.mark.parametrize("band", instrument.BANDS, ids=lambda band: band.name)
def test_the_published_instrument_counts_photons_and_not_energy(band: instrument.Band) -> None:
    """GaiaXPy's calibration, made elsewhere, requires a response correction that has no trend with
    wavelength; without the photon weight it would be proportional to the wavelength."""
    models = grid()
    factor = instrument_fit.response_correction(
        band, models.wavelength, instrument_fit.giant_models(models)[::5], calibration(DR3),
        shipped("grids") / "instrument",
    )  # fmt: skip
    low, high = instrument_fit.SINGLE_BAND_RANGE[band.name]
    inside = (models.wavelength > low + 10) & (models.wavelength < high - 10)
    slope = np.polyfit(np.log(models.wavelength[inside]), np.log(factor[inside]), 1)[0]
    assert abs(slope) < 0.15


def test_hermite_functions_are_orthonormal() -> None:
    x = np.arange(-20, 20, 0.01)
    waves = instrument.hermite(60, x)
    np.testing.assert_allclose(waves @ waves.T * 0.01, np.eye(60), atol=1e-9)


def test_an_instrument_for_other_wavelengths_is_refused() -> None:
    with pytest.raises(CatalogprocError, match="other wavelengths"):
        instrument.load_instrument(np.linspace(400, 900, 500))


def test_simulated_and_real_spectra_overlap_at_the_same_colour() -> None:
    found = compare_with_real.compare(
        simulated.real(), compare_with_real.field(simulated.simulator(), 12_000, 1)
    )
    assert found.stars > 1200
    assert np.abs(found.shift).max() < 0.55
    assert (np.abs(found.shift) < 0.5).mean() > 0.94
    assert found.ratio.min() > 0.6
    assert found.ratio.max() < 1.8


def test_medians_are_close_to_those_of_400000_real_giants() -> None:
    """Medians and scatters of the training set of Leung & Bovy (2024), a different sample."""
    path = DATA / "lb24_training_statistics.csv"
    lines = [line.split(",") for line in path.read_text().splitlines()[1:]]
    theirs = {name: (float(median), float(scatter)) for name, median, scatter in lines}
    from catalogproc.vocabulary import load_vocabulary

    vocabulary = load_vocabulary()
    values, _ = simulated.giants().tokens(vocabulary)
    names = [f"{band}{i}" for band in ("bp", "rp") for i in range(12)] + ["bprp", "jh", "jk"]
    median = np.nanmedian(values.double().numpy()[:, vocabulary.columns(names)], axis=0)
    off = np.array(
        [(own - theirs[n][0]) / theirs[n][1] for n, own in zip(names, median, strict=True)]
    )
    assert np.abs(off[[0, 1, 12, 13, 24, 25, 26]]).max() < 0.4
    assert np.median(np.abs(off)) < 0.35
    assert np.abs(off).max() < 1.3


def test_a_comparison_gives_a_table_and_a_plot(tmp_path: Path) -> None:
    sample = compare_with_real.giants(simulated.simulator(), 4000, 2)
    found = compare_with_real.compare(simulated.real(), sample, faintest=15.0)
    assert found.markdown().count("\n") == 2 * compare_with_real.FIRST + 1
    found.plot(tmp_path / "comparison.png")
    assert (tmp_path / "comparison.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_the_shipped_instrument_is_reproduced_from_the_real_spectra() -> None:
    grids = shipped("grids")
    fitted = build_grids.fit_instrument(simulated.real(), grids)
    with np.load(grids / "xp_instrument.npz") as file:
        scale = np.abs(file["matrix"]).max(axis=1, keepdims=True)
        np.testing.assert_allclose(fitted.matrix / scale, file["matrix"] / scale, atol=1e-4)
    made = (fitted.matched_flux @ fitted.matrix.T - simulated.real().normalised[0][fitted.stars])[
        :, np.r_[:20, 55:75]
    ]
    seen = simulated.real().normalised[0][fitted.stars][:, np.r_[:20, 55:75]]
    spread = 1.4826 * np.median(np.abs(seen - np.median(seen, 0)), 0)
    # Star by star: the matched model gives the star's real coefficients.
    assert np.abs(np.median(made / spread, axis=0)).max() < 0.8
