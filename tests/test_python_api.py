"""Python's face: a catalog opened, a model asked about one's own table, a run in a call."""

from __future__ import annotations

import doctest
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy import units
from astropy.table import MaskedColumn, Table
from support.bundles import tiny_bundle
from support.catalogs import finished_run
from support.paths import CORRELATED, EXAMPLES

import catalogproc
from catalogproc.errors import BundleError, ContractError, JobError, ResumeError
from catalogproc.export import open_catalog
from catalogproc.export.open_catalog import Catalog
from catalogproc.features.tokens import tokens
from catalogproc.inference import model as model_module
from catalogproc.inference.model import Model
from catalogproc.job import LABELS, Job
from catalogproc.readers.xp import read_spectra

REAL = CORRELATED
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


# ---------------------------------------------------------------- a model and one's own table


def test_spectra_in_a_frame_get_the_answers_of_a_run(model: Model) -> None:
    """By hand: the tokens as a run makes them, straight into the predictor."""
    (batch,) = read_spectra(REAL / "xp_continuous_30.parquet")
    source = pq.read_table(REAL / "gaia_source_30.parquet")
    companion = catalogproc.load_contract("gaia_source").assemble(
        {
            name: source[name]
            for name in source.column_names
            if name in catalogproc.load_contract("gaia_source")
        },
        source.num_rows,
    )
    order = pa.compute.index_in(batch.column("source_id"), companion["source_id"])
    companion = companion.take(order)
    read = tokens(batch, companion, model.bundle.vocabulary, Job("by hand"))
    wanted = model._predictor.predict(read.values, LABELS)

    spectra = pa.Table.from_batches([batch]).to_pandas()
    frame = spectra.merge(source.to_pandas(), on="source_id")
    found = model.predict(frame)
    assert found.column_names == [
        "source_id",
        *(name for label in LABELS for name in (label, f"e_{label}")),
    ]
    assert found["source_id"].to_pylist() == batch.column("source_id").to_pylist()
    for place, label in enumerate(LABELS):
        np.testing.assert_allclose(found[label].to_numpy(), wanted.mean[:, place], rtol=1e-5)
        np.testing.assert_allclose(
            found[f"e_{label}"].to_numpy(), wanted.sigma[:, place], rtol=1e-5
        )
    assert found.schema.field("teff").metadata[b"unit"] == b"K"


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
    assert asked == set(LABELS) - {"teff", "logg"}
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
    with pytest.raises(ContractError, match="no such token"):
        model.predict(pa.table({"teff": [4800.0]}), labels=["colour"])
    with pytest.raises(ContractError, match="a column of another type"):
        model.predict(pa.table({"bp_coefficients": ["x"], "rp_coefficients": ["y"]}))
    with pytest.raises(BundleError):
        catalogproc.load_model("nonsense")


def test_no_rows_give_no_rows(model: Model) -> None:
    assert model.predict(pa.table({"teff": pa.array([], pa.float64())})).num_rows == 0


@pytest.mark.parametrize("module", [open_catalog, model_module])
def test_the_examples_in_the_documentation_hold(module: object) -> None:
    done = doctest.testmod(module)  # type: ignore[arg-type]
    assert done.attempted
    assert not done.failed


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
