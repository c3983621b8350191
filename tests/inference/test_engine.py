"""Rows of the catalog: each number by a second method, and independent of other stars."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from support import real_stars
from support.bundles import LABELS, tiny_bundle

from catalogproc.contract import load_contract
from catalogproc.errors import JobError
from catalogproc.flags import load_flags, load_input_flags
from catalogproc.inference import engine as module
from catalogproc.inference.catalog_columns import LABEL_COLUMNS, evolution
from catalogproc.inference.engine import Engine
from catalogproc.inference.label_distribution import LabelDistribution, calibration_of
from catalogproc.job import Job

JOB = Job("test", labels=LABELS)
PERCENTILES = (15.8655, 50.0, 84.1345)  # mean ± 1 sigma of a Gaussian


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return tiny_bundle(tmp_path_factory.mktemp("bundle"))


@pytest.fixture(scope="module")
def engine(bundle):
    return Engine(bundle, JOB)


@pytest.fixture(scope="module")
def faint(engine):
    """1,500 real stars without gaia_source, in one piece."""
    return engine.process(real_stars.faint())


def array(table: pa.Table, name: str) -> np.ndarray:
    return table.column(name).to_numpy()


def flag_names(table: pa.Table, row: int = 0) -> list[str]:
    return load_flags().words(int(array(table, "quality_flags")[row]))


def gaia(rows: int) -> pa.Table:
    """gaia_source and 2MASS columns of real red giants, combined with other stars' spectra.

    For what follows from photometry and parallax alone: no spectra of these giants are here.
    """
    kepler = real_stars.kepler()
    contract = load_contract("gaia_source")
    columns = {}
    for column in contract.columns:
        name = {"ks_m": "k_m", "ks_msigcom": "k_msigcom"}.get(column.name, column.name)
        if name in kepler:
            values = kepler[name][:rows]
            columns[column.name] = pa.array(values, from_pandas=True).cast(column.arrow_type)
    columns["ruwe"] = pa.array(np.ones(rows, np.float32))
    return pa.table({"source_id": real_stars.faint().column("source_id").slice(0, rows)} | columns)


@pytest.fixture(scope="module")
def combined(engine):
    auxiliary = gaia(300)
    return engine.process(real_stars.faint().slice(0, 300), auxiliary), auxiliary


def test_the_table_follows_the_contract_in_the_order_of_the_spectra(faint):
    load_contract("catalog").check(faint)
    assert faint.num_rows == 1500
    assert array(faint, "source_id").tolist() == array(real_stars.faint(), "source_id").tolist()


def test_every_real_star_gets_finite_predictions(faint):
    for name in (LABEL_COLUMNS[label] for label in LABELS):
        assert np.isfinite(array(faint, name)).all()
        assert (array(faint, f"e_{name}") > 0).all()
    assert not any("INFER_FAIL" in flag_names(faint, row) for row in range(1500))


def agree(a: pa.Table, b: pa.Table) -> None:
    """Inputs bit for bit; predictions to 2e-4 of their sigma (1e-4 each) and float32 rounding."""
    load_contract("catalog").check(b)
    answered = set()
    for name in (LABEL_COLUMNS[label] for label in LABELS):
        x, y, sigma = array(a, name), array(b, name), array(a, f"e_{name}")
        assert (np.abs(x - y) <= 2e-4 * sigma + 4 * np.spacing(np.abs(x))).all(), name
        np.testing.assert_allclose(array(b, f"e_{name}"), sigma, rtol=2e-4)
        answered |= {name, f"e_{name}"}
    for name in (LABEL_COLUMNS[label] for label in LABELS):
        part = f"e_{name}_input"
        np.testing.assert_allclose(array(b, part), array(a, part), rtol=1e-3)
        answered.add(part)
    correlations = {name for name in a.column_names if name.startswith("corr_")}
    for name in correlations:
        np.testing.assert_allclose(array(b, name), array(a, name), atol=1e-3)
    answered |= correlations
    derived = {"mass_16", "mass_84", "age", "e_age", "age_16", "age_84", "ebv", "ebv_16",
               "ebv_84", "ebv_true", "av", "mg_obs", "mg0", "log_lum_g", "dist", "dist_16",
               "dist_84", "nn_parallax", "e_nn_parallax", "dist_comb", "dist_comb_16",
               "dist_comb_84", "plx_nsig"}  # fmt: skip
    for name in derived:
        np.testing.assert_allclose(array(b, name), array(a, name), rtol=0.01, atol=1e-3)
    for name in set(a.column_names) - answered - derived:
        assert array(a, name).tobytes() == array(b, name).tobytes() or a.column(name).equals(
            b.column(name)
        ), name


def test_the_order_of_the_stars_does_not_matter(engine, faint):
    order = pa.array(np.random.default_rng(1).permutation(1500))
    agree(faint.take(order), engine.process(real_stars.faint().take(order)))


@pytest.mark.parametrize("size", [1, 7, 400])
def test_batches_do_not_matter(engine, faint, size):
    rows = min(1500, 40 * size)
    pieces = [
        engine.process(real_stars.faint().slice(start, size)) for start in range(0, rows, size)
    ]
    agree(faint.slice(0, rows), pa.concat_tables(pieces).slice(0, rows))


def test_the_engine_s_own_pieces_do_not_matter(engine, faint, monkeypatch):
    monkeypatch.setattr(module, "PIECE", 64)
    agree(faint, engine.process(real_stars.faint()))


def test_pieces_of_spectra_and_gaia_source_stay_matched(engine, combined, monkeypatch):
    table, auxiliary = combined
    monkeypatch.setattr(module, "PIECE", 64)
    agree(table, engine.process(real_stars.faint().slice(0, 300), auxiliary))


def test_no_rows_give_an_empty_table(engine):
    empty = engine.process(real_stars.faint().slice(0, 0))
    load_contract("catalog").check(empty)
    assert empty.num_rows == 0


def test_percentiles_equal_those_of_random_draws(engine, faint):
    """16th, 50th and 84th percentile from a million draws of the predicted distribution."""
    rng = np.random.default_rng(3)
    unit = rng.standard_normal(1_000_000)
    for row in (3, 77, 1234):
        star = {
            column.name: float(array(faint, column.name)[row])
            for column in load_contract("catalog").columns
            if column.type == "float32"
        }
        mass = np.exp(np.log(star["mass"]) + star["e_mass"] / star["mass"] * unit)
        age = 10 ** (star["log_age"] + star["e_log_age"] * unit - 9)
        ebv = np.exp(star["ln_ebv"] + star["e_ln_ebv"] * unit)
        f = np.exp(np.log(star["g_fakemag"]) + star["e_g_fakemag"] / star["g_fakemag"] * unit)
        g = float(array(faint, "phot_g_mean_mag")[row])
        dist = 10 ** (0.2 * g) / f
        for name, draws in (("mass", mass), ("age", age), ("ebv", ebv), ("dist", dist)):
            found = [star[f"{name}_16"], star.get(name), star[f"{name}_84"]]
            wanted = np.percentile(draws, PERCENTILES)
            tolerance = 0.06 if name == "ebv" else 0.01  # sigma of ln E(B-V) is 5 to 10 here
            np.testing.assert_allclose(found, wanted, rtol=tolerance)


def test_mass_and_age_percentiles_are_positive_and_the_age_error_is_not_first_order():
    mass, e_mass = np.array([1.0, 0.2, np.nan]), np.array([0.1, 0.5, 0.3])
    log_age, e_log_age = np.array([9.5, 9.5, 9.5]), np.array([0.01, 0.3, 0.6])
    columns = evolution(
        {"log_age": log_age},
        {
            "mass": LabelDistribution(calibration_of({}, "mass"), mass, e_mass),
            "log_age": LabelDistribution(calibration_of({}, "log_age"), log_age, e_log_age),
        },
    )
    np.testing.assert_allclose(columns["mass_16"], [np.exp(-0.1), 0.2 * np.exp(-2.5), np.nan])
    np.testing.assert_allclose(columns["mass_84"], [np.exp(0.1), 0.2 * np.exp(2.5), np.nan])
    np.testing.assert_allclose(columns["age"], 3.1623, rtol=1e-4)
    half = columns["age_84"] - columns["age_16"]
    np.testing.assert_allclose(columns["e_age"], half / 2)
    first_order = np.log(10) * columns["age"] * [0.01, 0.3, 0.6]
    assert columns["e_age"][0] == pytest.approx(first_order[0], rel=1e-3)
    assert columns["e_age"][1] == pytest.approx(columns["age"][1] * np.sinh(np.log(10) * 0.3))
    assert (columns["e_age"] / first_order)[2] > 1.3
    assert (columns["age_16"] > 0).all()


def test_luminosity_distance_and_parallax_agree(faint):
    g, dist, m_g = (array(faint, name) for name in ("phot_g_mean_mag", "dist", "mg_obs"))
    known = np.isfinite(dist)
    assert known.mean() > 0.9
    # the distance modulus, with the distance in pc
    np.testing.assert_allclose((g - m_g)[known], 5 * np.log10(100 * dist)[known], atol=1e-4)
    np.testing.assert_allclose((array(faint, "nn_parallax") * dist)[known], 1, rtol=1e-5)
    ebv = array(faint, "ebv")
    np.testing.assert_allclose(array(faint, "ebv_true"), 0.884 * ebv, rtol=1e-6)
    np.testing.assert_allclose(array(faint, "av"), 3.1 * 0.884 * ebv, rtol=1e-6)
    absorbed = (m_g - array(faint, "mg0"))[known]
    assert (absorbed >= 0).all()
    # A_G / A_V is between 0.55 and 0.95 for stars of any colour (Danielski et al. 2018), here
    # for extinctions that are neither lost in rounding nor absurd
    ratio = absorbed / array(faint, "av")[known]
    sane = (array(faint, "av")[known] > 0.1) & (array(faint, "av")[known] < 10)
    assert sane.sum() > 50
    assert ((ratio[sane] > 0.55) & (ratio[sane] < 0.95)).all()
    luminosity = 10 ** array(faint, "log_lum_g")[known]
    np.testing.assert_allclose(-2.5 * np.log10(luminosity) + 4.67, array(faint, "mg0")[known],
                               atol=2e-4)  # fmt: skip


def test_without_gaia_source_its_columns_are_nan(faint):
    for name in ("ra", "l", "parallax_zpc", "ruwe", "dist_comb", "plx_nsig"):
        assert np.isnan(array(faint, name)).all()
    assert (array(faint, "_healpix_29") == -1).all()
    flags = array(faint, "quality_flags")
    always = load_flags().mask("PLX_BAD", "NO_TMASS", "XP_PHOTOMETRY")
    never = load_flags().mask("RUWE", "BPRP_EXCESS", "XP_BLEND", "NSS_OR_VAR", "PLX_INCONSISTENT")
    assert (flags & always == always).all()
    assert (flags & never == 0).all()


def test_real_stars_with_their_gaia_source_rows(engine):
    spectra, auxiliary = real_stars.bright(), real_stars.bright_auxiliary()
    table = engine.process(spectra, auxiliary)
    g = auxiliary.column("phot_g_mean_mag").to_numpy()
    assert array(table, "phot_g_mean_mag").tolist() == g.tolist()
    assert (array(table, "quality_flags") & load_flags()["XP_PHOTOMETRY"].value == 0).all()
    # The table has no column that the zero-point is computed from, and no errors of magnitudes.
    parallax = auxiliary.column("parallax").to_numpy()
    np.testing.assert_allclose(array(table, "parallax_zpc"), parallax + 0.04, rtol=1e-6)
    assumed = sum(load_input_flags()[name].value for name in ("PLX_ZP_ASSUMED", "ERROR_ASSUMED"))
    assert (array(table, "input_flags") == assumed).all()
    error = pa.array(np.full(len(auxiliary), 0.03))
    with_error = engine.process(spectra, auxiliary.append_column("parallax_error", error))
    assert (array(with_error, "quality_flags") & load_flags()["PLX_BAD"].value == 0).all()
    np.testing.assert_allclose(array(with_error, "e_parallax"), np.hypot(0.03, 0.02), rtol=1e-6)
    assert np.isfinite(array(with_error, "plx_nsig")).all()
    # A source_id begins with the HEALPix pixel (order 12) of the position at detection.
    same = array(table, "_healpix_29") >> 34 == array(table, "source_id") >> 35
    assert same.mean() > 0.9
    # Synthetic photometry is near enough to Gaia's that the model reads nearly the same.
    alone = engine.process(spectra)
    np.testing.assert_allclose(array(alone, "phot_g_mean_mag"), g, atol=0.03)
    shift = np.abs(array(alone, "teff") - array(table, "teff")) / array(table, "e_teff")
    assert np.median(shift) < 0.2


def test_gaia_source_tokens_are_read_and_written(combined):
    table, auxiliary = combined
    assert array(table, "has_tmass").all()
    assert (array(table, "n_tokens") >= 4).all()
    assert "NO_TMASS" not in flag_names(table)
    parallax = auxiliary.column("parallax").to_numpy()
    corrected, zp = array(table, "parallax_zpc"), array(table, "parallax_zp")
    np.testing.assert_allclose(corrected + zp, parallax, rtol=1e-5)
    assert (np.abs(zp) < 0.1).all()


def test_combined_distance_is_the_weighted_mean_of_parallaxes(combined):
    table, _ = combined
    ours, e_ours = array(table, "nn_parallax"), array(table, "e_nn_parallax")
    gaias, e_gaias = array(table, "parallax_zpc"), array(table, "e_parallax")
    weights = [1 / e_ours**2, 1 / e_gaias**2]
    mean = (ours * weights[0] + gaias * weights[1]) / (weights[0] + weights[1])
    error = (weights[0] + weights[1]) ** -0.5
    np.testing.assert_allclose(array(table, "dist_comb"), 1 / mean, rtol=1e-4)
    np.testing.assert_allclose(array(table, "dist_comb_16"), 1 / (mean + error), rtol=1e-4)
    np.testing.assert_allclose(array(table, "dist_comb_84"), 1 / (mean - error), rtol=1e-4)
    tension = (ours - gaias) / np.hypot(e_ours, e_gaias)
    np.testing.assert_allclose(array(table, "plx_nsig"), tension, rtol=1e-3, atol=1e-4)


def test_a_star_of_one_band_with_photometry_is_predicted_and_flagged(engine):
    spectra = real_stars.nulled(real_stars.bright(), "bp", [0, 1])
    table = engine.process(spectra, real_stars.bright_auxiliary())
    for row in (0, 1):
        assert array(table, "n_bp_relevant")[row] == 0
        assert "XP_ONE_BAND" in flag_names(table, row)
        assert "NO_XP" not in flag_names(table, row)
    assert "XP_ONE_BAND" not in flag_names(table, 2)
    assert np.isfinite(array(table, "teff")).all()


def test_a_star_without_tokens_is_flagged(engine):
    spectra = real_stars.nulled(real_stars.bright(), "bp", [0])
    table = engine.process(spectra)
    assert array(table, "n_tokens")[0] == 0
    assert {"NO_XP", "FEW_TOKENS"} <= set(flag_names(table, 0))


def test_a_failed_prediction_is_nan_and_flagged_and_changes_no_other_star(engine):
    spectra = real_stars.bright().select(
        ["source_id"] + [f"{b}_{n}" for b in ("bp", "rp")
                         for n in ("coefficients", "coefficient_errors", "n_relevant_bases")]
    )  # fmt: skip
    at = spectra.column_names.index("rp_coefficients")
    values = spectra.column(at).to_pylist()
    values[4][3] = 1e308
    broken = spectra.set_column(at, "rp_coefficients", pa.array(values))
    table = engine.process(broken, real_stars.bright_auxiliary())
    load_contract("catalog").check(table)
    assert np.isnan(array(table, "teff")[4])
    assert "INFER_FAIL" in flag_names(table, 4)
    assert not array(table, "good_params")[4]
    agree(
        engine.process(spectra, real_stars.bright_auxiliary()).filter(pa.array(np.arange(30) != 4)),
        table.filter(pa.array(np.arange(30) != 4)),
    )


def test_labels_that_are_not_in_the_job_are_nan(bundle):
    table = Engine(bundle, replace(JOB, labels=("logg", "teff"))).process(real_stars.faint())
    load_contract("catalog").check(table)
    full = Engine(bundle, JOB).process(real_stars.faint())
    for name in ("teff", "logg"):
        near = np.abs(array(table, name) - array(full, name)) <= 2e-4 * array(full, f"e_{name}")
        assert near.all()
    for name in ("mass", "mass_16", "age", "e_age", "ebv", "av", "dist", "log_lum_g", "mg0"):
        assert np.isnan(array(table, name)).all()
    absent = load_flags().mask("INFER_FAIL", "UNC_MASS", "UNC_AGE", "AGE_LIMIT", "HIGH_EBV")
    assert (array(table, "quality_flags") & absent == 0).all()


def test_coefficients_outside_the_range_are_counted(bundle):
    narrow = replace(bundle, domain=replace(
        bundle.domain,
        low=np.where(np.arange(len(bundle.vocabulary)) == 0, 0.05, -np.inf),
        high=np.full(len(bundle.vocabulary), np.inf),
    ))  # fmt: skip
    table = Engine(narrow, JOB).process(real_stars.faint())
    spectra = real_stars.faint()
    g_flux = 10 ** ((25.6873668671 - array(table, "phot_g_mean_mag").astype(float)) / 2.5)
    bp0 = np.array([values[0] for values in spectra.column("bp_coefficients").to_pylist()])
    read = array(table, "n_bp_relevant") > 0
    wanted = (bp0 / g_flux < 0.05) & read
    clear = np.abs(bp0 / g_flux - 0.05) > 1e-6
    assert 0 < wanted.sum() < 1500
    assert (array(table, "tgt_box_nout")[clear] == wanted[clear]).all()
    raised = (array(table, "quality_flags") & load_flags()["XP_BOX"].value) > 0
    assert (raised == (array(table, "tgt_box_nout") > 0)).all()


def test_flags_from_gaia_source_columns(engine):
    spectra, auxiliary = real_stars.bright(), real_stars.bright_auxiliary()
    extra = {
        "ruwe": pa.array([2.0] + [1.0] * 29, pa.float32()),
        "phot_bp_rp_excess_factor": pa.array([1.2, 2.5] + [1.2] * 28, pa.float32()),
        "phot_bp_n_obs": pa.array([20] * 30, pa.int32()),
        "phot_rp_n_obs": pa.array([20] * 30, pa.int32()),
        "phot_bp_n_blended_transits": pa.array([0, 0, 15] + [1] * 27, pa.int32()),
        "phot_rp_n_blended_transits": pa.array([0, 0, 15] + [1] * 27, pa.int32()),
        "non_single_star": pa.array([0, 0, 0, 1] + [0] * 26, pa.int16()),
    }
    for name, values in extra.items():
        auxiliary = auxiliary.append_column(name, values)
    flags = array(engine.process(spectra, auxiliary), "quality_flags")
    for row, name in enumerate(("RUWE", "BPRP_EXCESS", "XP_BLEND", "NSS_OR_VAR")):
        raised = flags & load_flags()[name].value > 0
        assert raised.tolist() == [place == row for place in range(30)], name


def test_identifiers_of_model_and_run(bundle, engine, faint):
    assert set(faint.column("model_id").to_pylist()) == {bundle.hash[:8]}
    wanted = hashlib.sha256((JOB.hash + bundle.hash).encode()).hexdigest()[:8]
    assert set(faint.column("run_id").to_pylist()) == {wanted}
    other = Engine(bundle, replace(JOB, coefficients=20))
    assert other.run_id != engine.run_id
    assert Engine(bundle, JOB, run_id="cafe0000").run_id == "cafe0000"


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"labels": ("teff", "vbroad")}, "found: vbroad"),
        ({"labels": ("bp3",)}, "found: bp3"),
        ({"inputs": ("bprp", "w1")}, "found: w1"),
    ],
)
def test_a_job_with_unknown_labels_or_inputs_is_refused(bundle, changed, words):
    with pytest.raises(JobError, match=words):
        Engine(bundle, replace(JOB, **changed))


def test_labels_that_the_model_was_not_trained_for_are_refused(bundle):
    untrained = replace(bundle, requestable=("teff", "logg"))
    with pytest.raises(JobError, match=r"teff \| logg"):
        Engine(untrained, JOB)


def test_the_self_check_passes(engine):
    engine.self_check()
