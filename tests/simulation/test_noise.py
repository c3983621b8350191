"""Simulated errors compared with real ones: level, shape, correlation, relevance, calibration."""

from __future__ import annotations

import numpy as np
import torch
from support import real_stars, simulated
from support.paths import CORRELATED

from catalogproc.features.spectra import correlation_matrix
from catalogproc.resources import shipped
from catalogproc.simulation import build_grids, noise


def like_the_real_ones(copies: int = 3) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Errors over the G flux and relevant bases for stars of the real stars' G and colour."""
    real = simulated.real()
    kept = np.tile(np.flatnonzero((real.bp_rp > 0.7) & (real.bp_rp < 2.0)), copies)
    g, colour = (torch.tensor(x[kept], dtype=torch.float32) for x in (real.g, real.bp_rp))
    random = torch.Generator().manual_seed(1)
    errors, relevant = noise.load_noise().errors(g, colour, random)
    return errors.double().numpy(), relevant.numpy(), kept


def test_errors_have_the_median_and_scatter_of_real_ones() -> None:
    errors, _, kept = like_the_real_ones()
    real = simulated.real()
    seen = real.normalised[1]
    for low, high in ((9.0, 12.5), (12.5, 14.5), (14.5, 16.0), (16.0, 17.0), (17.0, 17.7)):
        made_at = (real.g[kept] > low) & (real.g[kept] < high)
        at = (real.g > low) & (real.g < high) & (real.bp_rp > 0.7) & (real.bp_rp < 2.0)
        for part in (slice(0, 55), slice(55, 110)):
            one, other = np.log(errors[made_at][:, part]), np.log(seen[at][:, part])
            ratio = np.median(one, axis=0) - np.median(other, axis=0)
            assert np.abs(np.median(ratio)) < 0.03, (low, part)
            assert np.abs(ratio).max() < 0.2, (low, part)
            width = [np.subtract(*np.quantile(x, (0.84, 0.16), axis=0)) for x in (one, other)]
            assert 0.75 < np.median(width[0] / width[1]) < 1.3, (low, part)


def test_numbers_of_relevant_bases_are_those_of_real_stars() -> None:
    _, relevant, kept = like_the_real_ones()
    real = simulated.real()
    for low, high in ((10.0, 13.0), (13.0, 15.0), (15.0, 16.5), (16.5, 17.7)):
        made_at = (real.g[kept] > low) & (real.g[kept] < high)
        at = (real.g > low) & (real.g < high) & (real.bp_rp > 0.7) & (real.bp_rp < 2.0)
        for band in (0, 1):
            one, other = relevant[made_at][:, band], real.relevant[at][:, band]
            for share in (0.25, 0.5, 0.75):
                found, wanted = np.quantile(one, share), np.quantile(other, share)
                assert abs(found - wanted) <= max(2, 0.3 * wanted), (low, band, share)


def test_bright_stars_beyond_the_sample_have_errors_like_the_bright_ones() -> None:
    """The 30 stars of G 6 to 8 are another sample, not used for the errors' level."""
    table = real_stars.bright()
    made = real_stars.gaiaxpy_magnitudes(table)
    g = torch.tensor(made["G"], dtype=torch.float32)
    colour = torch.tensor(made["BP"] - made["RP"], dtype=torch.float32)
    drawn, _ = noise.load_noise().errors(g, colour, torch.Generator().manual_seed(2))
    flux = 10 ** (0.4 * (25.6873668671 - made["G"]))[:, None]
    seen = np.concatenate(
        [real_stars.stacked(table, f"{b}_coefficient_errors") for b in ("bp", "rp")], 1
    )
    ratio = np.log(drawn.double().numpy() / (seen / flux))
    assert abs(np.median(ratio[:, :30])) < 0.5
    assert abs(np.median(ratio[:, 55:85])) < 0.5


def test_noise_is_correlated_as_in_the_real_stars() -> None:
    model = noise.load_noise()
    draws = model.spectra(torch.ones(60_000, 110), torch.Generator().manual_seed(3))
    found = np.corrcoef(draws.double().numpy().T)
    table = real_stars.bright()
    for start, band in ((0, "bp"), (55, "rp")):
        packed = real_stars.stacked(table, f"{band}_coefficient_correlations")
        wanted = correlation_matrix(packed).mean(0)
        np.testing.assert_allclose(
            found[start : start + 55, start : start + 55], wanted, atol=0.025
        )
        assert np.abs(wanted - np.eye(55)).max() > 0.3  # there is something to reproduce
    assert np.abs(found[:55, 55:]).max() < 0.025
    np.testing.assert_allclose(draws.std(0), 1.0, atol=0.02)


def test_high_coefficients_of_real_stars_scatter_by_their_published_errors() -> None:
    """Why noise is drawn with the published errors, uninflated: real stars' high coefficients,
    that hold no signal, scatter by as much as their errors say."""
    real = simulated.real()
    values, errors = real.normalised
    faint = (real.g > 15.5) & (real.bp_rp > 0.8) & (real.bp_rp < 1.2)
    for columns in (slice(30, 55), slice(85, 110)):
        z = (values / errors)[faint][:, columns]
        scatter = 1.4826 * np.median(np.abs(z - np.median(z, axis=0)), axis=0)
        assert 0.9 < np.median(scatter) < 1.1


def test_simulated_coefficients_scatter_by_their_errors() -> None:
    stars = simulated.giants()
    flux = 10 ** (0.4 * (25.6873668671 - stars["g_mag"][:, None]))
    values, errors = (
        (stars[name] / flux).double().numpy() for name in ("coefficients", "coefficient_errors")
    )
    faint = ((stars["g_mag"] > 16) & (stars["ebv"] < 0.3)).numpy()
    for columns in (slice(40, 55), slice(95, 110)):
        z = (values / errors)[faint][:, columns]
        scatter = 1.4826 * np.median(np.abs(z - np.median(z, axis=0)), axis=0)
        assert 0.9 < np.median(scatter) < 1.15


def test_calibration_errors_are_smooth_and_of_published_size() -> None:
    wavelength = simulated.simulator().atmospheres.wavelength
    modes = noise.calibration_modes(wavelength).double().numpy()
    size = np.sqrt((modes**2).sum(0))
    at = [int(np.argmin(np.abs(wavelength - x))) for x in (380, 450, 550, 700, 900)]
    assert (size[at] < 0.03).all()
    assert (size[at] > 0.004).all()
    assert size[at[0]] > 2 * size[at[3]]
    # Ten nanometres apart they are the same, two hundred apart they are not.
    near, far = (int(np.argmin(np.abs(wavelength - x))) for x in (710, 900))
    here = at[3]
    covariance = modes.T @ modes
    assert covariance[here, near] / (size[here] * size[near]) > 0.95
    assert abs(covariance[here, far]) / (size[here] * size[far]) < 0.1


def test_2mass_and_parallax_errors_are_those_of_kepler_giants() -> None:
    stars = real_stars.kepler()
    for i, name in enumerate(("j", "h", "k")):
        wanted = np.nanmedian(stars[f"{name}_msigcom"])
        found = noise.tmass_errors(torch.full((1, 3), 9.5))[0, i]
        assert abs(found - wanted) < 0.004, name
    g = torch.full((4000,), 12.0)
    found = noise.parallax_error(g, torch.Generator().manual_seed(4))
    # Kepler's field was scanned more often than most of the sky.
    assert 1.0 < found.median() / np.nanmedian(stars["parallax_error"]) < 1.7
    for magnitude, wanted in ((15.0, 0.027), (17.0, 0.07)):
        drawn = noise.parallax_error(torch.full((4000,), magnitude), torch.Generator())
        assert abs(float(drawn.median()) / wanted - 1) < 0.1


def test_the_shipped_noise_is_reproduced_from_the_real_spectra() -> None:
    made = build_grids.fit_noise(
        simulated.real(), build_grids.read_correlations(CORRELATED / "xp_continuous_30.parquet")
    )
    with np.load(shipped("grids") / "xp_noise.npz", allow_pickle=False) as file:
        assert set(file.files) == set(made)
        for name in ("coefficients", "relevant", "place", "factor"):
            np.testing.assert_allclose(made[name], file[name], atol=2e-5, err_msg=name)
        # Components are fixed up to their sign.
        products = made["scores"] @ made["components"], file["scores"] @ file["components"]
        np.testing.assert_allclose(*products, atol=1e-4)
