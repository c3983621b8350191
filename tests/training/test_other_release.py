"""Simulated stars and trainings for another Gaia release, made up by a rotated basis."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from support import simulated
from support.bundles import tiny_bundle
from support.releases import PHOTOMETRY, design_file, own_file

from catalogproc.datasets.star_reader import StarFiles, all_inputs_job, read_stars
from catalogproc.errors import BundleError, ReleaseError
from catalogproc.features.flux_calibration import calibration
from catalogproc.features.release_files import add_release
from catalogproc.job import TrainingJob
from catalogproc.network.bundle import Bundle, load_bundle
from catalogproc.release import Release, load_release
from catalogproc.simulation.simulated_stars import write_stars
from catalogproc.training.config import TrainSpec
from catalogproc.training.inherited_tokens import inherited, left_behind
from catalogproc.training.train_bundle import train_bundle
from catalogproc.training.vocabulary_extension import (
    extended_network,
    extended_shape,
    extended_vocabulary,
)
from catalogproc.vocabulary import BANDS, load_vocabulary

STARS = 300
LABELS = ("teff", "logg", "m_h", "mass", "log_age")


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Release:
    folder = tmp_path_factory.mktemp("next")
    own = own_file(folder, PHOTOMETRY)
    return add_release([design_file(folder)], folder / "next.toml", str(own)).release


@pytest.fixture(scope="module")
def giants() -> simulated.SimulatedStars:
    return simulated.simulator().draw(STARS, seed=11)


def test_spectra_of_another_release_have_the_same_flux(
    giants: simulated.SimulatedStars, release: Release
) -> None:
    moved = giants.in_release(release)
    assert moved.coefficients("bp").shape == (STARS, 51)
    flux = [
        calibration(stars.release).flux({b: stars.coefficients(b).numpy() for b in BANDS})
        for stars in (giants, moved)
    ]
    # Four directions of BP are cut off, of which the flux tells nearly nothing.
    level = np.abs(flux[0]).max(axis=1, keepdims=True)
    assert np.percentile(np.abs(flux[1] - flux[0]) / level, 99) < 1e-3
    canonical = load_vocabulary(basis="canonical")
    at = np.concatenate([canonical.coefficient_columns(band)[:25] for band in BANDS])
    (old, error), (new, other) = (
        (x[:, at].numpy() for x in stars.tokens(canonical)) for stars in (giants, moved)
    )
    z = np.abs(new - old) / error
    assert np.nanmedian(z) < 0.2
    assert np.nanmedian(other / error) == pytest.approx(1.0, abs=0.1)
    # The noise is carried over with the spectra: twice the errors are twice as large.
    wide = replace(giants, columns=giants.columns | {
        "coefficient_errors": 2.0 * giants["coefficient_errors"]}).in_release(release)  # fmt: skip
    ratio = wide["coefficient_errors"] / moved["coefficient_errors"]
    assert torch.allclose(ratio, torch.full_like(ratio, 2.0), rtol=1e-4)


def test_what_was_simulated_for_a_release_is_read_as_its_spectra(
    giants: simulated.SimulatedStars, release: Release, tmp_path: Path
) -> None:
    paths = write_stars(giants.in_release(release), tmp_path)
    assert pq.read_schema(paths[0]).metadata[b"release"] == b"own"
    table = pq.read_table(paths[0])
    assert table["bp_basis_function_id"][0].as_py() == 901
    assert "tentative_parallax_bias" in pq.read_schema(paths[1]).names
    vocabulary = load_vocabulary(release=release)
    files = StarFiles(paths[:1], paths[1:2])
    parts = list(read_stars(files, vocabulary, all_inputs_job(vocabulary)))
    read = np.concatenate([made.values for _, made in parts])
    values, _ = giants.tokens(vocabulary)
    order = np.argsort(np.concatenate([b["source_id"].to_numpy() for b, _ in parts]))
    mine = np.argsort(table["source_id"].to_numpy())
    at = vocabulary.coefficient_columns("bp")[:10]
    np.testing.assert_allclose(
        read[order][:, at], values.numpy()[mine][:, at], rtol=2e-4, atol=1e-9
    )
    with pytest.raises(ReleaseError, match=r"simulated instrument is that of Gaia DR3(.|\n)*add"):
        giants.in_release(load_release("dr4"))


# --- what is inherited ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Bundle]:
    return {
        basis: tiny_bundle(
            tmp_path_factory.mktemp(basis), load_vocabulary(basis=basis), late=("g_fakemag",),
            errors=True,
        )
        for basis in ("archive", "canonical")
    }  # fmt: skip


def test_canonical_tokens_keep_their_rows(bundles: dict[str, Bundle], release: Release) -> None:
    base = inherited(bundles["canonical"], release, "")
    assert left_behind(base) == ()
    assert base.release == release
    vocabulary = extended_vocabulary(
        base.vocabulary, load_vocabulary(release=release, basis="canonical")
    )
    network = extended_network(base, extended_shape({}, vocabulary, base), seed=1)
    old = bundles["canonical"].network().state_dict()
    for name, value in network.state_dict().items():
        assert torch.equal(value, old[name]), name


def test_coefficients_that_mean_something_else_are_never_inherited(
    bundles: dict[str, Bundle], release: Release
) -> None:
    whole = bundles["archive"]
    base = inherited(whole, release, "")
    assert len(left_behind(base)) == 110
    wanted = load_vocabulary(release=release)
    vocabulary = extended_vocabulary(base.vocabulary, wanted)
    assert sorted(vocabulary.names) == sorted(wanted.names)
    assert (vocabulary.coefficients("bp"), vocabulary.data_release) == (51, release)
    shape = extended_shape({}, vocabulary, base)
    network, again = (extended_network(base, shape, seed=seed) for seed in (1, 2))
    old = whole.network().state_dict()
    for name in ("weight", "bias", "error_weight", "error_bias"):
        table = network.state_dict()[name]
        for token in vocabulary.tokens:
            row = table[token.number]
            if token.kind != "coefficient":
                assert torch.equal(row, old[name][whole.vocabulary.number(token.name)]), token.name
            elif row.any():  # those of a new network; some tables begin with 0
                assert not torch.equal(row, again.state_dict()[name][token.number]), token.name
                assert not (row == old[name]).all(dim=1).any(), token.name
    # Rows of others, and what is not by token, stay; late tokens are the same by name.
    assert torch.equal(network.state_dict()["mean.weight"], old["mean.weight"])
    assert [vocabulary.names[n - 1] for n in shape.late] == ["g_fakemag"]
    # Without a release that is named, nothing is dropped silently.
    with pytest.raises(BundleError, match=r"mean something else(.|\n)*--release"):
        extended_vocabulary(whole.vocabulary, wanted)


@pytest.mark.parametrize("basis", ["archive", "canonical"])
def test_a_model_of_dr3_is_fine_tuned_for_the_next_release(
    basis: str, bundles: dict[str, Bundle], release: Release, tmp_path: Path
) -> None:
    """On simulated stars, to a bundle that knows its release wherever it is moved."""
    torch.set_num_threads(1)
    job = TrainingJob(
        name="next", bundle="next", description="for tests", network={},
        simulation={"stars": 200, "statistics_stars": 200, "test_stars": 50,
                    "calibration_stars": 300},
        training={"steps": 2, "batch": 32, "report_steps": 1, "checkpoint_steps": 1,
                  "precision": "float32"},
    )  # fmt: skip
    said: list[str] = []
    spec = TrainSpec(job, tmp_path / "out", base=bundles[basis].path, release=release, device="cpu")
    made = train_bundle(spec, announce=said.append)
    assert made is not None
    assert made.release == release
    assert set(LABELS) <= set(made.requestable)
    assert ("not_inherited" in made.training) == (basis == "archive")
    assert any("mean something else in Gaia of tests" in x for x in said) == (basis == "archive")
    moved = tmp_path / "moved"
    shutil.copytree(made.path, moved)
    assert load_bundle(moved).release.design_file() == moved / "next.npz"
