"""Simulated giants: reproducible, physical, and written according to the input contract."""

from __future__ import annotations

import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from support import simulated

from catalogproc.features.extinction import g_extinction
from catalogproc.features.tokens import tokens
from catalogproc.job import Job
from catalogproc.release import load_release
from catalogproc.simulation import isochrones
from catalogproc.simulation.simulated_stars import source_ids
from catalogproc.simulation.simulator import write_stars
from catalogproc.vocabulary import BASES, load_vocabulary

DR3 = load_release("dr3")

INPUTS = ("bprp", "jh", "jk", "logebv", "g_fakemag")


def columns(*names: str) -> list[np.ndarray]:
    stars = simulated.giants()
    return [stars[name].numpy().astype(np.float64) for name in names]


def test_the_same_seed_gives_the_same_stars() -> None:
    one, same, other = (simulated.simulator().draw(300, seed).columns for seed in (3, 3, 4))
    for name, values in one.items():
        assert torch.equal(values.nan_to_num(-1), same[name].nan_to_num(-1)), name
    assert not torch.equal(one["teff"], other["teff"])


def test_lower_matrix_precision_of_a_training_changes_nothing() -> None:
    expected = simulated.simulator().draw(300, 3)["coefficients"]
    torch.set_float32_matmul_precision("medium")
    try:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found = simulated.simulator().draw(300, 3)["coefficients"]
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision("highest")
    # Only the product of the noise may have lower precision.
    assert torch.allclose(found, expected, rtol=1e-5)


def test_true_parameters_are_within_limits_and_not_on_grid_points() -> None:
    stars = simulated.giants()
    limits = {
        "logg": isochrones.LOGG,
        "teff": isochrones.TEFF,
        "m_h": isochrones.M_H,
        "log_age": (8.0, 10.1001),
        "mass": (0.4, 8.0),
        "g_mag": (5.9, 17.6),
        "ebv": (0.0, 2.5),
        "r_v": (2.8, 3.4),
        "distance": (0.03, 60.0),
    }
    for name, (low, high) in limits.items():
        assert low <= stars[name].min(), name
        assert stars[name].max() <= high, name
    for name in ("logg", "teff", "m_h", "log_age", "mass", "ebv", "distance"):
        assert len(torch.unique(stars[name])) > 0.95 * len(stars), name  # float32 repeats a few
    for name in ("coefficients", "coefficient_errors"):
        assert torch.isfinite(stars[name]).all(), name
    assert (stars["coefficient_errors"] > 0).all()


def test_luminosity_follows_from_mass_gravity_and_temperature() -> None:
    mass, logg, teff, log_l = columns("mass", "logg", "teff", "log_l")
    # L = 4 pi G M sigma T^4 / g with the Sun's log g = 4.438 and 5772 K (IAU 2015).
    expected = np.log10(mass) + 4 * np.log10(teff / 5772) - (logg - 4.438)
    assert np.abs(np.median(log_l - expected)) < 0.005
    assert np.quantile(np.abs(log_l - expected), 0.99) < 0.02


def test_the_red_clump_has_its_observed_position() -> None:
    phase, mass, m_h, logg, teff, log_l = columns("phase", "mass", "m_h", "logg", "teff", "log_l")
    clump = (phase == 3) & (mass < 1.6) & (np.abs(m_h) < 0.3)
    assert 2.3 < np.median(logg[clump]) < 2.55
    assert 1.6 < np.median(log_l[clump]) < 1.85  # Girardi (2016)
    assert 4550 < np.median(teff[clump]) < 4950
    rc_prob = simulated.giants()["rc_prob"].numpy()
    assert np.array_equal(rc_prob, (phase == 3).astype(np.float32))
    # Of stars at the clump's gravity, most are core-helium stars; elsewhere few.
    near = (np.abs(logg - 2.42) < 0.1) & (np.abs(m_h) < 0.3)
    apart = (np.abs(logg - 3.1) < 0.1) & (np.abs(m_h) < 0.3)
    assert (phase[near] == 3).mean() > 0.6
    assert (phase[apart] == 3).mean() < 0.1


def test_metal_poor_giant_branches_are_hotter() -> None:
    phase, m_h, logg, teff, mass = columns("phase", "m_h", "logg", "teff", "mass")
    branch = (phase == 2) & (np.abs(logg - 2.5) < 0.15) & (mass < 1.3)
    edges = np.array([-2.0, -1.2, -0.7, -0.3, 0.0, 0.3])
    typical = [
        np.median(teff[branch & (m_h > low) & (m_h < high)]) for low, high in pairwise(edges)
    ]
    assert (np.diff(typical) < -60).all()
    # The solar branch, as Zhang, Bu et al. (2026) have it: 5200 K - 441 K (3.65 - log g); that of
    # PARSEC is 130 K cooler, as its authors know.
    solar = (phase == 2) & (np.abs(m_h) < 0.1) & (logg > 1.5) & (logg < 3.3)
    assert np.abs(np.median(teff[solar] - (5200 - 441 * (3.65 - logg[solar])))) < 170


def test_old_giants_have_low_masses_reduced_by_mass_loss() -> None:
    mass, log_age, phase, m_h = columns("mass", "log_age", "phase", "m_h")
    giants = (phase >= 2) & (np.abs(m_h) < 0.3)
    assert np.corrcoef(np.log10(mass[giants]), log_age[giants])[0, 1] < -0.95
    old = giants & (log_age > 10.0)
    # Old clump stars have lost mass on the giant branch.
    assert np.median(mass[old & (phase == 3)]) < np.median(mass[old & (phase == 2)]) - 0.02


def test_isochrones_are_interpolated_at_equal_evolutionary_state() -> None:
    stars = isochrones.load_population()
    m_h = torch.tensor([0.0])
    for phase in isochrones.PHASES:
        ages = torch.linspace(9.3, 10.0, 141)  # fourteen intervals of PARSEC's grid
        found = stars.at(
            m_h.expand_as(ages), ages, torch.full(ages.shape, phase), torch.full(ages.shape, 0.5)
        )
        for name, most in (("teff", 40.0), ("logg", 0.05), ("mass", 0.05)):
            assert found[name].diff().abs().max() < most, (phase, name)


def test_phases_have_their_relative_durations() -> None:
    phase, mass, m_h = columns("phase", "mass", "m_h")
    low = (mass < 1.4) & (np.abs(m_h) < 0.4)
    share = {p: (phase[low] == p).mean() for p in isochrones.PHASES}
    # Core helium burning lasts 100 Myr, the early AGB about 10 Myr of that.
    assert 0.03 < share[4] / share[3] < 0.25
    assert share[2] > share[3] > share[4]


@pytest.mark.parametrize("basis", BASES)
def test_tokens_from_files_equal_direct_tokens(tmp_path: Path, basis: str) -> None:
    vocabulary = load_vocabulary(basis=basis)
    stars = simulated.simulator().draw(4000, seed=11)
    paths = write_stars(stars, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(p.name for p in paths)
    spectra, source, truth = (pq.read_table(path) for path in paths)
    read = tokens(spectra, source, vocabulary, Job("test", inputs=INPUTS, coefficients=99))
    values, errors = (matrix.double().numpy() for matrix in stars.tokens(vocabulary))
    at = vocabulary.columns([*vocabulary.named("coefficient"), *INPUTS])
    missing = np.isnan(values[:, at])
    np.testing.assert_array_equal(np.isnan(read.values[:, at])[:, :-1], missing[:, :-1])
    # A parallax whose zero-point or ruwe is out of range is not read from files.
    lost = (np.isnan(read.values[:, at]) & ~missing)[:, -1]
    assert lost.mean() < 0.02
    both = ~missing & ~np.isnan(read.values[:, at])
    off = np.abs(read.values[:, at] - values[:, at]) / errors[:, at]
    assert off[both].max() < 0.02
    ratio = read.errors[:, at][both] / errors[:, at][both]
    np.testing.assert_allclose(ratio, 1.0, rtol=2e-3)
    for name in ("teff", "logg", "m_h", "mass", "log_age"):
        np.testing.assert_allclose(truth[name].to_numpy(), values[:, vocabulary.column(name)])
        assert (errors[:, vocabulary.column(name)] == 0).all()
    assert not read.synthetic.any()
    assert read.values[:, at].shape[1] == 115


def test_tables_have_identifiers_units_and_the_mark_of_simulation(tmp_path: Path) -> None:
    stars = simulated.simulator().draw(500, seed=12)
    spectra, source, truth = (pq.read_table(path) for path in write_stars(stars, tmp_path))
    for other in (source, truth):
        assert spectra["source_id"].equals(other["source_id"])
    assert len(set(spectra["source_id"].to_pylist())) == 500
    assert truth.schema.field("teff").metadata[b"unit"] == b"K"
    assert truth.schema.field("distance").metadata[b"unit"] == b"kpc"
    assert b"not real stars" in spectra.schema.metadata[b"simulated"]
    again = tmp_path / "again"
    for one, two in zip(write_stars(stars, tmp_path), write_stars(stars, again), strict=True):
        assert pq.read_table(one).equals(pq.read_table(two))


def test_identifiers_contain_the_position() -> None:
    ra, dec = np.array([10.0, 10.0, 200.0]), np.array([20.0, 20.0, -60.0])
    found = source_ids(ra, dec, seed=5)
    assert found.dtype == np.int64
    assert len(set(found)) == 3
    assert found[0] >> 35 == found[1] >> 35 != found[2] >> 35


def test_some_stars_lack_parallax_or_2mass_as_in_reality() -> None:
    parallax, j, g = columns("parallax", "j_mag", "g_mag")
    assert 0.02 < np.isnan(parallax).mean() < 0.05
    assert 0.03 < np.isnan(j).mean() < 0.15
    bright = g < 13
    assert np.isnan(j[bright]).mean() < 0.06
    vocabulary = load_vocabulary()
    values, _ = simulated.giants().tokens(vocabulary)
    assert torch.isnan(values[:, vocabulary.column("jh")]).any()


def test_parallax_and_distance_agree_within_the_errors() -> None:
    parallax, error, distance, mg, g = columns("parallax", "e_parallax", "distance", "mg", "g_mag")
    z = (parallax - 1 / distance) / error
    assert 0.97 < np.nanstd(z) < 1.03
    # The apparent magnitude is the absolute one at the distance.
    assert np.abs(g - (mg + 5 * np.log10(distance) + 10)).max() < 0.02


def test_dust_dims_simulated_stars_by_the_true_colour_excess() -> None:
    """A_G of the stars against the published law for their E(B-V) on the SFD scale, another curve;
    the SFD value taken for the true E(B-V) would give 13 % more."""
    stars = simulated.giants()
    used = (stars["ebv"] > 0.2) & (stars["ebv"] < 0.6)
    physics = {n: stars[n][used] for n in ("m_h", "teff", "logg", "log_l", "distance", "r_v")}
    _, gaia, _ = simulated.simulator().spectra(**physics, ebv=torch.zeros(int(used.sum())))
    absolute = gaia[:, 0] - 5 * torch.log10(physics["distance"]) - 10
    found = (stars["mg"][used] - absolute).double().numpy()
    ebv, teff = (stars[name][used].double().numpy() for name in ("ebv", "teff"))
    assert abs(np.median(found / g_extinction(ebv, teff, DR3)) - 1) < 0.06


def test_more_than_2000_stars_per_second_are_simulated() -> None:
    start = time.process_time()
    simulated.simulator().draw(8000, seed=1).tokens(load_vocabulary())
    # A twentieth of the measured rate, so that a busy machine passes.
    assert 8000 / (time.process_time() - start) > 2000


@pytest.mark.parametrize("count", [1, 4096, 4097])
def test_any_number_of_stars(count: int) -> None:
    assert len(simulated.simulator().draw(count, seed=2)) == count
