"""Where a network was taught masses: fitted to a dataset, stored in bundles, set in catalogs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from support.bundles import tiny_bundle
from support.paths import ROOT

from catalogproc.datasets import seismic
from catalogproc.datasets.cross_fit import NEAR_STARS, UNITS
from catalogproc.datasets.giant_labels import atmospheres
from catalogproc.datasets.star_table import StarTable
from catalogproc.flags import load_input_flags
from catalogproc.inference.engine import Engine
from catalogproc.job import Job
from catalogproc.network.bundle import load_bundle
from catalogproc.network.teacher_domain import INPUTS, TeacherDomain
from catalogproc.network.uncertainty_calibration import UncertaintyCalibration
from catalogproc.readers.xp import read_spectra
from catalogproc.training.teacher_domain_fit import NEAR, fit_teacher_domain
from catalogproc.vocabulary import Vocabulary, load_vocabulary

GIANTS = ROOT / "examples" / "giants" / "xp_canonical.parquet"
VOCABULARY = load_vocabulary(basis="canonical")


def labelled(vocabulary: Vocabulary, labels: np.ndarray, mass: np.ndarray) -> StarTable:
    values = np.full((len(labels), len(vocabulary)), np.nan)
    values[:, vocabulary.columns(list(INPUTS))] = labels
    values[:, vocabulary.column("mass")] = mass
    return StarTable(np.arange(len(labels)), values, np.zeros_like(values))


@pytest.fixture(scope="module")
def fitted() -> tuple[TeacherDomain, np.ndarray]:
    """A domain, and the labels of the stars with a mass that it was fitted to."""
    random = np.random.default_rng(5)
    labels = random.normal([4800, 2.5, -0.2, 0.1], [250, 0.5, 0.25, 0.08], (3000, 4))
    mass = np.where(labels[:, 2] > -0.4, 1.2, np.nan)
    labels[0, 3] = np.nan
    domain = fit_teacher_domain(labelled(VOCABULARY, labels, mass), VOCABULARY)
    assert domain is not None
    known = np.isfinite(labels).all(axis=1) & np.isfinite(mass)
    return domain, labels[known]


def test_a_cell_is_in_the_domain_if_enough_masses_are_near_its_centre(
    fitted: tuple[TeacherDomain, np.ndarray],
) -> None:
    domain, taught = fitted
    random = np.random.default_rng(6)
    at = random.uniform([3800, 0.5, -1.5, -0.3], [5800, 4.5, 0.6, 0.5], (4000, 4))
    centre = (np.floor(at / UNITS) + 0.5) * UNITS
    # Every distance, without a tree.
    distance = np.linalg.norm((centre[:, None] - taught) / UNITS, axis=2)
    wanted = (distance < NEAR).sum(axis=1) >= NEAR_STARS
    assert 0.005 < wanted.mean() < 0.5
    assert np.array_equal(domain.covers(at), wanted)


def test_stars_without_labels_or_far_away_are_outside(
    fitted: tuple[TeacherDomain, np.ndarray],
) -> None:
    domain, taught = fitted
    assert domain.covers(taught).mean() > 0.5
    far = np.median(taught, axis=0) + np.array([[0, 0, -1.0, 0], [1e9, 0, 0, 0], [-1e9, 0, 0, 0]])
    assert not domain.covers(far).any()
    for missing in range(4):
        star = np.median(taught, axis=0)[None].copy()
        assert domain.covers(star).all()
        star[0, missing] = np.nan
        assert not domain.covers(star).any()


def test_no_domain_without_masses() -> None:
    labels = np.tile([4800.0, 2.5, -0.2, 0.1], (20, 1))
    assert fit_teacher_domain(labelled(VOCABULARY, labels, np.full(20, np.nan)), VOCABULARY) is None


def test_a_bundle_keeps_its_domain(
    fitted: tuple[TeacherDomain, np.ndarray], tmp_path: Path
) -> None:
    stored = UncertaintyCalibration(teacher_domain=fitted[0])
    (tmp_path / "latent.safetensors").write_bytes(stored.arrays() or b"")
    found = UncertaintyCalibration.from_dict(stored.to_dict(), tmp_path).teacher_domain
    assert found is not None
    for name, wanted in vars(fitted[0]).items():
        assert np.array_equal(getattr(found, name), wanted)


def test_the_flag_of_real_giants_is_that_of_their_predicted_labels() -> None:
    bundle, bit = load_bundle("default"), load_input_flags()["TEACHER_DOMAIN"].value
    spectra = pa.Table.from_batches(read_spectra(GIANTS)).slice(0, 300)
    job = Job("test", labels=("teff", "logg", "m_h", "alpha_m", "mass"), inputs=("bprp",))
    made = Engine(bundle, job).process(spectra)
    labels = np.stack([made.column(name).to_numpy() for name in INPUTS], axis=1)
    domain = bundle.calibration.teacher_domain
    assert domain is not None
    raised = made.column("input_flags").to_numpy() & bit > 0
    assert (raised == domain.covers(labels)).mean() > 0.995  # the catalog's numbers are rounded
    assert 0.3 < raised.mean() < 0.95
    without = replace(bundle.calibration, teacher_domain=None)
    for other in (
        Engine(replace(bundle, calibration=without), job),
        Engine(bundle, replace(job, labels=("teff", "logg", "mass"))),
    ):
        assert not (other.process(spectra).column("input_flags").to_numpy() & bit).any()


def test_the_shipped_domain_is_that_of_asteroseismology() -> None:
    domain = load_bundle("default").calibration.teacher_domain
    assert domain is not None
    table = seismic.read_seismic()
    star = table.names.stars()
    count = int(star.max()) + 1
    merged = table.by_star(star, count)
    labels = atmospheres(merged, np.arange(count))
    labels = labels[np.isfinite(labels).all(axis=1)]
    assert len(labels) > 5000
    assert domain.covers(labels).mean() > 0.9
    # No star with seismic mass is a bright giant, a dwarf or of the halo.
    for others in ([4000, 0.6, -0.3, 0.1], [5700, 4.4, 0.0, 0.0], [4800, 2.0, -2.0, 0.3]):
        assert not domain.covers(np.array([others])).any()


def test_a_model_of_simulated_stars_has_no_domain(tmp_path: Path) -> None:
    assert tiny_bundle(tmp_path / "tiny").calibration.teacher_domain is None
