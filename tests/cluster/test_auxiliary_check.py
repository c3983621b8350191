"""Auxiliary tables keep an account: columns used and ignored, stars found, probable mistakes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.bundles import tiny_bundle
from support.paths import DATA, EXAMPLES

from catalogproc.cluster.plan import Plan, make_plan
from catalogproc.cluster.run import run
from catalogproc.cluster.spec import ClusterConfig, RunSpec
from catalogproc.errors import Refusal
from catalogproc.readers.auxiliary_columns import auxiliary_columns
from catalogproc.report.explain import explain
from catalogproc.rundir.summary import read_summary

SPECTRA = EXAMPLES / "xp_continuous_000.parquet"
USER_INPUTS = DATA / "user_inputs"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bundle(tmp_path_factory.mktemp("bundle") / "bundle").path


@pytest.fixture(scope="module")
def stars() -> np.ndarray:
    ids = pq.read_table(SPECTRA, columns=["source_id"])["source_id"].to_numpy()
    return np.asarray(ids[:40])


def spec_of(folder: Path, bundle: Path, table: pd.DataFrame, strict: bool = False) -> RunSpec:
    """A run on forty stars with a gaia_source table."""
    spectra, auxiliary = folder / "xp.parquet", folder / "gaia.csv"
    pq.write_table(pq.read_table(SPECTRA).slice(0, 40), spectra)
    table.to_csv(auxiliary, index=False)
    cluster = ClusterConfig(workers=1, device="cpu")
    return RunSpec(spectra, folder / "out", auxiliary, bundle, cluster=cluster, strict=strict)


def lines_of(plan: Plan) -> list[str]:
    absent = ("in no table", "  flags that are therefore not set")
    return [line for line in plan.auxiliary_lines() if not line.startswith(absent)]


def test_columns_are_told_with_their_names_and_what_was_probably_meant(tmp_path: Path) -> None:
    table = pd.DataFrame({"source_id": [1], "Jmag": [9.0], "paralax": [1.0], "B": [3.0]})
    table.to_csv(tmp_path / "gaia.csv", index=False)
    used, ignored, units = auxiliary_columns(tmp_path / "gaia.csv").lines()
    assert used.endswith("columns used: j_m (as Jmag)")
    assert ignored == "  ignored: paralax (did you mean parallax?), B"
    assert units == "  no unit stated, assumed: j_m [mag]"


def test_a_stated_unit_is_not_assumed_and_other_tables_are_named(tmp_path: Path) -> None:
    from astropy.io import fits

    lines = auxiliary_columns(USER_INPUTS / "comp.fits").lines()
    assert not any("assumed" in line for line in lines)
    with fits.open(USER_INPUTS / "comp.fits") as file:
        other = fits.BinTableHDU.from_columns([fits.Column("note", "3A", array=["abc"])])
        other.name = "NOTES"
        fits.HDUList([*file, other]).writeto(tmp_path / "two.fits")
    assert "  not read: table NOTES of 1 row" in auxiliary_columns(tmp_path / "two.fits").lines()


def test_stars_found_are_counted_before_and_after_the_run(
    tmp_path: Path, bundle: Path, stars: np.ndarray
) -> None:
    table = pd.DataFrame({"source_id": [*stars[:30], 5, 6], "phot_g_mean_mag": 15.0})
    plan = make_plan(spec_of(tmp_path, bundle, table))
    taken = f"{tmp_path / 'gaia.csv'}: 30 of 40 stars; values taken: phot_g_mean_mag (30)"
    assert lines_of(plan) == [
        "30 of the first 40 stars found in the gaia_source tables", f"  {taken}",
    ]  # fmt: skip
    told: list[str] = []
    result = run(plan, announce=told.append)
    assert lines_of(plan)[0] in told
    assert result.rows_matched == 30
    assert "30 of 40 stars found in the gaia_source tables" in result.lines()
    assert taken in result.lines()
    summary = read_summary(tmp_path / "out") or {}
    assert summary["rows_matched"] == 30
    account = {str(tmp_path / "gaia.csv"): {"stars": 30, "phot_g_mean_mag": 30}}
    assert summary["auxiliary"] == account
    (receipt,) = (tmp_path / "out" / "receipts").glob("*.json")
    assert json.loads(receipt.read_text())["rows_matched"] == 30
    assert json.loads(receipt.read_text())["auxiliary"] == account


def test_rows_that_agree_are_one_and_told_and_others_are_refused(
    tmp_path: Path, bundle: Path, stars: np.ndarray
) -> None:
    ids = [*stars[:10], *stars[:4], stars[0]]
    table = pd.DataFrame({"source_id": ids, "phot_g_mean_mag": 15.0})
    plan = make_plan(spec_of(tmp_path, bundle, table))
    repeated = "  5 rows more that agree with another one of the star in every column"
    assert f"  {repeated}" in lines_of(plan)
    result = run(plan)
    assert repeated in result.lines()
    (account,) = (read_summary(tmp_path / "out") or {})["auxiliary"].values()
    assert account == {"stars": 10, "repeated rows": 5, "phot_g_mean_mag": 10}
    table.loc[[12, 13], "phot_g_mean_mag"] = 14.0
    (tmp_path / "other").mkdir()
    plan = make_plan(spec_of(tmp_path / "other", bundle, table))
    with pytest.raises(Refusal, match="2 stars with different rows"):
        lines_of(plan)


def test_own_columns_are_used_without_a_second_mention(
    tmp_path: Path, bundle: Path, stars: np.ndarray
) -> None:
    """The run gives what the same columns in a table of their own give."""
    spectra, columns = tmp_path / "xp.parquet", tmp_path / "gaia.parquet"
    table = pq.read_table(SPECTRA).slice(0, 40)
    ids = table.column("source_id")
    g = np.linspace(12.0, 15.0, 40)
    beside = {"phot_g_mean_mag": g, "plx": np.full(40, 0.5), "e_plx": np.full(40, 0.03)}
    pq.write_table(pa.table({"source_id": ids} | beside), columns)
    cluster = ClusterConfig(workers=1, device="cpu")
    pq.write_table(table, spectra)
    joined = run(make_plan(RunSpec(spectra, tmp_path / "a", columns, bundle, cluster=cluster)))
    for name, values in beside.items():
        table = table.append_column(name, pa.array(values))
    pq.write_table(table, spectra)
    plan = make_plan(RunSpec(spectra, tmp_path / "b", (), bundle, cluster=cluster))
    words = "phot_g_mean_mag, parallax (as plx), parallax_error (as e_plx)"
    lines = lines_of(plan)
    assert lines[0] == f"{spectra}: own columns used: {words}"
    taken = "the spectra's own columns: values taken: "
    taken += "phot_g_mean_mag, parallax, parallax_error (40)"
    assert lines[-1] == f"  {taken}"
    result = run(plan)
    assert result.rows_matched is None
    assert joined.rows_matched == 40
    assert taken in result.lines()
    (own,) = (read_summary(tmp_path / "b") or {})["auxiliary"].values()
    assert own == {"phot_g_mean_mag": 40, "parallax": 40, "parallax_error": 40}
    first, second = (
        pq.read_table(next((tmp_path / name / "catalog").glob("*.parquet"))).drop_columns(
            ["run_id"]
        )
        for name in "ab"
    )
    assert first.to_pandas().equals(second.to_pandas())
    assert first.column("parallax_zpc").to_pylist() == pytest.approx([0.54] * 40)
    star = explain(tmp_path / "b", ids[3].as_py(), model=bundle)  # predicts again, and compares
    assert star.row["parallax_zpc"] == pytest.approx(0.54)


def test_a_table_of_other_stars_is_a_warning_and_strictly_a_refusal(
    tmp_path: Path, bundle: Path
) -> None:
    table = pd.DataFrame({"source_id": np.arange(1, 9), "phot_g_mean_mag": 15.0})
    (warning,) = lines_of(make_plan(spec_of(tmp_path, bundle, table)))
    assert warning == "warning: none of the first 40 stars is in the gaia_source tables"
    with pytest.raises(Refusal, match="do not fit the spectra"):
        run(make_plan(spec_of(tmp_path, bundle, table, strict=True)))
    assert not (tmp_path / "out").exists()  # a refused start claims no folder


def test_identifiers_that_went_through_a_float_are_a_warning(tmp_path: Path) -> None:
    """Gaia's identifiers are multiples of 128; floats of that size are multiples of 512."""
    ids = np.random.default_rng(1).integers(1 << 54, 1 << 55, 100) * 128
    for name, written in (("exact", ids), ("rounded", ids.astype(np.float64).astype(np.int64))):
        table = pd.DataFrame({"source_id": written, "phot_g_mean_mag": 15.0})
        table.to_csv(tmp_path / f"{name}.csv", index=False)
    assert auxiliary_columns(tmp_path / "exact.csv").warnings() == []
    (warning,) = auxiliary_columns(tmp_path / "rounded.csv").warnings()
    assert "look rounded, all of them are multiples of 512" in warning
