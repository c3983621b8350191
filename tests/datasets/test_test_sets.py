"""Test sets: simulated stars, or stars read from a folder."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import torch
from support import real_stars

from catalogproc.datasets.benchmark_stars import Benchmark
from catalogproc.datasets.test_sets import Simulated, benchmark, read_benchmark, simulated
from catalogproc.errors import InputError, JobError
from catalogproc.simulation.simulator import Simulator, write_stars
from catalogproc.vocabulary import load_vocabulary

VOCABULARY = load_vocabulary()
LABELS = VOCABULARY.columns(VOCABULARY.named("label"))
SEEN = np.setdiff1d(np.arange(len(VOCABULARY)), LABELS)


@pytest.fixture(scope="module")
def simulated_stars() -> Benchmark:
    torch.set_num_threads(1)
    return simulated(Simulated(1500, 31), VOCABULARY)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stars")
    write_stars(Simulator().draw(1500, 31), folder)
    return folder


def test_inputs_contain_no_true_label(simulated_stars: Benchmark) -> None:
    assert np.isnan(simulated_stars.values[:, LABELS]).all()
    # Isochrones and atmospheres are of solar [alpha/M]: simulated stars have no such label.
    alpha = VOCABULARY.column("alpha_m")
    known = [column for column in LABELS if column != alpha]
    assert np.isfinite(simulated_stars.truth[:, known]).all()
    assert np.isnan(simulated_stars.truth[:, alpha]).all()
    assert np.isnan(simulated_stars.truth[:, SEEN]).all()
    assert (simulated_stars.truth_errors[:, known] == 0).all()
    assert not simulated_stars.real
    assert "1,500 simulated" in simulated_stars.name


def test_the_truth_is_that_of_the_simulator(simulated_stars: Benchmark) -> None:
    stars = Simulator().draw(1500, 31)
    column = VOCABULARY.column
    np.testing.assert_array_equal(simulated_stars.truth[:, column("teff")], stars["teff"].numpy())
    # True dust and distance, not those measured by a map and a parallax.
    ebv = np.maximum(stars["ebv"].numpy(), np.exp(-7))
    np.testing.assert_allclose(np.exp(simulated_stars.truth[:, column("logebv")]), ebv, rtol=1e-5)
    seen, _ = stars.tokens(VOCABULARY)
    parallax = seen[:, column("g_fakemag")].numpy() - simulated_stars.truth[:, column("g_fakemag")]
    error = (stars["e_parallax"] * 10 ** (0.2 * stars["g_mag"])).numpy()
    z = (parallax / error)[np.isfinite(parallax)]
    assert 0.9 < z.std() < 1.1


def test_a_folder_holds_the_same_stars(simulated_stars: Benchmark, folder: Path) -> None:
    read = benchmark(folder, Simulated(0, 0), VOCABULARY)
    assert len(read) == len(simulated_stars)
    assert not read.real
    assert folder.name in read.name
    np.testing.assert_allclose(
        read.truth[:, LABELS], simulated_stars.truth[:, LABELS], rtol=1e-5, atol=1e-5
    )
    np.testing.assert_array_equal(np.isnan(read.values), np.isnan(simulated_stars.values))
    off = np.abs(read.values - simulated_stars.values)[:, SEEN] / simulated_stars.errors[:, SEEN]
    assert np.nanmax(off) < 0.05


def test_the_order_of_the_truth_does_not_matter(folder: Path, tmp_path: Path) -> None:
    for path in folder.iterdir():
        if not path.name.startswith("truth"):
            (tmp_path / path.name).symlink_to(path)
    truth = pq.read_table(next(folder.glob("truth*")))
    some = truth.take(np.random.default_rng(1).permutation(len(truth))[:700])
    pq.write_table(some, tmp_path / "truth_b.parquet")
    whole, part = read_benchmark(folder, VOCABULARY), read_benchmark(tmp_path, VOCABULARY)
    assert len(part) == 700
    row = {star: i for i, star in enumerate(whole.ids)}
    at = [row[star] for star in part.ids]
    np.testing.assert_array_equal(whole.truth[at], part.truth)
    np.testing.assert_array_equal(whole.values[at], part.values)


def test_real_stars_in_the_same_layout(tmp_path: Path) -> None:
    """Real spectra, with a truth table as somebody would write one."""
    spectra, source = real_stars.bright(), real_stars.bright_auxiliary()
    pq.write_table(spectra, tmp_path / "xp_continuous_mine.parquet")
    pq.write_table(source, tmp_path / "gaia_source_mine.parquet")
    ids = spectra["source_id"].to_pylist()[:20]
    lines = ["source_id,teff,e_teff,ebv,e_ebv,note"]
    lines += [f"{star},{4500 + i},80,{0.1 if i else ''},0.02,x" for i, star in enumerate(ids)]
    (tmp_path / "truth.csv").write_text("\n".join(lines) + "\n")
    stars = read_benchmark(tmp_path, VOCABULARY)
    assert stars.real
    assert set(stars.ids) == set(ids)
    row = int(np.flatnonzero(stars.ids == ids[3])[0])
    column = VOCABULARY.column
    assert stars.truth[row, column("teff")] == 4503
    assert stars.truth_errors[row, column("teff")] == 80
    assert stars.truth[row, column("logebv")] == pytest.approx(np.log(0.1))
    assert stars.truth_errors[row, column("logebv")] == pytest.approx(0.2)
    first = int(np.flatnonzero(stars.ids == ids[0])[0])
    assert np.isnan(stars.truth[first, column("logebv")])
    assert np.isnan(stars.truth[:, column("mass")]).all()
    assert np.isfinite(stars.values[:, column("bp0")]).all()
    assert np.isfinite(stars.values[:, column("bprp")]).all()


def test_colours_are_synthetic_without_gaia_source(folder: Path, tmp_path: Path) -> None:
    for path in folder.iterdir():
        if not path.name.startswith("gaia_source"):
            (tmp_path / path.name).symlink_to(path)
    stars = read_benchmark(tmp_path, VOCABULARY)
    whole = read_benchmark(folder, VOCABULARY)
    at = VOCABULARY.column("bprp")
    assert np.isnan(stars.values[:, VOCABULARY.column("jh")]).all()
    off = stars.values[:, at] - whole.values[:, at]
    assert 1.4826 * np.nanmedian(np.abs(off - np.nanmedian(off))) < 0.03


def test_folders_without_a_test_set_are_refused(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "gaia_source.csv").write_text("source_id,parallax\n1,2\n")
    with pytest.raises(JobError, match=r"no xp_continuous\*"):
        read_benchmark(tmp_path, VOCABULARY)
    (tmp_path / "xp_continuous.parquet").symlink_to(next(folder.glob("xp_continuous*")))
    with pytest.raises(JobError, match=r"no truth\*"):
        read_benchmark(tmp_path, VOCABULARY)
    (tmp_path / "truth.csv").write_text("source_id,teff\n1,5000\n")
    with pytest.raises(InputError, match="no star of the spectra has true labels"):
        read_benchmark(tmp_path, VOCABULARY)
    (tmp_path / "truth.csv").write_text("source_id,teff\n1.5,5000\n")
    with pytest.raises(InputError, match="the truth has no source_id"):
        read_benchmark(tmp_path, VOCABULARY)


def test_a_table_to_train_on_has_inputs_and_true_labels(simulated_stars: Benchmark) -> None:
    table = simulated_stars.table()
    np.testing.assert_array_equal(table.values[:, LABELS], simulated_stars.truth[:, LABELS])
    np.testing.assert_array_equal(
        np.isnan(table.values[:, SEEN]), np.isnan(simulated_stars.values[:, SEEN])
    )
    one, other = simulated_stars.split(0.3, seed=5)
    assert not set(one.ids) & set(other.ids)
    assert len(other) == pytest.approx(450, abs=60)


def test_truth_in_two_files(folder: Path, tmp_path: Path) -> None:
    for path in folder.iterdir():
        if not path.name.startswith("truth"):
            (tmp_path / path.name).symlink_to(path)
    truth = pq.read_table(next(folder.glob("truth*")))
    pq.write_table(truth.slice(0, 800), tmp_path / "truth_0.parquet")
    rest = truth.slice(800)
    pq.write_table(rest.append_column("extra", pa.array([1] * len(rest))), tmp_path / "truth_1.pq")
    stars = read_benchmark(tmp_path, VOCABULARY)
    assert len(stars) == len(truth)
    assert pc.all(pc.is_in(truth["source_id"], pa.array(stars.ids))).as_py()


def test_magnitude_parallax_and_distance_are_extra_columns(
    folder: Path, simulated_stars: Benchmark
) -> None:
    read = read_benchmark(folder, VOCABULARY)
    for name in ("phot_g_mean_mag", "dist"):
        np.testing.assert_allclose(read.extra[name], simulated_stars.extra[name], rtol=1e-6)
    one, other = (stars.extra["parallax_over_error"] for stars in (read, simulated_stars))
    known = np.isfinite(one) & np.isfinite(other)
    # The file's parallax has its zero-point still.
    assert known.mean() > 0.9
    assert np.corrcoef(one[known], other[known])[0, 1] > 0.999
    assert len(read.rows(slice(7)).extra["dist"]) == 7


def test_spectra_are_sufficient_without_true_labels(folder: Path, tmp_path: Path) -> None:
    for source in [*folder.glob("xp_continuous*"), *folder.glob("gaia_source*")]:
        shutil.copy(source, tmp_path)
    with pytest.raises(JobError, match="is no test set"):
        benchmark(tmp_path, Simulated(1, 1), VOCABULARY)
    stars = benchmark(tmp_path, Simulated(1, 1), VOCABULARY, truth=False)
    assert len(stars) == 1500
    assert stars.real
    assert np.isnan(stars.truth).all()
    np.testing.assert_array_equal(
        stars.values[:, 0], read_benchmark(folder, VOCABULARY).values[:, 0]
    )  # fmt: skip
