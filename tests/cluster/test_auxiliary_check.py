"""Auxiliary tables keep an account: columns used and ignored, stars found, probable mistakes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from support.bundles import tiny_bundle
from support.paths import DATA, EXAMPLES

from catalogproc.cluster.auxiliary_check import matched_lines
from catalogproc.cluster.plan import Plan, make_plan
from catalogproc.cluster.run import run
from catalogproc.cluster.spec import ClusterConfig, RunSpec
from catalogproc.errors import Refusal
from catalogproc.readers.gaia_source import auxiliary_columns
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
    return matched_lines(plan.inputs, plan.auxiliary_columns, strict=False)


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
    assert lines_of(plan) == ["30 of the first 40 stars found in the gaia_source tables"]
    told: list[str] = []
    result = run(plan, announce=told.append)
    assert lines_of(plan)[0] in told
    assert result.rows_matched == 30
    assert "30 of 40 stars found in the gaia_source tables" in result.lines()
    assert (read_summary(tmp_path / "out") or {})["rows_matched"] == 30
    (receipt,) = (tmp_path / "out" / "receipts").glob("*.json")
    assert json.loads(receipt.read_text())["rows_matched"] == 30


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
