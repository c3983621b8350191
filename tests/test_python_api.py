"""Python's face: a catalog opened, a model asked about one's own table, a run in a call."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy import units
from astropy.table import MaskedColumn, Table
from support import real_stars
from support.bundles import LABELS, tiny_bundle
from support.catalogs import finished_run
from support.paths import EXAMPLES

import catalogproc
from catalogproc.errors import BundleError, ContractError, JobError, ResumeError
from catalogproc.export.open_catalog import Catalog
from catalogproc.inference.catalog_columns import CATALOG_LABELS, LABEL_COLUMNS
from catalogproc.inference.engine import Engine
from catalogproc.inference.model import Model
from catalogproc.job import Job
from catalogproc.network.predictor import Predictor
from catalogproc.network.uncertainty_calibration import LabelCalibration, Term
from catalogproc.spectra.infer import infer

CONTRACT = catalogproc.load_contract("catalog")


@pytest.fixture(scope="module")
def stars(tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    folder = tmp_path_factory.mktemp("run")
    finished_run(folder, files=2, chunks=2, rows=60)
    return catalogproc.open_catalog(folder)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    folder = tmp_path_factory.mktemp("model")
    tiny_bundle(folder / "m")
    return catalogproc.load_model(folder / "m")


@pytest.fixture(scope="module")
def calibrated(model: Model) -> Model:
    """The same with calibrations that depend on G, dust, log g and [M/H]."""
    terms = tuple(
        Term(name, np.array([0.0, 15.0]), np.array([-0.3, 0.4]))
        for name in ("sigma", "phot_g_mean_mag", "ln_ebv", "logg", "m_h")
    )
    by_label = {label: LabelCalibration(terms) for label in LABELS}
    bundle = replace(model.bundle, calibration=replace(model.bundle.calibration, by_label=by_label))
    return Model(bundle, Predictor(bundle))


# ---------------------------------------------------------------- a catalog, opened


def test_the_same_stars_as_arrow_pandas_and_astropy(stars: Catalog) -> None:
    arrow, frame, table = stars.to_arrow(), stars.to_pandas(), stars.to_astropy()
    assert len(stars) == arrow.num_rows == len(frame) == len(table) == 240
    assert stars.columns == tuple(arrow.column_names) == tuple(frame.columns)
    assert table.colnames == list(stars.columns)
    for column in CONTRACT.columns:
        wanted = arrow[column.name].to_pylist()
        np.testing.assert_array_equal(frame[column.name].to_numpy(), wanted)
        np.testing.assert_array_equal(np.asarray(table[column.name]), wanted)
    assert frame["source_id"].dtype == table["source_id"].dtype == np.int64
    assert frame["good_params"].dtype == table["good_params"].dtype == bool


def test_astropy_and_arrow_know_the_units(stars: Catalog) -> None:
    table, arrow = stars.to_astropy(), stars.to_arrow()
    for column in CONTRACT.columns:
        assert str(table[column.name].unit or "") == column.unit
        assert table[column.name].description == column.description
        assert table[column.name].meta["ucd"] == column.ucd
        said = arrow.schema.field(column.name).metadata
        assert said.get(b"unit", b"").decode() == column.unit
    assert table["mass"].quantity.unit == units.solMass
    assert table["age"].quantity.to(units.yr).value.max() > 1e9
    assert table.meta["model_hash"] == stars.identity.model_hash


def test_only_what_is_asked_for(stars: Catalog) -> None:
    whole = stars.to_pandas()
    found = stars.to_pandas(["mass", "source_id"], where="good_mass_age and m_h > -0.5")
    wanted = whole.query("good_mass_age and m_h > -0.5")[["mass", "source_id"]]
    pd.testing.assert_frame_equal(found, wanted.reset_index(drop=True))
    assert stars.to_arrow(where="mass > 1e9").num_rows == 0
    assert stars.to_astropy(["run_id"], where="mass > 1e9").colnames == ["run_id"]
    assert sum(batch.num_rows for batch in stars.batches(["mass"])) == 240
    with pytest.raises(JobError, match="not a condition"):
        stars.to_arrow(where="mass")
    with pytest.raises(ContractError, match="no such column"):
        stars.to_arrow(["colour"])


def test_a_catalog_tells_where_it_comes_from(stars: Catalog, tmp_path: Path) -> None:
    assert "240 stars, model tiny" in repr(stars)
    assert stars.summary["rows_written"] == 240
    assert "run:run" in stars.provenance["activity"]
    assert stars.contract["mass"].unit == "solMass"
    with pytest.raises(ResumeError, match="holds no run"):
        catalogproc.open_catalog(tmp_path)
    finished_run(tmp_path / "x", files=1, chunks=1, rows=2)
    (tmp_path / "x" / "summary.json").unlink()
    with pytest.raises(ResumeError, match="has not ended"):
        _ = catalogproc.open_catalog(tmp_path / "x").summary


def test_a_column_has_its_unit_and_several_are_a_table(stars: Catalog) -> None:
    frame = stars.to_pandas()
    mass, age = stars["mass"], stars["age"]
    assert isinstance(mass, units.Quantity)
    assert (mass.unit, age.unit) == (units.solMass, units.Gyr)
    np.testing.assert_array_equal(mass.value, frame["mass"])
    assert np.nanmax(age.to_value("yr")) == pytest.approx(1e9 * frame["age"].max(), rel=1e-6)
    assert stars["source_id"].dtype == np.int64
    assert stars["good_params"].dtype == bool
    assert not isinstance(stars["source_id"], units.Quantity)
    table = stars[["source_id", "mass"]]
    assert table.colnames == ["source_id", "mass"]
    with pytest.raises(ContractError, match="no such column") as caught:
        _ = stars["masss"]
    assert caught.value.advice == "did you mean mass?"
    with pytest.raises(TypeError, match="the name of a column"):
        _ = stars[0]  # type: ignore[index]


def test_a_notebook_shows_the_first_stars_and_what_the_flags_say(stars: Catalog) -> None:
    page, frame = stars._repr_html_(), stars.to_pandas()
    assert "240 stars" in page
    assert f"{len(stars.columns)} columns" in page
    assert "<th>mass<br><small>solMass</small></th>" in page
    assert f"<td>{frame['source_id'][0]}</td>" in page
    assert page.count("<tr>") == page.count("</tr>")
    for name in ("good_params", "good_mass_age"):
        assert f"<td>{name}</td><td>{int(frame[name].sum())}</td>" in page, name
    assert "<script" not in page


def test_the_log_is_silent_until_somebody_asks(
    model: Model, capsys: pytest.CaptureFixture, caplog: pytest.LogCaptureFixture
) -> None:
    logger = logging.getLogger("catalogproc")
    assert any(isinstance(handler, logging.NullHandler) for handler in logger.handlers)
    with caplog.at_level(logging.INFO, "catalogproc"):
        model.predict(pa.table({"teff": [4800.0], "vsini": [3.0]}), labels=["logg"])
    assert "used: teff; ignored: vsini" in caplog.text
    said = capsys.readouterr()
    assert said.out == said.err == ""


# ---------------------------------------------------------------- a model and one's own table


def spectra_and_photometry() -> pa.Table:
    """Spectra of 30 real stars, arrays as lists, and their gaia_source columns."""
    source = real_stars.bright_auxiliary()
    table = real_stars.bright()
    for name in source.column_names:
        if name not in table.column_names:
            table = table.append_column(name, source[name])
    random = np.random.default_rng(2)
    ebv = pa.array(random.uniform(0.01, 0.2, 30).astype(np.float32))
    error = pa.array(np.full(30, 0.3, np.float32))
    return table.append_column("ebv", ebv).append_column("e_ln_ebv", error)


def of_a_run(model: Model, table: pa.Table, job: Job) -> pa.Table:
    """The catalog's rows by the engine of a run."""
    contract = catalogproc.load_contract("gaia_source")
    known = {name: table[name] for name in table.column_names if name in contract}
    contract_names = [c.name for c in catalogproc.load_contract("xp_continuous").columns]
    names = [name for name in contract_names if name in table.column_names]
    spectra = table.select([n for n in names if job.correlations or "correlations" not in n])
    return Engine(model.bundle, job).process(spectra, contract.assemble(known, len(table)))


@pytest.mark.parametrize(
    "job",
    [
        Job("plain", labels=LABELS),
        Job("correlated", labels=LABELS, correlations=True, inflate_errors=False),
        Job("no errors", labels=LABELS, propagation="none"),
        Job("few labels", labels=("teff", "mass"), inputs=("bprp",), coefficients=12),
    ],
    ids=lambda job: job.name,
)
def test_a_table_gets_the_values_and_errors_of_a_run(calibrated: Model, job: Job) -> None:
    table = spectra_and_photometry()
    wanted, found = of_a_run(calibrated, table, job), calibrated.predict(table, job=job)
    assert found.column_names == [
        "source_id",
        *(name for label in job.labels for name in (label, f"e_{label}")),
    ]
    assert found["source_id"].to_pylist() == table["source_id"].to_pylist()
    for label in job.labels:
        name = LABEL_COLUMNS[label]
        np.testing.assert_allclose(found[label], wanted[name], rtol=2e-6, err_msg=label)
        np.testing.assert_allclose(found[f"e_{label}"], wanted[f"e_{name}"], rtol=1e-5)
    assert found.schema.field("teff").metadata[b"unit"] == b"K"


@pytest.mark.parametrize("form", ["arrow", "pandas", "astropy", "csv", "ecsv", "fits", "vot",
                                  "parquet"])  # fmt: skip
@pytest.mark.parametrize("question", ["spectra", "labels"])
def test_the_same_question_gets_the_same_answer_on_all_roads(
    calibrated: Model, tmp_path: Path, form: str, question: str
) -> None:
    """Columns in capitals, in other units, with errors and missing values."""
    if question == "spectra":
        table = spectra_and_photometry()
        table = table.select([n for n in table.column_names if "correlations" not in n])
    else:
        table = pa.table({
            "TEFF": pa.array([4800.0, 4300.0, None]), "e_teff": [60.0, 400.0, 50.0],
            "Age": [4.5, None, 1.0], "age_error": [2.0, 1.0, 0.2], "ebv": [0.1, 0.2, None],
            "source_id": [5, 6, 7],
        })  # fmt: skip
    wanted = calibrated.predict(table, labels=["logg", "mass"])
    if form in ("arrow", "pandas", "astropy"):
        given = {"arrow": lambda: table, "pandas": table.to_pandas,
                 "astropy": lambda: in_astropy(table)}[form]()  # fmt: skip
        found = calibrated.predict(given, labels=["logg", "mass"])
    else:
        path = tmp_path / f"in.{form}"
        if form == "parquet":
            pq.write_table(table, path)
        else:
            of = {"csv": "ascii.csv", "ecsv": "ascii.ecsv", "fits": "fits", "vot": "votable"}[form]
            in_astropy(table, arrays=form != "csv").write(path, format=of)
        infer(path, ["logg", "mass"], tmp_path / "out.parquet", Predictor(calibrated.bundle))
        found = pq.read_table(tmp_path / "out.parquet")
    for name in ("logg", "e_logg", "mass", "e_mass"):
        np.testing.assert_allclose(found[name], wanted[name], rtol=1e-5, err_msg=name)
    if form not in ("arrow", "pandas", "csv", "parquet") and question == "labels":
        assert not np.allclose(wanted["logg"].to_numpy()[0], wanted["logg"].to_numpy()[1])


def in_astropy(table: pa.Table, arrays: bool = True) -> Table:
    """Temperatures in kK and ages in Myr where a format has units, else as they are."""
    made = Table()
    for name in table.column_names:
        column = table[name].combine_chunks()
        if pa.types.is_list(column.type):
            values = np.stack(column.to_numpy(zero_copy_only=False)).astype(np.float64)
            made[name] = values if arrays else [f"({', '.join(map(str, row))})" for row in values]
        elif column.null_count:
            mask = column.is_null().to_numpy(zero_copy_only=False)
            made[name] = MaskedColumn(column.fill_null(0).to_numpy(), mask=mask)
        else:
            made[name] = column.to_pylist()
    for name, unit, factor in (("TEFF", "kK", 1e-3), ("e_teff", "kK", 1e-3), ("Age", "Myr", 1e3),
                               ("age_error", "Myr", 1e3)):  # fmt: skip
        if name in made.colnames and arrays:
            made[name] = made[name] * factor
            made[name].unit = unit
    return made


def test_labels_are_named_in_any_case_and_derived_ones_are_those_of_infer(
    model: Model, tmp_path: Path
) -> None:
    table = pa.table({"teff": [4800.0, 4200.0], "m_h": [-0.1, 0.2]})
    found = model.predict(table, labels=["Age", "LOGG", "age"])
    assert found.column_names == ["age", "e_age", "age_16", "age_84", "logg", "e_logg"]
    assert found.schema.field("age").metadata[b"unit"] == b"Gyr"
    log_age = model.predict(table, labels=["log_age"])["log_age"].to_numpy()
    np.testing.assert_allclose(found["age"], 10.0 ** (log_age - 9.0), rtol=1e-5)
    pq.write_table(table, tmp_path / "in.parquet")
    infer(tmp_path / "in.parquet", ["AGE", "Logg"], tmp_path / "out.parquet",
          Predictor(model.bundle))  # fmt: skip
    again = pq.read_table(tmp_path / "out.parquet")
    for name in found.column_names:
        np.testing.assert_array_equal(found[name], again[name], err_msg=name)
    pq.write_table(
        table.append_column("spectrum", pa.array([[1.0], [2.0]])), tmp_path / "a.parquet"
    )
    with pytest.raises(JobError, match="no place for arrays"):
        infer(tmp_path / "a.parquet", ["age"], tmp_path / "a.csv", Predictor(model.bundle))
    with pytest.raises(JobError, match="apparent magnitude"):
        model.predict(table, labels=["dist"])
    with pytest.raises(JobError) as caught:
        model.predict(table, labels=["tef"])
    assert caught.value.advice == "did you mean teff?"


def test_larger_input_errors_make_larger_errors(model: Model) -> None:
    """By finite differences where the error of one token dominates."""
    step, wide = 2.0, 5_000.0
    table = pa.table({"teff": [4800.0 - step, 4800.0 + step, 4800.0, 4800.0],
                      "teff_error": [None, None, wide, 1e-3]})  # fmt: skip
    found = model.predict(table, labels=["logg", "m_h"])
    for label in ("logg", "m_h"):
        value, error = found[label].to_numpy().astype(float), found[f"e_{label}"].to_numpy()
        slope = abs(value[1] - value[0]) / (2 * step)
        assert error[3] == pytest.approx(0.5 * (error[0] + error[1]), rel=1e-3)
        assert error[2] == pytest.approx(max(slope * wide, error[3]), rel=0.02)


def test_a_row_without_a_token_gets_no_prediction(model: Model) -> None:
    found = model.predict(pa.table({"teff": [4800.0, None]}), labels=["logg"])
    assert np.isfinite(found["logg"].to_numpy()[0])
    assert np.isnan(found["logg"].to_numpy()[1])
    assert np.isnan(found["e_logg"].to_numpy()[1])


def test_a_model_names_the_columns_that_it_used(model: Model) -> None:
    table = pa.table({"Teff": [4800.0], "vsini": [3.0], "age": [4.0]})
    inputs = model.inputs(table)
    assert (inputs.used, inputs.ignored) == (("Teff", "age"), ("vsini",))
    found = model.predict(table)
    assert found.schema.metadata == {b"used": b"Teff, age", b"ignored": b"vsini"}
    assert "teff" not in found.column_names


def test_any_tokens_in_any_labels_out_whatever_the_table(model: Model) -> None:
    teff, m_h = [4800.0, 4200.0, 5100.0], [-0.1, np.nan, 0.2]
    arrow = model.predict(pa.table({"teff": teff, "m_h": m_h}), labels=["logg", "bp0"])
    frame = model.predict(pd.DataFrame({"teff": teff, "m_h": m_h}), labels=["logg", "bp0"])
    assert arrow.equals(frame)
    assert arrow.column_names == ["logg", "e_logg", "bp0", "e_bp0"]
    masked = Table({"m_h": MaskedColumn([-0.1, 0.0, 0.2], mask=[False, True, False])})
    masked["teff"] = np.array(teff) * 1e-3 * units.kK * 1e3 / 1e3
    table = model.predict(masked, labels=["logg", "bp0"])
    np.testing.assert_allclose(table["logg"].to_numpy(), arrow["logg"].to_numpy(), rtol=1e-5)
    # Only the second star's metallicity is unknown: as if it had no such column.
    alone = model.predict(pa.table({"teff": teff[1:2]}), labels=["logg"])
    np.testing.assert_allclose(alone["logg"].to_numpy(), arrow["logg"].to_numpy()[1:2], rtol=1e-5)
    assert not np.allclose(arrow["logg"].to_numpy()[0], arrow["logg"].to_numpy()[2])


def test_what_the_table_gives_is_not_asked_for(model: Model) -> None:
    found = model.predict(pa.table({"teff": [4800.0], "logg": [2.4]}))
    asked = {name for name in found.column_names if not name.startswith("e_")}
    assert asked == set(CATALOG_LABELS) - {"teff", "logg"}
    assert "bp54" in model.labels
    assert "random 0" in repr(model)


def test_a_table_that_cannot_be_read_is_refused(model: Model) -> None:
    with pytest.raises(ContractError, match="no column that the model can read"):
        model.predict(pa.table({"colour": [1.0]}))
    with pytest.raises(ContractError, match="not a table"):
        model.predict([[1.0, 2.0]])
    with pytest.raises(ContractError, match="must hold numbers"):
        model.predict(pa.table({"teff": ["hot"]}), labels=["logg"])
    with pytest.raises(
        ContractError, match=r"unit of a column cannot be converted\n  wanted: K\n  found: m\n"
    ):
        model.predict(Table({"teff": [1.0] * units.m}), labels=["logg"])
    with pytest.raises(JobError, match="labels that the model does not have"):
        model.predict(pa.table({"teff": [4800.0]}), labels=["colour"])
    with pytest.raises(ContractError, match="a column of another type"):
        model.predict(pa.table({"bp_coefficients": ["x"], "rp_coefficients": ["y"]}))
    with pytest.raises(BundleError):
        catalogproc.load_model("nonsense")


def test_no_rows_give_no_rows(model: Model) -> None:
    assert model.predict(pa.table({"teff": pa.array([], pa.float64())})).num_rows == 0


# ---------------------------------------------------------------- a run


def test_a_run_in_a_call_and_the_same_call_again(tmp_path: Path) -> None:
    spectra = EXAMPLES / "xp_continuous_000.parquet"
    job = Job("mine", labels=("teff", "mass"), inputs=("bprp",), coefficients=10, chunk_rows=500)
    said: list[str] = []
    account = catalogproc.run(
        spectra, tmp_path / "out", job=job, workers=1, device="cpu", announce=said.append
    )
    assert account.exit_code == 0
    assert account.rows_written == 500
    assert (tmp_path / "out" / "report.html").is_file()
    assert any("dashboard" in line for line in said)
    found = catalogproc.open_catalog(tmp_path / "out").to_pandas()
    assert np.isfinite(found["teff"]).all()
    assert np.isnan(found["logg"]).all()  # it was not asked for
    again = catalogproc.run([spectra], tmp_path / "out", job=job, workers=1, device="cpu")
    assert again.chunks_run == 0
