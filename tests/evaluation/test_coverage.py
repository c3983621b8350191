"""The shipped model's errors hold, its flags tell giants from other objects, and a catalog says
how its errors were made."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pytest
from support.paths import CORRELATED

import catalogproc
from catalogproc.contract import load_flags
from catalogproc.datasets.holdout import simulated_holdout
from catalogproc.evaluation import coverage, ood_detection
from catalogproc.features.input_errors import input_noise
from catalogproc.inference.engine import Engine
from catalogproc.job import Job, load_job
from catalogproc.network.bundle import Bundle, load_bundle
from catalogproc.network.error_propagation import Draws, first_order, sampled
from catalogproc.network.input_covariance import InputNoise
from catalogproc.network.predictor import Predictor
from catalogproc.readers.xp import read_spectra
from catalogproc.simulation.simulator import Simulator
from catalogproc.training.fit_calibration import calibrated

STARS = 6_000
LABELS = ("teff", "logg", "m_h", "mass", "log_age")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    shipped = load_bundle("default")
    if shipped.calibration.by_label:
        return shipped
    return calibrated(shipped, tmp_path_factory.mktemp("made") / "calibrated", 20_000, 777)


@pytest.fixture(scope="module")
def held_errors(bundle: Bundle) -> coverage.Reliabilities:
    held = simulated_holdout(Simulator(), bundle.vocabulary, STARS, 4_711)
    return coverage.measure(Predictor(bundle), held, load_job("gaia-dr3-giants"))


@pytest.mark.slow
def test_the_model_carries_its_calibration_and_its_limits(bundle: Bundle) -> None:
    known = bundle.calibration
    assert set(known.by_label) >= {"teff", "logg", "m_h", "mass", "log_age"}
    assert known.latent is not None
    assert known.margin > 0
    assert known.chi2 > 0


@pytest.mark.slow
def test_two_stars_of_three_lie_within_their_errors(held_errors: coverage.Reliabilities) -> None:
    rows = {row.label: row for row in held_errors.rows if row.bin == "all"}
    # Two points, and what chance adds with so many stars.
    slack = 0.02 + 2 * np.sqrt(0.68 * 0.32 / STARS)
    for label in ("teff", "logg", "m_h", "mass", "log_age", "logebv", "g_fakemag"):
        assert rows[label].within_68 == pytest.approx(0.683, abs=slack), label
        assert rows[label].within_95 == pytest.approx(0.95, abs=slack), label


@pytest.mark.slow
def test_they_do_so_in_bins_of_what_a_user_selects_by(held_errors: coverage.Reliabilities) -> None:
    bins = [row for row in held_errors.rows if row.bin != "all"]
    assert len({row.bin for row in bins}) > 12
    for row in bins:
        slack = 0.05 + 3 * np.sqrt(0.68 * 0.32 / row.stars)
        assert row.within_68 == pytest.approx(0.683, abs=slack), (row.label, row.bin)


@pytest.mark.slow
def test_what_is_no_giant_is_flagged_and_giants_are_not(bundle: Bundle) -> None:
    found = {row.kind: row for row in ood_detection.outsiders(bundle, 400, 99)}
    # What chance adds with so many stars: three times sqrt(p (1 - p) / 400).
    assert found[ood_detection.CLEAN].outside < ood_detection.MOST_CLEAN + 0.021
    for kind, row in found.items():
        if kind != ood_detection.CLEAN:
            assert row.outside > ood_detection.LEAST_STRANGE - 0.033, kind
            assert row.not_good_mass_age > 0.97, kind
            assert kind == "dwarf" or row.not_good > 0.97, kind
    assert set(found["noise"].by_flag) == {flag.name for flag in load_flags().flags}
    assert "| quasar | 400 |" in ood_detection.markdown(list(found.values()))


def test_draws_and_first_order_agree_where_errors_are_small(bundle: Bundle) -> None:
    """The shipped network, real stars; a tenth of their errors, then all of them."""
    spectra = pa.Table.from_batches(read_spectra(CORRELATED / "xp_continuous_30.parquet"))
    engine = Engine(bundle, Job("plain"))
    tokens = engine.features(spectra)
    errors = input_noise(tokens, bundle.vocabulary, engine.job).errors
    off = {}
    for part in (0.1, 1.0):
        star = (Predictor(bundle), tokens.values, InputNoise(part * errors), LABELS)
        linear = first_order(*star)[1].sigma
        drawn = sampled(*star, Draws(tokens.source_id, 400))[1].sigma
        off[part] = np.abs(drawn / linear - 1)
    # Of 400 draws a standard deviation is good to 3.5 %.
    assert np.median(off[0.1]) < 0.05
    assert np.median(off[1.0]) > 2 * np.median(off[0.1])


@pytest.mark.slow
def test_catalogs_with_correlations_without_and_by_draws_differ_as_they_should(
    tmp_path: Path,
) -> None:
    jobs = {
        "plain": Job("plain"),
        "correlated": Job("correlated", correlations=True),
        "sampled": Job("sampled", propagation="sampled", draws=256),
    }
    tables = {}
    for name, job in jobs.items():
        folder = tmp_path / name
        account = catalogproc.run(
            CORRELATED / "xp_continuous_30.parquet", folder,
            gaia_source=CORRELATED / "gaia_source_30.parquet", job=job, workers=1, device="cpu",
        )  # fmt: skip
        assert account.exit_code == 0
        tables[name] = ds.dataset(folder / "catalog").to_table().sort_by("source_id")
        stated = json.loads((folder / "run.json").read_text())["job"]
        assert stated["propagation"] == job.propagation
        assert stated["correlations"] == job.correlations
        told = json.loads((folder / "provenance.json").read_text())["entity"]["run:job"]
        assert json.loads(told["cp:content"]) == stated
    teff = {name: table["teff"].to_numpy() for name, table in tables.items()}
    error = {name: table["e_teff_input"].to_numpy() for name, table in tables.items()}
    # The answers are the same; what the errors of the spectrum make of them is not.
    for name in ("correlated", "sampled"):
        np.testing.assert_allclose(teff[name], teff["plain"], rtol=1e-4)
    assert (np.abs(error["correlated"] / error["plain"] - 1) > 0.01).mean() > 0.7
    # Across the noise of stars as faint as these the network bends: draws scatter less.
    ratio = error["sampled"] / error["plain"]
    assert (ratio != 1).all()
    assert 0.5 < np.median(ratio) < 1.1
    # And where they do not agree at all, the star is flagged.
    flags = tables["sampled"]["quality_flags"].to_numpy()
    nonlinear = flags & load_flags()["NONLINEAR"].value != 0
    assert nonlinear[ratio < 0.45].all()
    assert not (tables["plain"]["quality_flags"].to_numpy() & load_flags()["NONLINEAR"].value).any()
