"""Simulated giants corrected by real ones: the fit, [alpha/Fe], and the even population."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch

from catalogproc.datasets.spectral_correction_fit import RealGiants, _Simulation, fit_correction
from catalogproc.simulation.alpha_elements import iron_abundance
from catalogproc.simulation.simulated_stars import SimulatedStars
from catalogproc.simulation.simulator import Simulator
from catalogproc.simulation.spectral_correction import (
    LABELS,
    SpectralCorrection,
    load_correction,
    polynomial_terms,
)
from catalogproc.vocabulary import load_vocabulary


@cache
def drawn(corrected: bool) -> SimulatedStars:
    return Simulator(corrected=corrected).draw(6000, 5)


@pytest.fixture(scope="module")
def shipped() -> SpectralCorrection:
    return load_correction((400.0, 550.0, 700.0, 1500.0))


def test_the_fit_recovers_a_known_difference_and_keeps_dust_and_faults_apart() -> None:
    """Giants made brighter with [alpha/Fe] at long wavelengths; their stated E(B-V) has errors."""
    random = np.random.default_rng(3)
    n = 1500
    labels = np.stack(
        [random.uniform(low, high, n) for low, high in
         ((4000, 5400), (0.8, 3.4), (-1.2, 0.3), (-0.05, 0.35), (0.02, 0.5))], axis=1
    )  # fmt: skip
    simulation = _Simulation()
    terms = torch.zeros(polynomial_terms(torch.from_numpy(labels[:1])).shape[1], 343).double()
    terms[4] = 0.04 * torch.from_numpy(simulation.wavelengths > 600)  # 0.4 per dex of [alpha/Fe]
    limits = (torch.from_numpy(edge(labels, axis=0)) for edge in (np.min, np.max))
    known = SpectralCorrection(*limits, terms, torch.zeros(len(terms), 3).double())
    flux, gaia, tmass = simulation.observe(labels, known)
    e_ebv = np.full(n, 0.04)
    stated = labels.copy()
    stated[:, -1] += e_ebv * random.standard_normal(n)
    giants = RealGiants(flux, tmass - gaia[:, :1] + 0.05, stated, e_ebv, np.arange(n) % 5)
    fit = fit_correction(giants, giants.fold != 4)
    found = simulation.observe(labels, fit.correction)[0]
    inner = (simulation.wavelengths > 450) & (np.abs(simulation.wavelengths - 600) > 30)
    uncorrected = simulation.observe(labels, replace(known, flux=0 * terms))[0]
    before, after = (np.std((x / flux - 1)[:, inner]) for x in (uncorrected, found))
    assert before > 0.02
    assert after < 0.35 * before
    shift = fit.correction(torch.from_numpy(labels))[1].numpy()
    assert np.median(np.abs(shift - 0.05)) < 0.01
    # Without the fit of E(B-V) its errors would scatter the blue flux by 5 %.
    blue = (simulation.wavelengths > 450) & (simulation.wavelengths < 500)
    assert np.median(fit.after[blue]) < 0.005


def test_labels_beyond_the_fit_have_the_correction_of_its_edge(shipped: SpectralCorrection) -> None:
    edge = torch.stack([shipped.high, shipped.low])
    beyond = edge + torch.tensor([[3000.0, 2.0, 1.0, 1.0, 3.0], [-900.0, -1, -1, -1, -1]])
    for found, expected in zip(shipped(beyond), shipped(edge), strict=True):
        assert torch.allclose(found, expected)
    at = dict(zip(LABELS, shipped.high.tolist(), strict=True))
    assert 5500 < at["teff"] < 8000
    assert at["logg"] <= 3.8


def test_metals_of_the_isochrone_are_iron_and_alpha_elements() -> None:
    stars = drawn(corrected=True)
    # Salaris et al. (1993): 0.2 dex of alpha elements are 0.149 dex in [M/H].
    m_h = torch.zeros(1)
    assert float(m_h - iron_abundance(m_h, m_h + 0.2)) == pytest.approx(0.1387, abs=1e-3)
    alpha, iron = stars["alpha_m"], stars["m_h"]
    thin, thick = stars["component"] == 0, stars["component"] == 1
    # APOGEE's sequences: 0.03 at solar [Fe/H], and 0.28 at [Fe/H] = -0.7 in the thick disk.
    assert float(alpha[thin & (iron.abs() < 0.1)].median()) == pytest.approx(0.03, abs=0.01)
    assert float(alpha[thick & ((iron + 0.7).abs() < 0.1)].median()) == pytest.approx(
        0.26, abs=0.03
    )
    vocabulary = load_vocabulary(basis="canonical")
    values, errors = stars.tokens(vocabulary)
    column = vocabulary.column("alpha_m")
    assert torch.equal(values[:, column], alpha)
    assert (errors[:, column] == 0).all()
    assert drawn(corrected=False).tokens(vocabulary)[0][:, column].isnan().all()


def test_giants_are_spread_evenly_and_keep_their_luminosity() -> None:
    natural, even = drawn(corrected=False), drawn(corrected=True)
    luminous = [float((stars["logg"] < 1.5).float().mean()) for stars in (natural, even)]
    assert luminous[0] < 0.11
    assert luminous[1] > 2 * luminous[0]
    poor = [float((stars["m_h"] < -1.2).float().mean()) for stars in (natural, even)]
    assert poor[1] > 1.5 * poor[0]
    # The scattered Teff comes with the log g of the same mass and luminosity.
    mass, logg, teff, log_l = (even[name].double() for name in ("mass", "logg", "teff", "log_l"))
    expected = torch.log10(mass) + 4 * torch.log10(teff / 5772) - (logg - 4.438)
    assert torch.allclose(log_l, expected, atol=0.02)


def test_the_same_seed_gives_the_same_corrected_stars() -> None:
    one, two = (Simulator(corrected=True).draw(300, 3).columns for _ in range(2))
    assert all(torch.equal(one[name].nan_to_num(-1), two[name].nan_to_num(-1)) for name in one)
