"""Errors of the inputs: GaiaXPy's factors, published covariances, columns of the catalog."""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from support import real_stars
from support.bundles import LABELS, tiny_bundle

from catalogproc.errors import JobError
from catalogproc.features.input_errors import correlation, error_factor, input_noise
from catalogproc.features.spectra import covariance
from catalogproc.features.tokens import tokens
from catalogproc.flags import load_flags
from catalogproc.inference.catalog_columns import (
    LABEL_COLUMNS,
    label_columns,
    label_distributions,
    predicted_labels,
)
from catalogproc.inference.engine import Engine
from catalogproc.inference.label_distribution import PropagatedPrediction
from catalogproc.job import Job
from catalogproc.network.error_propagation import Propagated
from catalogproc.network.predictor import Prediction
from catalogproc.release import load_release
from catalogproc.vocabulary import load_vocabulary

DR3 = load_release("dr3")

VOCABULARY = load_vocabulary()
JOB = Job("test", correlations=True)
BP, RP = (VOCABULARY.coefficient_columns(band)[:30] for band in ("bp", "rp"))


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return tiny_bundle(tmp_path_factory.mktemp("bundle"))


@pytest.fixture(scope="module")
def bright():
    return tokens(real_stars.bright(), real_stars.bright_auxiliary(), VOCABULARY, JOB)


def array(table: pa.Table, name: str) -> np.ndarray:
    return table.column(name).to_numpy()


def with_errors_times(factor: float) -> pa.Table:
    """Return the bright stars with the errors of coefficients multiplied by a factor."""
    spectra = real_stars.bright()
    for band in ("bp", "rp"):
        name = f"{band}_coefficient_errors"
        values = pa.array((factor * real_stars.stacked(spectra, name)).tolist())
        spectra = spectra.set_column(spectra.column_names.index(name), name, values)
    return spectra


def run(bundle, job: Job = JOB, spectra: pa.Table | None = None) -> pa.Table:
    spectra = real_stars.bright() if spectra is None else spectra
    return Engine(bundle, job).process(spectra, real_stars.bright_auxiliary())


def test_error_factors_equal_gaiaxpys():
    real_stars.gaiaxpy()
    from gaiaxpy.error_correction.error_correction import _get_correction_array

    magnitudes = np.r_[np.arange(3.7, 20.99, 0.137), 21.5, 4.0, 12.5, 13.0, np.nan]
    with warnings.catch_warnings():  # of a pandas that it was not written for
        warnings.simplefilter("ignore")
        theirs = np.stack(_get_correction_array(pd.Series(magnitudes), "GaiaDr3Vega").to_list())
    assert error_factor("bp", magnitudes, DR3) == pytest.approx(theirs[:, 1], rel=1e-12)
    assert error_factor("rp", magnitudes, DR3) == pytest.approx(theirs[:, 2], rel=1e-12)
    assert error_factor("bp", [12.5], DR3)[0] == pytest.approx(2.7629457064)


def test_published_errors_and_correlations_are_used_unchanged(bright):
    job = replace(JOB, inflate_errors=False)
    noise = input_noise(bright, VOCABULARY, job)
    np.testing.assert_allclose(noise.errors, bright.errors, rtol=1e-6)
    table = real_stars.bright()
    for group, band, columns in zip(noise.correlated, ("bp", "rp"), (BP, RP), strict=False):
        assert group.columns.tolist() == columns.tolist()
        published = covariance(
            real_stars.stacked(table, f"{band}_coefficient_errors"),
            real_stars.stacked(table, f"{band}_coefficient_correlations"),
        )[:, :30, :30] / bright.g_flux[:, None, None] ** 2  # fmt: skip
        e = noise.errors[:, columns]
        read = np.isfinite(e[:, :, None] * e[:, None, :])
        ours = e[:, :, None] * group.matrix * e[:, None, :]
        np.testing.assert_allclose(ours[read], published[read], rtol=2e-5)


def test_inflated_errors_follow_the_formula(bright):
    noise = input_noise(bright, VOCABULARY, JOB)
    for star in (0, 7, 29):
        for column, band in ((BP[0], "bp"), (BP[5], "bp"), (RP[2], "rp")):
            k = error_factor(band, bright.g_mag[star : star + 1], DR3)[0]
            formal = k * bright.errors[star, column]
            wanted = np.sqrt(formal**2 + (0.005 * bright.values[star, column]) ** 2)
            assert noise.errors[star, column] == pytest.approx(wanted, rel=1e-6)
    matrix, e = noise.correlated[0].matrix[3], noise.errors[3, BP]
    packed = bright.correlations["bp"][3]
    k = error_factor("bp", bright.g_mag[3:4], DR3)[0]
    formal = k * bright.errors[3, BP]
    assert packed[0] * formal[1] * formal[0] == pytest.approx(e[1] * matrix[1, 0] * e[0], rel=1e-5)
    last = packed[5 * 4 // 2 + 2] * formal[5] * formal[2]  # row 5 of the triangle, column 2
    assert last == pytest.approx(e[5] * matrix[5, 2] * e[2], rel=1e-5)
    other = np.delete(noise.errors, np.r_[BP, RP], axis=1)
    np.testing.assert_allclose(other, np.delete(bright.errors, np.r_[BP, RP], axis=1), rtol=1e-6)


def test_two_colours_share_the_error_of_j(bright):
    stars = replace(bright, errors=bright.errors.copy(), e_j=np.full(30, 0.03))
    at = VOCABULARY.columns(["jh", "jk"])
    stars.errors[:, at] = np.hypot(0.03, [0.04, 0.02])
    group = input_noise(stars, VOCABULARY, JOB).correlated[-1]
    drawn = np.random.default_rng(0).normal(size=(3, 200_000)) * [[0.03], [0.04], [0.02]]
    wanted = np.corrcoef(drawn[0] - drawn[1], drawn[0] - drawn[2])[0, 1]
    assert group.columns.tolist() == at.tolist()
    assert group.matrix[:, 0, 1] == pytest.approx(wanted, abs=0.01)


def test_a_star_without_published_correlations_gets_none():
    packed = np.array([[0.5, 0.2, 0.1], [np.nan] * 3])
    matrix = correlation(packed, np.ones((2, 3)))
    np.testing.assert_allclose(matrix[0], [[1, 0.5, 0.2], [0.5, 1, 0.1], [0.2, 0.1, 1]], rtol=1e-6)
    assert matrix[1].tolist() == np.eye(3).tolist()


def test_correlations_of_another_length_do_not_fail_the_chunk(bundle):
    spectra = real_stars.bright()
    at = spectra.column_names.index("bp_coefficient_correlations")
    values = spectra.column(at).to_pylist()
    values[2], values[3] = values[2][:7], None
    broken = spectra.set_column(at, "bp_coefficient_correlations", pa.array(values))
    table, whole = run(bundle, spectra=broken), run(bundle)
    ours, wanted = (array(t, "e_teff_input") for t in (table, whole))
    others = np.setdiff1d(np.arange(30), [2, 3])
    np.testing.assert_allclose(ours[others], wanted[others], rtol=1e-3)
    assert np.isfinite(ours).all()


def test_the_input_uncertainty_is_at_most_the_total(bundle):
    table = run(bundle)
    for name in (LABEL_COLUMNS[label] for label in LABELS):
        whole, inputs = (array(table, f"e_{name}{part}") for part in ("", "_input"))
        assert (inputs > 0).all()
        assert (inputs <= whole).all()


def parts(stated: float, inputs: float, published: float) -> list[float]:
    """e_teff and e_teff_input of one star."""
    prediction = Prediction(("teff",), np.array([[4500.0]]), np.array([[stated]]))
    used, known = (Propagated(("teff",), np.array([[[x**2]]])) for x in (inputs, published))
    nonlinear = np.zeros(len(prediction.mean), dtype=bool)
    output = PropagatedPrediction(prediction, used, known, nonlinear)
    columns = label_columns(prediction)
    columns = predicted_labels(output, label_distributions(output, {}, columns))
    return [float(columns[f"e_teff{part}"][0]) for part in ("", "_input")]


def test_input_errors_are_counted_once():
    # Training had such errors: the model's sigma contains them, nothing is added.
    assert parts(50.0, 30.0, 30.0) == pytest.approx([50, 30])
    # The star's errors are larger than any in training.
    assert parts(50.0, 80.0, 80.0) == pytest.approx([80, 80])
    # Inflated errors are a larger part of the same total.
    assert parts(50.0, 40.0, 30.0) == pytest.approx([50, 40])
    assert parts(50.0, 90.0, 30.0) == pytest.approx([50, 50])


def test_correlations_change_input_uncertainties_only(bundle):
    job = replace(JOB, inflate_errors=False)
    plain, full = run(bundle, replace(job, correlations=False)), run(bundle, job)
    stripped = real_stars.bright().select(
        [name for name in real_stars.bright().column_names if "correlation" not in name]
    )
    diagonal = run(bundle, job, stripped)
    for name in (LABEL_COLUMNS[label] for label in LABELS):
        ratio = array(full, f"e_{name}_input") / array(diagonal, f"e_{name}_input")
        assert np.median(np.abs(ratio - 1)) > 0.01, name
        assert (array(full, name) == array(diagonal, name)).all()
    # The engine uses the table's correlations; the job decides if they are read (process_chunk.py).
    assert (array(plain, "e_teff_input") == array(full, "e_teff_input")).all()


def test_correlations_of_labels_are_within_one_and_vary(bundle):
    table = run(bundle)
    for name in ("corr_teff_logg", "corr_teff_m_h", "corr_logg_m_h", "corr_mass_age"):
        values = array(table, name)
        assert (np.abs(values) <= 1).all()
        assert values.std() > 0.01


def test_inflated_errors_give_larger_input_uncertainties(bundle):
    inflated, published = run(bundle), run(bundle, replace(JOB, inflate_errors=False))
    for name in (LABEL_COLUMNS[label] for label in LABELS):
        ratio = array(inflated, f"e_{name}_input") / array(published, f"e_{name}_input")
        assert (ratio > 1).all()
        assert np.median(ratio) > 2  # G 6 to 8: the factors are 4 to 6


def test_sampling_agrees_with_first_order_or_the_star_is_flagged(bundle):
    """Small errors, across which any network is linear."""
    job, spectra = replace(JOB, inflate_errors=False), with_errors_times(0.05)
    one = run(bundle, job, spectra)
    drawn = run(bundle, replace(job, propagation="sampled", draws=400), spectra)
    assert array(one, "teff") == pytest.approx(array(drawn, "teff"), rel=1e-6)
    bit = load_flags()["NONLINEAR"].value
    for table in (one, drawn):
        assert (array(table, "quality_flags") & bit == 0).all()
    for name in (LABEL_COLUMNS[label] for label in LABELS):
        ratio = array(drawn, f"e_{name}_input") / array(one, f"e_{name}_input")
        assert np.abs(ratio - 1).max() < 0.2
        assert abs(np.median(ratio) - 1) < 0.05
        assert (ratio != 1).any()


def test_sampled_errors_do_not_depend_on_other_stars(bundle):
    engine = Engine(bundle, replace(JOB, propagation="sampled", draws=16))
    whole = engine.process(real_stars.bright(), real_stars.bright_auxiliary())
    part = engine.process(
        real_stars.bright().slice(11, 5), real_stars.bright_auxiliary().slice(11, 5)
    )
    for name in ("e_teff_input", "e_mass_input", "corr_teff_logg"):
        np.testing.assert_allclose(array(part, name), array(whole, name)[11:16], rtol=1e-3)


def test_large_errors_are_nonlinear_and_flagged(bundle):
    spectra = with_errors_times(1e4)
    table = run(bundle, replace(JOB, propagation="sampled", draws=64), spectra)
    bit = load_flags()["NONLINEAR"].value
    assert (array(table, "quality_flags") & bit > 0).mean() > 0.9


def test_without_propagation_there_is_no_input_uncertainty(bundle):
    table, full = run(bundle, replace(JOB, propagation="none")), run(bundle)
    for name in (LABEL_COLUMNS[label] for label in LABELS):
        assert np.isnan(array(table, f"e_{name}_input")).all()
        assert (array(table, f"e_{name}") > 0).all()
        assert (array(full, f"e_{name}") >= array(table, f"e_{name}") * (1 - 1e-4)).all()
    assert np.isnan(array(table, "corr_teff_logg")).all()


@pytest.mark.parametrize(
    ("field", "message"),
    [({"propagation": "guess"}, "no such error propagation"), ({"draws": 3}, "too few draws")],
)
def test_invalid_jobs_are_refused(field, message):
    with pytest.raises(JobError, match=message):
        replace(JOB, **field)


def test_all_settings_of_propagation_are_in_the_job_hash():
    changed = [
        replace(JOB, propagation="none"), replace(JOB, draws=99), replace(JOB, correlations=False),
        replace(JOB, inflate_errors=False), replace(JOB, check_spectrum=True),
    ]  # fmt: skip
    assert len({JOB.hash, *(job.hash for job in changed)}) == 6
