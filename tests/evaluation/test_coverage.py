"""Coverage of the default model, its flags on out-of-distribution objects, error propagation."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pytest
from support.paths import CORRELATED

import catalogproc
from catalogproc.datasets.holdout import Holdout, simulated_holdout
from catalogproc.evaluation import coverage, ood_detection
from catalogproc.features.input_errors import input_noise
from catalogproc.flags import load_flags
from catalogproc.inference.engine import Engine
from catalogproc.job import Job, load_job
from catalogproc.network.bundle import Bundle, load_bundle
from catalogproc.network.error_propagation import Draws, first_order, sampled
from catalogproc.network.input_covariance import InputNoise
from catalogproc.network.predictor import Predictor
from catalogproc.network.uncertainty_calibration import UncertaintyCalibration
from catalogproc.readers.xp import read_spectra
from catalogproc.simulation.simulator import Simulator
from catalogproc.training.fit_calibration import fit_uncertainties
from catalogproc.training.latent_fit import fit_latent
from catalogproc.training.recalibration import recalibrate

STARS = 6_000
LABELS = ("teff", "logg", "m_h", "mass", "log_age")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    shipped = load_bundle("default")
    if shipped.calibration.by_label:
        return shipped
    return recalibrate(shipped, tmp_path_factory.mktemp("made") / "calibrated", 20_000, 777)


@pytest.fixture(scope="module")
def stars(bundle: Bundle) -> tuple[Predictor, Holdout]:
    """The network, calibrated on simulated stars (the shipped one is on real ones), and others."""
    plain = Predictor(replace(bundle, calibration=UncertaintyCalibration()))
    known, others = (
        simulated_holdout(Simulator("cpu", corrected=True), bundle.vocabulary, n, seed)
        for n, seed in ((20_000, 777), (STARS, 4_711))
    )
    return Predictor(replace(bundle, calibration=fit_uncertainties(plain, known))), others


def measured(predictor: Predictor, stars: Holdout, rows: np.ndarray) -> coverage.CoverageResult:
    some = Holdout(*(value[rows] for value in vars(stars).values()))
    return coverage.measure_coverage(predictor, some, load_job("gaia-dr3-giants"))


@pytest.fixture(scope="module")
def found(stars: tuple[Predictor, Holdout]) -> coverage.CoverageResult:
    """Of stars that are read as by the default job, as those of the calibration."""
    predictor, others = stars
    return measured(predictor, others, others.default_read)


@pytest.mark.slow
def test_the_default_model_has_a_calibration_and_ood_limits(bundle: Bundle) -> None:
    known = bundle.calibration
    assert set(known.by_label) >= {"teff", "logg", "m_h", "mass", "log_age"}
    assert known.latent is not None
    assert known.margin > 0
    assert known.chi2 > 0


def between(row: coverage.Coverage) -> float:
    """Share between the 16th and the 84th percentile: masses are not symmetric about theirs."""
    return 1.0 - row.below_16 - row.above_84


@pytest.mark.slow
def test_coverage_of_all_stars(found: coverage.CoverageResult) -> None:
    rows = {row.label: row for row in found.rows if row.bin == "all"}
    # Two points, plus the sampling error of so many stars.
    slack = 0.02 + 2 * np.sqrt(0.68 * 0.32 / rows["teff"].stars)
    for label in ("teff", "logg", "m_h", "mass", "log_age", "logebv", "g_fakemag"):
        assert between(rows[label]) == pytest.approx(0.683, abs=slack), label
        assert rows[label].within_95 == pytest.approx(0.95, abs=slack), label


@pytest.mark.slow
def test_stars_that_are_read_otherwise_have_nearly_this_coverage(
    stars: tuple[Predictor, Holdout],
) -> None:
    """They take no part in the calibration; without colours E(B-V) is hardly known."""
    predictor, others = stars
    result = measured(predictor, others, ~others.default_read)
    rows = {row.label: row for row in result.rows if row.bin == "all"}
    for label in (*LABELS, "g_fakemag", "logebv"):
        off = 0.1 if label == "logebv" else 0.05
        assert between(rows[label]) == pytest.approx(0.683, abs=off), label


@pytest.mark.slow
def test_coverage_in_bins_of_catalog_columns(found: coverage.CoverageResult) -> None:
    bins = [row for row in found.rows if row.bin != "all"]
    assert len({row.bin for row in bins}) > 12
    for row in bins:
        slack = 0.05 + 3 * np.sqrt(0.68 * 0.32 / row.stars)
        assert between(row) == pytest.approx(0.683, abs=slack), (row.label, row.bin)


@pytest.mark.slow
def test_ood_objects_are_flagged_and_giants_are_not(bundle: Bundle) -> None:
    found = {row.kind: row for row in ood_detection.flag_rates(bundle, 1_000, 5)}
    # The sampling error of so many stars: three times sqrt(p (1 - p) / 400).
    assert found[ood_detection.CLEAN].flagged < ood_detection.MAX_CLEAN_FLAGGED + 0.021
    for kind, row in found.items():
        if kind != ood_detection.CLEAN:
            assert row.flagged > ood_detection.MIN_OOD_FLAGGED - 0.045, kind
            assert row.not_good > 0.97, kind
            assert row.not_good_mass_age > 0.97, kind
    assert set(found["noise"].by_flag) == {flag.name for flag in load_flags().flags}
    table = ood_detection.markdown(list(found.values()))
    print(table)
    assert "| quasar | 1,000 |" in table


def test_sampling_and_first_order_agree_for_small_errors(bundle: Bundle) -> None:
    """On real stars, with a tenth of their errors and with all of them."""
    spectra = pa.Table.from_batches(read_spectra(CORRELATED / "xp_continuous_30.parquet"))
    engine = Engine(bundle, Job("plain"))
    tokens = engine.features(spectra)
    errors = input_noise(tokens, bundle.vocabulary, engine.job).errors
    difference = {}
    for part in (0.1, 1.0):
        star = (Predictor(bundle), tokens.network_inputs, InputNoise(part * errors), LABELS)
        linear = first_order(*star)[1].sigma
        by_sampling = sampled(*star, Draws(tokens.source_id, 400))[1].sigma
        difference[part] = np.abs(by_sampling / linear - 1)
    # The standard deviation of 400 samples is uncertain by 3.5 %.
    assert np.median(difference[0.1]) < 0.05
    assert np.median(difference[1.0]) > 2 * np.median(difference[0.1])


@pytest.mark.slow
def test_catalogs_with_correlations_and_by_sampling_differ_as_expected(
    tmp_path: Path,
) -> None:
    jobs = {
        "plain": Job("plain", propagation="first_order"),
        "correlated": Job("correlated", propagation="first_order", correlations=True),
        "sampled": Job("sampled", propagation="sampled", draws=256),
    }
    tables = {}
    for name, job in jobs.items():
        folder = tmp_path / name
        result = catalogproc.run(
            CORRELATED / "xp_continuous_30.parquet", folder,
            gaia_source=CORRELATED / "gaia_source_30.parquet", job=job, workers=1, device="cpu",
        )  # fmt: skip
        assert result.exit_code == 0
        tables[name] = ds.dataset(folder / "catalog").to_table().sort_by("source_id")
        stated = json.loads((folder / "run.json").read_text())["job"]
        assert stated["propagation"] == job.propagation
        assert stated["correlations"] == job.correlations
        in_provenance = json.loads((folder / "provenance.json").read_text())["entity"]["run:job"]
        assert json.loads(in_provenance["cp:content"]) == stated
    teff = {name: table["teff"].to_numpy() for name, table in tables.items()}
    error = {name: table["e_teff_input"].to_numpy() for name, table in tables.items()}
    # The predictions are the same, but for the weights of canonical coefficients, which follow the
    # correlations; their input uncertainties differ.
    np.testing.assert_allclose(teff["sampled"], teff["plain"], rtol=1e-4)
    assert (np.abs(teff["correlated"] - teff["plain"]) < 0.3 * error["plain"]).all()
    # Without the spectrum's own correlations the mean ones are used: they differ by some per cent.
    changed = np.abs(error["correlated"] / error["plain"] - 1)
    assert (changed > 0.01).mean() > 0.3
    assert changed.max() < 0.5
    # The network is not linear over the noise of such faint stars: sampling gives smaller errors.
    ratio = error["sampled"] / error["plain"]
    assert (ratio != 1).all()
    assert 0.5 < np.median(ratio) < 1.1
    # Stars with a large difference are flagged.
    flags = tables["sampled"]["quality_flags"].to_numpy()
    nonlinear = flags & load_flags()["NONLINEAR"].value != 0
    assert nonlinear[ratio < 0.45].all()
    assert not (tables["plain"]["quality_flags"].to_numpy() & load_flags()["NONLINEAR"].value).any()


def test_a_token_that_makes_summaries_scatter_more_raises_the_latent_flag_no_more_often() -> None:
    """Half of the stars have a parallax, with which their summaries scatter 1.6 times as much."""
    random = np.random.default_rng(4)
    present = np.column_stack([np.ones(20_000, dtype=bool), random.random(20_000) < 0.5])
    summaries = random.normal(size=(20_000, 8)) * np.where(present[:, 1], 1.6, 1.0)[:, None]
    summaries[:, 0] += 3.0 * present[:, 1]
    first, second = (slice(start, start + 10_000) for start in (0, 10_000))
    latent = fit_latent(summaries[first].astype(np.float32), present[first])
    raised = latent.distance(summaries[second], present[second]) > latent.limit
    for has in (False, True):
        assert raised[present[second, 1] == has].mean() == pytest.approx(0.01, abs=0.006)
