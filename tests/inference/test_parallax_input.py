"""A parallax as an input: what is compared with it does not depend on it, bit for bit."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from support import real_stars
from support.bundles import tiny_bundle

from catalogproc.contract import load_contract
from catalogproc.datasets.holdout import Holdout
from catalogproc.evaluation.coverage import measure_coverage
from catalogproc.flags import load_flags, load_input_flags
from catalogproc.inference.engine import Engine
from catalogproc.inference.model import Model
from catalogproc.job import Job
from catalogproc.network.bundle import Bundle
from catalogproc.network.predictor import Predictor
from catalogproc.training.fit_calibration import fit_uncertainties

JOB = Job("test", propagation="none")
SPECTROSCOPIC = Job("test", inputs=("bprp", "jh", "jk", "logebv"), propagation="none")
"""The same without the parallax."""

APART = ("g_fakemag", "e_g_fakemag", "mg_obs", "mg0", "log_lum_g", "dist", "dist_16", "dist_84",
         "nn_parallax", "e_nn_parallax")  # fmt: skip
"""What is predicted without the parallax."""

COEFFICIENTS = [
    f"{band}_{kind}"
    for band in ("bp", "rp")
    for kind in ("coefficients", "coefficient_errors", "n_relevant_bases")
]

STARS = 30


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A network that encodes such stars twice."""
    return tiny_bundle(tmp_path_factory.mktemp("bundle"))


@pytest.fixture(scope="module")
def late(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A network that encodes them once."""
    return tiny_bundle(tmp_path_factory.mktemp("late"), late=("g_fakemag",))


@pytest.fixture(scope="module", params=["twice", "once"])
def either(request: pytest.FixtureRequest, bundle: Bundle, late: Bundle) -> Bundle:
    return bundle if request.param == "twice" else late


def gaia(sigmas: float = 0.0, without: int = 0) -> pa.Table:
    """gaia_source columns of 30 real giants, with parallaxes moved by some of their errors.

    The first stars have no parallax.
    """
    kepler = real_stars.kepler()
    columns = {}
    for column in load_contract("gaia_source").columns:
        name = {"ks_m": "k_m", "ks_msigcom": "k_msigcom"}.get(column.name, column.name)
        if name in kepler:
            columns[column.name] = pa.array(kepler[name][:STARS], from_pandas=True)
    parallax = kepler["parallax"][:STARS] + sigmas * kepler["parallax_error"][:STARS]
    parallax[:without] = np.nan
    columns["parallax"] = pa.array(parallax, from_pandas=True)
    columns = {
        name: values.cast(load_contract("gaia_source")[name].arrow_type)
        for name, values in columns.items()
    }
    ids = spectra().column("source_id")
    return pa.table({"source_id": ids, "ruwe": pa.array(np.ones(STARS, np.float32)), **columns})


def spectra() -> pa.Table:
    return real_stars.faint().slice(0, STARS)


def array(table: pa.Table, name: str) -> np.ndarray:
    return np.asarray(table.column(name).to_numpy())


@contextmanager
def counted(engine: Engine) -> Iterator[list[int]]:
    """Count the stars that the network encodes."""
    network, found = engine._predictor.forward, [0]
    encode = network.encode

    def counting(tokens):  # type: ignore[no-untyped-def]
        found[0] += len(tokens)
        return encode(tokens)

    network.encode = counting
    try:
        yield found
    finally:
        del network.encode


def test_the_kepler_giants_have_usable_parallaxes(bundle: Bundle) -> None:
    tokens = Engine(bundle, JOB).features(spectra(), gaia())
    assert tokens.parallax_usable.all()
    assert (tokens.by_parallax.sum(axis=1) == 1).all()
    column = bundle.vocabulary.column("g_fakemag")
    assert tokens.by_parallax[:, column].all()
    relative = tokens.errors[:, column] / tokens.values[:, column]
    np.testing.assert_allclose(relative, tokens.e_parallax / tokens.parallax_zpc, rtol=1e-6)


@pytest.mark.parametrize("propagation", ["none", "first_order", "sampled"])
def test_a_moved_parallax_changes_log_g_and_nothing_that_is_compared_with_it(
    either: Bundle, propagation: str
) -> None:
    engine = Engine(either, replace(JOB, propagation=propagation, draws=16))
    one, other = (engine.process(spectra(), gaia(sigmas)) for sigmas in (0.0, 5.0))
    for name in APART:
        assert array(one, name).tobytes() == array(other, name).tobytes(), name
    for name in ("logg", "teff", "mass", "m_h"):
        assert (array(one, name) != array(other, name)).all(), name
    # The difference to the prediction moves by what the parallax moved, in units of both errors.
    both = np.hypot(array(one, "e_nn_parallax"), array(one, "e_parallax"))
    moved = array(one, "plx_nsig") - array(other, "plx_nsig")
    np.testing.assert_allclose(moved, 5.0 * gaia_error() / both, rtol=1e-3)


def gaia_error() -> np.ndarray:
    return real_stars.kepler()["parallax_error"][:STARS]


def test_what_is_compared_with_the_parallax_is_what_a_job_without_it_predicts(
    either: Bundle,
) -> None:
    with_it = Engine(either, JOB).process(spectra(), gaia())
    without = Engine(either, SPECTROSCOPIC).process(spectra(), gaia())
    for name in (*APART, "plx_nsig", "dist_comb", "dist_comb_16", "dist_comb_84"):
        np.testing.assert_allclose(array(with_it, name), array(without, name), rtol=2e-4, atol=1e-5)
    moved = np.abs(array(with_it, "logg") - array(without, "logg")) / array(without, "e_logg")
    assert (moved > 1e-3).all()
    assert (array(with_it, "n_tokens") - array(without, "n_tokens") == 1).all()


def test_a_parallax_that_contradicts_the_spectrum_is_flagged_though_it_is_an_input(
    either: Bundle,
) -> None:
    flag = load_flags()["PLX_INCONSISTENT"].value
    engine = Engine(either, JOB)
    wrong = engine.process(spectra(), gaia(sigmas=2e4))
    assert (array(wrong, "quality_flags") & flag > 0).all()
    assert (array(wrong, "plx_nsig") < -10).all()


def test_the_input_flag_names_the_stars_whose_parallax_was_read(either: Bundle) -> None:
    read = load_input_flags()["PLX_INPUT"].value
    flags = [
        array(Engine(either, job).process(spectra(), gaia(without=7)), "input_flags") & read > 0
        for job in (JOB, SPECTROSCOPIC)
    ]
    assert (flags[0] == (np.arange(STARS) >= 7)).all()
    assert not flags[1].any()


def test_the_input_flag_names_the_stars_whose_errors_were_assumed(either: Bundle) -> None:
    """2MASS magnitudes of the first seven have no error; without 2MASS nothing is assumed."""
    table = gaia()
    place = table.column_names.index("j_msigcom")
    errors = array(table, "j_msigcom").copy()
    errors[:7] = np.nan
    column = pa.array(errors, from_pandas=True).cast(table.schema.field(place).type)
    without = table.set_column(place, "j_msigcom", column)
    assumed = load_input_flags()["ERROR_ASSUMED"].value
    job = replace(JOB, inputs=("jh", "jk"))
    for given, wanted in ((table, 0), (without, 7), (without.drop_columns(["j_m"]), 0)):
        made = Engine(either, job).process(spectra(), given)
        assert ((array(made, "input_flags") & assumed > 0) == (np.arange(STARS) < wanted)).all()


def test_only_stars_with_a_parallax_are_encoded_twice(bundle: Bundle, late: Bundle) -> None:
    for model, second in ((bundle, STARS - 7), (late, 0)):
        engine = Engine(model, JOB)
        tokens = engine.features(spectra(), gaia(without=7))
        with counted(engine) as encoded:
            engine.predict(tokens)
        assert encoded[0] == STARS + second
        with counted(engine) as encoded:  # nobody has a parallax
            engine.predict(engine.features(spectra(), gaia(without=STARS)))
        assert encoded[0] == STARS
        only = Engine(model, replace(JOB, labels=("teff", "logg")))
        with counted(only) as encoded:  # nothing is compared with the parallax
            only.predict(tokens)
        assert encoded[0] == STARS


def test_a_star_without_a_parallax_is_predicted_as_by_a_job_without_it(either: Bundle) -> None:
    one, other = (
        Engine(either, job).process(spectra(), gaia(without=7)).slice(0, 7)
        for job in (JOB, SPECTROSCOPIC)
    )
    for name in ("teff", "logg", "mass", "e_mass", *APART):
        np.testing.assert_allclose(array(one, name), array(other, name), rtol=2e-4, atol=1e-5)


def test_derivatives_of_both_questions_give_one_covariance(either: Bundle) -> None:
    """Correlations of two labels of the first question, and none of the parallax in the second."""
    engine = Engine(either, replace(JOB, propagation="first_order", correlations=True))
    tokens = engine.features(spectra(), gaia())
    labels = engine.labels
    found = engine.predict(tokens)
    assert found.propagated is not None
    sharp = replace(tokens, errors=np.where(tokens.by_parallax, 0.0, tokens.errors))
    less = engine.predict(sharp).propagated
    assert less is not None
    f, logg = labels.index("g_fakemag"), labels.index("logg")
    sigma, others = found.propagated.sigma, less.sigma
    np.testing.assert_allclose(sigma[:, f], others[:, f], rtol=1e-6)
    assert (sigma[:, logg] > others[:, logg]).all()
    eigenvalues = np.linalg.eigvalsh(found.propagated.covariance)
    assert (eigenvalues >= -1e-6 * eigenvalues[:, -1:]).all()


def test_draws_and_derivatives_agree_for_both_questions(either: Bundle) -> None:
    tokens = Engine(either, JOB).features(spectra(), gaia())
    small = replace(tokens, errors=1e-3 * tokens.errors)
    sigma = {}
    for method in ("first_order", "sampled"):
        job = replace(JOB, propagation=method, draws=200, inflate_errors=False)
        found = Engine(either, job).predict(small).propagated
        assert found is not None
        sigma[method] = found.sigma
    ratio = sigma["sampled"] / sigma["first_order"]
    assert np.median(np.abs(ratio - 1), axis=0).max() < 0.08


def test_the_luminosity_is_calibrated_as_it_is_predicted(late: Bundle) -> None:
    """The calibration and the coverage of what is compared with the parallax do not see it."""
    random, scales = np.random.default_rng(5), late.standardisation
    vocabulary = late.vocabulary
    values = scales.center + scales.scale * random.normal(size=(700, len(vocabulary)))
    column, labels = vocabulary.column("g_fakemag"), vocabulary.columns(vocabulary.named("label"))
    truth = np.full(values.shape, np.nan)
    truth[:, labels] = values[:, labels]
    values[:, labels] = np.nan
    errors, g_mag = 0.01 * np.abs(values), random.uniform(9, 15, len(values))
    model = replace(late, requestable=("logg", "logebv", "g_fakemag"))
    calibrations, coverages = [], []
    for parallax in (np.nan, truth[:, column]):
        values[:, column], errors[:, column] = parallax, 0.1 * np.abs(parallax)
        holdout = Holdout(values.copy(), errors.copy(), truth, np.zeros_like(truth), g_mag,
                          np.ones(len(values), dtype=bool), np.arange(len(values)))  # fmt: skip
        made = fit_uncertainties(Predictor(model), holdout)
        calibrations.append(made.by_label)
        calibrated = replace(model, calibration=replace(made, latent=None))
        found = measure_coverage(Predictor(calibrated), holdout, Job("test"))
        coverages.append({row.label: row for row in found.rows if row.bin == "all"})
    for one, other in zip(*(made["g_fakemag"].terms for made in calibrations), strict=True):
        np.testing.assert_allclose(one.values, other.values, atol=0.01)  # of the fit
    one, other = (made["logg"].quantiles for made in calibrations)
    assert (one != other).any()
    for name in ("within_68", "z_sd"):
        one, other = (getattr(found["g_fakemag"], name) for found in coverages)
        assert one == pytest.approx(other, abs=0.003)


def test_a_table_s_distance_does_not_depend_on_its_parallaxes(either: Bundle) -> None:
    model = Model(either, Predictor(either))
    answers = []
    for sigmas in (0.0, 5.0):
        table = gaia(sigmas)
        for name in COEFFICIENTS:
            table = table.append_column(name, spectra().column(name))
        answers.append(model.predict(table, ["logg", "g_fakemag"], job=JOB))
    one, other = answers
    for name in ("g_fakemag", "e_g_fakemag"):
        assert array(one, name).tobytes() == array(other, name).tobytes()
    assert (array(one, "logg") != array(other, "logg")).all()


def test_a_luminosity_that_is_given_is_not_its_own_prediction(either: Bundle) -> None:
    model = Model(either, Predictor(either))
    given = pa.table({"teff": [4500.0, 4500.0, None], "g_fakemag": [300.0, 500.0, 400.0]})
    found = model.predict(given, ["g_fakemag", "logg"])
    f = array(found, "g_fakemag")
    assert f[0] == f[1]
    assert np.isnan(f[2])  # nothing else is known of it
    assert np.isfinite(array(found, "logg")).all()
