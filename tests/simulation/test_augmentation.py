"""Real stars behind more dust and fainter, against the simulator and against real spectra."""

from __future__ import annotations

import time
from dataclasses import fields

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from support.paths import EXAMPLES

from catalogproc.features import canonical, canonical_tables
from catalogproc.features.extinction import TRUE_PER_SFD, curve
from catalogproc.features.photometry import synthetic_photometry
from catalogproc.features.spectra import g_flux, matrix
from catalogproc.release import load_release
from catalogproc.simulation import augmentation, noise
from catalogproc.simulation.augmentation import ObservedStars, fainter, reddened
from catalogproc.simulation.simulator import Simulator
from catalogproc.vocabulary import BANDS

DR3 = load_release("dr3")

N = 200


def canonical_stars(coefficients: torch.Tensor, magnitudes: torch.Tensor) -> ObservedStars:
    """Stars from coefficients as published, with the errors of G = 13."""
    g = magnitudes[:, 0].double().numpy()
    typical = torch.exp(
        noise.design(torch.full((len(g),), 13.0), magnitudes[:, 1] - magnitudes[:, 2])
        @ noise.load_noise().coefficients
    )
    values = coefficients.double().numpy()
    errors = typical.double().numpy() * g_flux(g, DR3.magnitude("G").zero_point)[:, None]
    both = [{"bp": part[:, :55], "rp": part[:, 55:]} for part in (values, errors)]
    found = canonical.from_coefficients(both[0], both[1])
    arrays = (
        np.concatenate([part[band] for band in BANDS], axis=1)
        / g_flux(g, DR3.magnitude("G").zero_point)[:, None]
        for part in (found.values, found.errors)
    )
    return ObservedStars(
        *map(torch.from_numpy, arrays), magnitudes.double(), torch.full((len(g), 6), 0.003).double()
    )


@pytest.fixture(scope="module")
def dust() -> tuple[torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(2)
    ebv, r_v = torch.rand(2, N, generator=random)
    return 0.05 + 0.95 * ebv, 2.8 + 0.6 * r_v


@pytest.fixture(scope="module")
def pairs(dust: tuple[torch.Tensor, torch.Tensor]) -> tuple[ObservedStars, ObservedStars]:
    """The same simulated giants without and with dust in front of their model atmospheres."""
    random = torch.Generator().manual_seed(1)
    low, high = torch.tensor(
        [[-1.0, 4000.0, 1.0, 1.0, 0.5], [0.3, 5200.0, 3.3, 2.5, 3.0]]
    )[:, :, None]  # fmt: skip
    m_h, teff, logg, log_l, distance = low + (high - low) * torch.rand(5, N, generator=random)
    simulator = Simulator()
    made = []
    for ebv in (torch.zeros(N), TRUE_PER_SFD * dust[0]):
        coefficients, gaia, tmass = simulator.spectra(
            m_h, teff, logg, log_l, distance, ebv, dust[1]
        )
        made.append(canonical_stars(coefficients, torch.cat([gaia, tmass], dim=1)))
    return made[0], made[1]


def test_no_dust_changes_nothing_and_dust_adds_up(
    pairs: tuple[ObservedStars, ObservedStars],
) -> None:
    clear, r_v = pairs[0], torch.full((N,), 3.0)
    none = reddened(clear, torch.zeros(N), r_v)
    for item in fields(ObservedStars):
        before, after = getattr(clear, item.name), getattr(none, item.name)
        assert torch.allclose(before, after, rtol=1e-3, atol=1e-6)
    once = reddened(clear, torch.full((N,), 0.5), r_v)
    twice = reddened(reddened(clear, torch.full((N,), 0.2), r_v), torch.full((N,), 0.3), r_v)
    assert torch.allclose(once.magnitudes, twice.magnitudes, atol=1e-3)
    assert ((once.values - twice.values) / once.errors).abs().median() < 0.05


def test_the_flux_is_multiplied_by_the_extinction(
    pairs: tuple[ObservedStars, ObservedStars], dust: tuple[torch.Tensor, torch.Tensor]
) -> None:
    clear, after = pairs[0], reddened(pairs[0], *dust)
    design = torch.from_numpy(canonical_tables.designs()["both"][0])
    fading = torch.pow(10.0, -0.4 * (after.magnitudes - clear.magnitudes)[:, :1])
    ratio = (after.values @ design.T) * fading / (clear.values @ design.T)
    curves = [curve(augmentation.calibration(DR3).wavelengths, r) for r in dust[1].tolist()]
    wanted = 10 ** (-0.4 * TRUE_PER_SFD * dust[0].numpy()[:, None] * np.stack(curves))
    red = augmentation.calibration(DR3).wavelengths > 450
    assert np.abs(ratio.numpy() / wanted - 1)[:, red].max() < 3e-3


def test_it_agrees_with_dust_before_the_instrument(
    pairs: tuple[ObservedStars, ObservedStars], dust: tuple[torch.Tensor, torch.Tensor]
) -> None:
    clear, direct = pairs
    after = reddened(clear, *dust)
    difference = (after.magnitudes - direct.magnitudes).abs()
    # BP is wide; J of the simulator is coarse in wavelength.
    limit = torch.tensor([0.003, 0.015, 0.003, 0.045, 0.01, 0.01]).double()
    assert (difference.max(dim=0).values < limit).all()
    assert (direct.magnitudes - clear.magnitudes)[:, 0].median() > 0.7
    first = [0, 1, 55, 56]
    off = (after.values - direct.values)[:, first].abs().mean(dim=0)
    assert (off < 0.05 * (direct.values - clear.values)[:, first].abs().mean(dim=0)).all()


def test_errors_behind_dust_are_those_of_the_whole_covariance(
    pairs: tuple[ObservedStars, ObservedStars], dust: tuple[torch.Tensor, torch.Tensor]
) -> None:
    clear, after = pairs[0], reddened(pairs[0], *dust)
    operator = canonical_tables.operators()["both"]
    design = canonical_tables.designs()["both"][0]
    colour = (clear.magnitudes[:, 1] - clear.magnitudes[:, 2]).float()
    published = torch.exp(
        noise.design(torch.full((N,), 13.0), colour) @ noise.load_noise().coefficients
    ).double().numpy()  # fmt: skip
    fading = torch.pow(10.0, -0.4 * (after.magnitudes - clear.magnitudes)[:, 0]).numpy()
    wavelengths = augmentation.calibration(DR3).wavelengths
    ratios = []
    for star in range(0, N, 10):
        extinction = curve(wavelengths, float(dust[1][star]))
        transmission = 10 ** (-0.4 * TRUE_PER_SFD * float(dust[0][star]) * extinction)
        factor = operator.projection @ (published[star][:, None] * operator.factor)
        exact = operator.inverse @ (transmission[:, None] * (design @ factor)) / fading[star]
        ratios.append(after.errors[star].numpy() / np.sqrt(np.square(exact).sum(axis=1)))
    assert np.quantile(ratios, 0.01) > 0.9
    assert np.quantile(ratios, 0.99) < 1.3


def test_fainter_stars_have_the_errors_of_real_stars(
    pairs: tuple[ObservedStars, ObservedStars],
) -> None:
    random = torch.Generator().manual_seed(3)
    far = fainter(pairs[0], torch.full((N,), 16.5), random)
    assert torch.allclose(far.magnitudes[:, 0], torch.full((N,), 16.5).double(), atol=0.01)
    values, errors = [], []
    for path in sorted(EXAMPLES.glob("*.parquet")):
        table = pq.read_table(path)
        read = {
            what: {band: matrix(table[f"{band}_{what}"], 55) for band in BANDS}
            for what in ("coefficients", "coefficient_errors")
        }
        found = canonical.from_coefficients(read["coefficients"], read["coefficient_errors"])
        magnitudes = synthetic_photometry(
            read["coefficients"]["bp"], read["coefficients"]["rp"], DR3
        )
        near = np.abs(magnitudes.g - 16.5) < 0.4
        near &= np.abs(magnitudes.bp - magnitudes.rp - 1.2) < 0.3
        scale = g_flux(magnitudes.g, DR3.magnitude("G").zero_point)[:, None]
        errors.append((np.concatenate([found.errors[b] for b in BANDS], axis=1) / scale)[near])
        values.append(near.sum())
    assert sum(values) > 40
    real = np.median(np.concatenate(errors), axis=0)
    ratio = np.median(far.errors.numpy(), axis=0) / real
    assert np.quantile(ratio, 0.05) > 0.7
    assert np.quantile(ratio, 0.95) < 1.4


def test_the_noise_that_is_drawn_is_the_noise_that_is_stated(
    pairs: tuple[ObservedStars, ObservedStars],
) -> None:
    random = torch.Generator().manual_seed(4)
    near = pairs[0]
    many = ObservedStars(*(getattr(near, item.name).repeat(10, 1) for item in fields(near)))
    far = fainter(many, 15 + 2.65 * torch.rand(10 * N, generator=random), random)
    for after, before, after_error, before_error in (
        (far.values, many.values, far.errors, many.errors),
        (
            far.magnitudes[:, 1:] - far.magnitudes[:, :1], many.magnitudes[:, 1:] -
            many.magnitudes[:, :1], torch.hypot(far.magnitude_errors[:, 1:],
            far.magnitude_errors[:, :1]), torch.hypot(many.magnitude_errors[:, 1:],
            many.magnitude_errors[:, :1]),
        ),
    ):  # fmt: skip
        z = (after - before) / (after_error.square() - before_error.square()).sqrt()
        known = (after_error > 1.001 * before_error).all(dim=1)
        assert known.sum() > N
        spread = z[known].std(dim=0)
        assert ((spread > 0.9) & (spread < 1.1)).all()


def test_a_brighter_magnitude_leaves_a_star_where_it_is(
    pairs: tuple[ObservedStars, ObservedStars],
) -> None:
    random = torch.Generator().manual_seed(5)
    same = fainter(pairs[0], torch.full((N,), 3.0), random)
    for item in fields(ObservedStars):
        assert torch.equal(getattr(same, item.name), getattr(pairs[0], item.name))


def test_the_same_generator_gives_the_same_noise_and_colours_follow(
    pairs: tuple[ObservedStars, ObservedStars],
) -> None:
    wanted = torch.full((N,), 17.0)
    first, second = (fainter(pairs[0], wanted, torch.Generator().manual_seed(6)) for _ in range(2))
    assert torch.equal(first.values, second.values)
    colours, errors = first.colours()
    assert torch.equal(colours[:, 1], first.magnitudes[:, 3] - first.magnitudes[:, 4])
    assert torch.allclose(errors[:, 0], torch.hypot(*first.magnitude_errors[:, 1:3].T))


def test_it_is_fast(pairs: tuple[ObservedStars, ObservedStars]) -> None:
    many = ObservedStars(*(getattr(pairs[0], i.name).repeat(20, 1) for i in fields(ObservedStars)))
    size, random = len(many.values), torch.Generator().manual_seed(7)
    # Of one core: threads that wait for each other on a busy machine count as work.
    threads, best = torch.get_num_threads(), 0.0
    torch.set_num_threads(1)
    try:
        for _ in range(3):
            start = time.process_time()
            reddened(many, torch.full((size,), 0.3), torch.full((size,), 3.1))
            fainter(many, torch.full((size,), 16.5), random)
            best = max(best, size / (time.process_time() - start))
    finally:
        torch.set_num_threads(threads)
    assert best > 20_000
