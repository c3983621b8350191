"""The simulator without noise, its noise as a covariance, and posteriors of giants."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from support import simulated as simulated_giants

from catalogproc.datasets.test_sets import Simulated, simulated
from catalogproc.evaluation.importance_sampling import Library, SamplingConfig, posterior
from catalogproc.evaluation.metrics import INPUT_SETS
from catalogproc.evaluation.simulator_posterior import (
    LABELS,
    NoiselessGiants,
    TokenNoise,
    build_giant_library,
    information_limit,
)
from catalogproc.features.extinction import TRUE_PER_SFD
from catalogproc.simulation.simulator import SimulatedStars
from catalogproc.vocabulary import load_vocabulary

VOCABULARY = load_vocabulary()
STARS = 40


@pytest.fixture(scope="module")
def giants() -> NoiselessGiants:
    kinds = ("coefficient", "colour")
    columns = [i for i, token in enumerate(VOCABULARY.tokens) if token.kind in kinds]
    return NoiselessGiants(simulated_giants.simulator(), VOCABULARY, np.array(columns))


@pytest.fixture(scope="module")
def library(giants: NoiselessGiants) -> Library:
    return build_giant_library(giants, 12_000, seed=2)


def test_noiseless_tokens_are_those_of_the_simulator(giants: NoiselessGiants) -> None:
    drawn = giants.simulator.draw(500, seed=4)
    coordinates = torch.stack(
        [drawn[name] for name in ("m_h", "log_age", "place")] + [drawn["ebv"].log(), drawn["r_v"]],
        dim=1,
    )
    tokens, labels = giants(coordinates, drawn["phase"])
    for name in ("teff", "logg", "m_h", "mass", "log_age"):
        torch.testing.assert_close(labels[:, LABELS.index(name)], drawn[name], rtol=1e-5, atol=1e-5)
    # At its own distance, with the same dust, the star has the same flux ratios.
    _, gaia, tmass = giants.simulator.spectra(
        drawn["m_h"], drawn["teff"], drawn["logg"], drawn["log_l"], drawn["distance"],
        TRUE_PER_SFD * drawn["ebv"], drawn["r_v"],
    )  # fmt: skip
    _, colour = giants.token_positions()
    torch.testing.assert_close(
        tokens[:, colour["bprp"]], gaia[:, 1] - gaia[:, 2], rtol=0, atol=2e-4
    )
    torch.testing.assert_close(
        tokens[:, colour["jk"]], tmass[:, 0] - tmass[:, 2], rtol=0, atol=2e-4
    )
    absolute = gaia[:, 0] - 5 * drawn["distance"].log10() - 10
    luminosity = labels[:, LABELS.index("g_fakemag")]
    torch.testing.assert_close(luminosity, 10 ** (0.2 * absolute + 2), rtol=1e-3, atol=0)
    # The simulated star has calibration faults too, of about one per cent.
    seen, errors = drawn.tokens(VOCABULARY)
    at = VOCABULARY.column("bp0")
    off = seen[:, at] / tokens[:, list(giants.columns).index(at)] - 1
    assert 0.002 < 1.4826 * off.abs().median() < 0.02
    assert errors[:, at].isfinite().any()


def test_tokens_are_nan_outside_the_range_of_the_simulator(giants: NoiselessGiants) -> None:
    # The tip of an old metal-rich giant branch is cooler than 3500 K.
    tip = torch.tensor([[0.45, 10.0, 1.0, -3.0, 3.1], [0.0, 9.7, 0.3, -3.0, 3.1]])
    tokens, _ = giants(tip, torch.tensor([2, 2]))
    assert tokens[0].isnan().all()
    assert tokens[1].isfinite().all()


@pytest.mark.parametrize("g", [11.0, 16.0])
def test_the_covariance_is_that_of_simulated_noise(
    giants: NoiselessGiants, library: Library, g: float
) -> None:
    """One giant, observed 3000 times with the simulator's own code."""
    n, simulator = 3000, giants.simulator
    star = int(torch.nonzero((library.kind == 2) & (library.labels[:, 0] > 4600))[0])
    m_h, log_age, place, ln_ebv, r_v = library.coordinates[star].expand(n, -1).unbind(1)
    state = simulator.population.at(m_h, log_age, library.kind[star].expand(n), place)
    random = torch.Generator().manual_seed(6)
    z = torch.randn(n, len(simulator.calibration_modes), generator=random)
    coefficients, gaia, tmass = simulator.spectra(
        m_h, state["teff"], state["logg"], state["log_l"], torch.full((n,), 1.0),
        TRUE_PER_SFD * ln_ebv.exp(), r_v, z @ simulator.calibration_modes,
    )  # fmt: skip
    shift = g - gaia[:, :1]
    columns = simulator._photometry(gaia + shift, tmass + shift, random)
    columns |= simulator._noisy_spectra(coefficients * 10 ** (-0.4 * shift), gaia + shift, random)
    columns |= {"n_bp_relevant": torch.full((n,), 55), "n_rp_relevant": torch.full((n,), 55)}
    unknown = torch.full((n,), torch.nan)
    others = ("teff", "logg", "m_h", "mass", "log_age", "parallax", "e_parallax")
    columns |= dict.fromkeys((*others, "ln_ebv_seen", "e_ln_ebv"), unknown)
    values, errors = (
        matrix.numpy()[:, giants.columns]
        for matrix in SimulatedStars(columns, simulator.instrument.n_bp, 0).tokens(VOCABULARY)
    )
    whole = np.isfinite(values).all(axis=1)
    values, errors = values[whole], errors[whole]
    found = np.cov(values.T.astype(float))
    typical = np.sqrt(np.mean(errors.astype(float) ** 2, axis=0, keepdims=True))
    stated = TokenNoise(library, giants, values.mean(axis=0, keepdims=True), typical)(0)
    spectrum, colour = giants.token_positions()
    low = np.concatenate([at[:25] for at in spectrum.values()] + [list(colour.values())])
    low = low.astype(int)
    ratio = np.sqrt(np.diag(found)[low] / np.diag(stated)[low])
    assert np.abs(np.log(ratio)).max() < 0.08
    one, other = (
        m[np.ix_(low, low)] / np.sqrt(np.outer(np.diag(m)[low], np.diag(m)[low]))
        for m in (found, stated)
    )
    assert np.abs(one - other).max() < 0.15
    assert np.abs(one - other).mean() < 0.03
    # For such bright stars the calibration faults, smooth in wavelength, dominate.
    off_diagonal = other[~np.eye(len(low), dtype=bool)]
    assert np.abs(off_diagonal).max() > (0.7 if g < 13 else 0.4)


def test_posteriors_of_giants_are_calibrated_and_informative(
    giants: NoiselessGiants, library: Library
) -> None:
    stars = simulated(Simulated(STARS, 77), VOCABULARY)
    limits = {}
    for name in ("b", "c"):
        given = INPUT_SETS[name].select(stars.values, VOCABULARY)
        limits[name] = information_limit(library, giants, given, stars.errors)
    truth = stars.truth[:, VOCABULARY.columns(LABELS)]
    z = (limits["b"].mean - truth) / limits["b"].sigma
    # The standard deviation of 40 stars is uncertain by 11 %; the posteriors are skewed too.
    assert (z.std(axis=0) > 0.7).all()
    assert (z.std(axis=0) < 1.5).all()
    assert (np.abs(np.median(z, axis=0)) < 0.5).all()
    # More coefficients give smaller sigmas, in the mean over stars.
    gain = np.mean(np.log(limits["c"].sigma / limits["b"].sigma), axis=0)
    assert (gain > 0).all()
    assert gain[LABELS.index("m_h")] > 0.1
    # Sigmas are smaller than those of the prior.
    prior = library.labels.double().std(0).numpy()
    for label, least in (("teff", 3), ("logg", 2), ("m_h", 3), ("logebv", 4)):
        k = LABELS.index(label)
        assert np.median(limits["b"].sigma[:, k]) < prior[k] / least
    assert np.median(limits["b"].effective) > 100


def test_library_and_second_stage_agree(giants: NoiselessGiants, library: Library) -> None:
    """For stars with two colours both stages give the same posterior."""
    stars = simulated(Simulated(400, 78), VOCABULARY)
    colours = np.full_like(stars.values, np.nan)
    at = VOCABULARY.columns(("jh", "jk"))
    colours[:, at] = stars.values[:, at]
    rows = np.flatnonzero(np.isfinite(colours[:, at]).all(axis=1))[:15]
    used = np.flatnonzero(np.isin(giants.columns, at))
    selected = NoiselessGiants(giants.simulator, VOCABULARY, giants.columns[used])
    part = library.select_tokens(used, selected)
    x, e = colours[rows][:, selected.columns], stars.errors[rows][:, selected.columns]
    noise = TokenNoise(part, selected, x, e)
    from_library, refined = (
        posterior(part, x, noise, SamplingConfig(min_effective=least, patches=12_000, samples=4096))
        for least in (1.0, np.inf)
    )
    assert np.median(from_library.library) > 1000
    known = from_library.library > 300
    difference = np.abs(from_library.mean - refined.mean)[known] / from_library.sigma[known]
    assert difference.max() < 0.35
    assert np.median(difference) < 0.06
    assert np.abs(np.log(from_library.sigma / refined.sigma))[known].max() < 0.3
