"""Tokens of a model whose basis is canonical, and the covariance of their errors."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from support import real_stars
from support.bundles import tiny_bundle

from catalogproc.errors import ReleaseError
from catalogproc.features import canonical, canonical_correlations
from catalogproc.features.canonical_tables import columns, measured
from catalogproc.features.input_errors import input_noise
from catalogproc.features.star_batch import read
from catalogproc.features.tokens import Tokens, from_stars
from catalogproc.flags import load_flags
from catalogproc.inference.engine import Engine
from catalogproc.job import Job
from catalogproc.network.input_covariance import draw_errors
from catalogproc.readers.convert import convert
from catalogproc.readers.xp import read_spectra
from catalogproc.spectra.files import write_spectra
from catalogproc.spectra.generated import Spectra
from catalogproc.vocabulary import BANDS, load_vocabulary

ARCHIVE = load_vocabulary()
VOCABULARY = replace(ARCHIVE, basis="canonical")
JOB = Job("canonical", inputs=("bprp",))


def made(table: pa.Table, job: Job = JOB) -> Tokens:
    return from_stars(read(table, None, VOCABULARY), VOCABULARY, job)


def direct(table: pa.Table, correlated: bool = False) -> canonical.CanonicalSpectra:
    names = ["coefficients", "coefficient_errors"]
    names += ["coefficient_correlations"] if correlated else []
    parts = (
        {band: real_stars.stacked(table, f"{band}_{name}") for band in BANDS} for name in names
    )
    return canonical.from_coefficients(*parts)


def with_basis(table: pa.Table, spectra: canonical.CanonicalSpectra) -> pa.Table:
    """The same stars as a table of canonical coefficients."""
    content = {"source_id": table["source_id"]}
    for band in BANDS:
        content[f"{band}_coefficients"] = pa.array(list(spectra.values[band]))
        content[f"{band}_coefficient_errors"] = pa.array(list(spectra.errors[band]))
    return pa.table(content | {"basis_id": pa.repeat(canonical.BASIS_ID, len(table))})


def test_tokens_are_the_relevant_canonical_coefficients_over_the_g_flux() -> None:
    table = real_stars.faint().slice(0, 200)
    tokens, spectra = made(table), direct(table)
    for band in BANDS:
        at = VOCABULARY.coefficient_columns(band)[:30]
        relevant = spectra.relevant()[band][:, :30]
        for found, wanted in ((tokens.values, spectra.values), (tokens.errors, spectra.errors)):
            scaled = np.where(relevant, wanted[band][:, :30] / tokens.g_flux[:, None], np.nan)
            np.testing.assert_array_equal(found[:, at], scaled)
        counts = tokens.n_bp_relevant if band == "bp" else tokens.n_rp_relevant
        assert (counts <= table[f"{band}_n_relevant_bases"].to_numpy() + 40).all()
    every = made(table, replace(JOB, coefficients=55, mask_irrelevant=False))
    for band in BANDS:
        absent = np.isnan(every.values[:, VOCABULARY.coefficient_columns(band)]).all(axis=0)
        np.testing.assert_array_equal(absent, ~measured()[columns(band)])


def test_canonical_input_gives_the_same_tokens_and_is_refused_elsewhere() -> None:
    table = real_stars.faint().slice(0, 50)
    again = with_basis(table, direct(table))
    one, two = made(table), made(again)
    np.testing.assert_allclose(one.values, two.values, rtol=1e-9)
    np.testing.assert_allclose(one.errors, two.errors, rtol=1e-9)
    with pytest.raises(ReleaseError, match=r"canonical coefficients(.|\n)*XP_CONTINUOUS"):
        read(again, None, ARCHIVE)
    at = again.column_names.index("basis_id")
    unknown = again.set_column(at, "basis_id", pa.repeat("canonical-x", len(table)))
    with pytest.raises(ReleaseError, match="not known"):
        read(unknown, None, VOCABULARY)


def test_a_hidden_band_changes_no_input() -> None:
    table = real_stars.faint().slice(0, 40)
    g = pa.table({"source_id": table["source_id"], "phot_g_mean_mag": np.full(40, 15.0)})
    for band, hidden in (("bp", "rp"), ("rp", "bp")):
        shown = real_stars.nulled(table, hidden, list(range(40)))
        other = shown.set_column(
            shown.column_names.index(f"{hidden}_coefficient_errors"),
            f"{hidden}_coefficient_errors",
            pa.array([[1.0] * 55] * 40),
        )
        job = replace(JOB, inputs=())
        one, two = (
            from_stars(read(part, g, VOCABULARY), VOCABULARY, job) for part in (shown, other)
        )
        np.testing.assert_array_equal(one.values, two.values)
        np.testing.assert_array_equal(one.errors, two.errors)
        assert np.isnan(one.values[:, VOCABULARY.coefficient_columns(hidden)]).all()
        assert not getattr(one, hidden).any()
        assert getattr(one, band).all()


def test_files_of_canonical_spectra_carry_their_basis(tmp_path: Path) -> None:
    table = real_stars.faint().slice(0, 5)
    spectra = direct(table)
    generated = Spectra(spectra.values, spectra.errors, np.full(5, 15.0), basis="canonical")
    ids = np.arange(5) + 1
    write_spectra(tmp_path / "made.parquet", generated, ids, {}, {})
    (again,) = read_spectra(tmp_path / "made.parquet")
    assert set(again.column("basis_id").to_pylist()) == {canonical.BASIS_ID}
    np.testing.assert_allclose(
        made(pa.table(again)).values, made(with_basis(table, spectra)).values, rtol=1e-6
    )
    with pytest.raises(ReleaseError, match="not read by this model"):
        read(again, None, ARCHIVE)
    archive = Spectra(spectra.values, spectra.errors, np.full(5, 15.0))
    write_spectra(tmp_path / "archive.parquet", archive, ids, {}, {})
    (plain,) = read_spectra(tmp_path / "archive.parquet")
    assert "basis_id" not in plain.schema.names
    (part,) = convert([tmp_path / "made.parquet"], tmp_path / "converted")
    (kept,) = read_spectra(part)
    assert kept.column("basis_id").equals(again.column("basis_id"))


def test_errors_of_tokens_have_the_covariance_of_the_archives() -> None:
    table = real_stars.bright().slice(0, 2)
    tokens = made(table, replace(JOB, coefficients=55))
    job = replace(JOB, inflate_errors=False, coefficients=20)
    noise = input_noise(tokens, VOCABULARY, job)
    (group,) = noise.correlated
    assert len(group.columns) == 40
    place = np.r_[0:20, 55:75]
    errors = {band: real_stars.stacked(table, f"{band}_coefficient_errors") for band in BANDS}
    packed = {band: real_stars.stacked(table, f"{band}_coefficient_correlations") for band in BANDS}
    both = np.concatenate([errors[band] for band in BANDS], axis=1)
    factor = canonical_correlations.covariance_factor("both", both, packed)
    wanted = (factor @ factor.transpose(0, 2, 1))[:, place][:, :, place]
    wanted /= tokens.g_flux[:, None, None] ** 2
    e = noise.errors[:, group.columns].astype(float)
    ours = e[:, :, None] * group.matrix * e[:, None, :]
    known = np.isfinite(ours)
    scale = np.sqrt(np.einsum("nii,njj->nij", wanted, wanted))
    assert np.abs((ours - wanted) / scale)[known].max() < 1e-4
    assert np.abs((wanted / scale)[:, :20, 20:]).max() > 0.05  # it crosses bands
    # Draws by the factor have the same covariance; with inflated errors too.
    for one in (job, replace(job, inflate_errors=True)):
        noise = input_noise(tokens, VOCABULARY, one)
        (group,) = noise.correlated
        drawn = np.stack(
            [draw_errors(noise, noise.cholesky(), np.array([5, 9]), n) for n in range(4000)]
        )[:, 0][:, group.columns]
        filled = noise.filled()[0, group.columns]
        use = filled > 0
        found = (drawn / np.where(use, filled, 1.0))[:, use]
        found = found.T @ found / len(found)
        assert np.abs(found - group.matrix[0][use][:, use]).max() < 0.1


def test_a_star_with_one_band_has_its_own_operator_and_its_flag(tmp_path: Path) -> None:
    engine = Engine(tiny_bundle(tmp_path / "model", VOCABULARY), JOB)
    table = real_stars.nulled(real_stars.bright().slice(0, 4), "bp", [2])
    auxiliary = real_stars.bright_auxiliary().slice(0, 4)
    tokens = engine.features(table, auxiliary)
    bp, rp = (VOCABULARY.coefficient_columns(band) for band in BANDS)
    assert np.isnan(tokens.values[2, bp]).all()
    errors = {band: real_stars.stacked(table.slice(2, 1), f"{band}_coefficient_errors")
              for band in ("rp",)}  # fmt: skip
    alone = canonical.from_coefficients(
        {"bp": np.full((1, 55), np.nan), "rp": real_stars.stacked(table.slice(2, 1),
                                                                   "rp_coefficients")},
        {"bp": np.full((1, 55), np.nan)} | errors,
    )  # fmt: skip
    shown = np.isfinite(tokens.values[2, rp])
    assert shown.sum() == 30
    np.testing.assert_allclose(
        tokens.values[2, rp][shown], alone.values["rp"][0][shown] / tokens.g_flux[2], rtol=1e-12
    )
    catalog = engine.process(table, auxiliary)
    flag = load_flags()["XP_ONE_BAND"].value
    raised = (catalog["quality_flags"].to_numpy() & flag) != 0
    assert raised.tolist() == [False, False, True, False]
    assert np.isfinite(catalog["teff"].to_numpy()).all()


def test_errors_unlike_any_spectrum_stay() -> None:
    """The mean correlations do not hold for them: no error is NaN or zero."""
    table = real_stars.faint().slice(0, 20)
    coefficients = {band: real_stars.stacked(table, f"{band}_coefficients") for band in BANDS}
    rng = np.random.default_rng(2)
    errors = {band: 10 ** rng.uniform(-6, 6, (20, 55)) for band in BANDS}
    made = canonical.from_coefficients(coefficients, errors)
    assert all((made.errors[band] > 0).all() for band in BANDS)


@pytest.mark.parametrize("propagation", ["first_order", "sampled"])
def test_the_engine_predicts_from_canonical_tokens(tmp_path: Path, propagation: str) -> None:
    bundle = tiny_bundle(tmp_path / "model", VOCABULARY)
    assert bundle.vocabulary.basis == "canonical"
    job = Job("canonical", inputs=("bprp",), propagation=propagation, draws=16, correlations=True)
    table = real_stars.bright().slice(0, 6)
    table = real_stars.nulled(table, "bp", [2])
    catalog = Engine(bundle, job).process(table)
    again = Engine(bundle, job).process(table.slice(3, 2))
    teff, e_teff = catalog["teff"].to_numpy(), catalog["e_teff_input"].to_numpy()
    assert np.isfinite(teff[[0, 1, 3, 4, 5]]).all()
    assert (e_teff[[0, 1, 3, 4, 5]] > 0).all()
    np.testing.assert_allclose(again["teff"].to_numpy(), teff[3:5], rtol=1e-5)
    np.testing.assert_allclose(again["e_teff_input"].to_numpy(), e_teff[3:5], rtol=1e-3)
