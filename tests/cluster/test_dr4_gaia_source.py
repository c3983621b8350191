"""A made-up gaia_source of Gaia DR4, in tables of the draft data model, from check to catalog."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.bundles import tiny_bundle
from support.paths import EXAMPLES

from catalogproc.cluster.plan import Plan, make_plan
from catalogproc.cluster.result import RunResult
from catalogproc.cluster.run import run
from catalogproc.cluster.spec import ClusterConfig, RunSpec
from catalogproc.features import astrometry
from catalogproc.flags import load_flags, load_input_flags
from catalogproc.readers.auxiliary_columns import absent_lines
from catalogproc.release import load_release
from catalogproc.report.html_report import write_report
from catalogproc.rundir.summary import read_summary

STARS = 60
FIVE, SIX, TWO = 31 + 128, 95 + 4096, 3 + 1024  # with bits that DR3 does not have
TABLES = ("gaia_source", "all_source_photometry", "all_source_flags", "tmass")


@dataclass(frozen=True)
class Made:
    plan: Plan
    lines: list[str]
    result: RunResult
    source: dict[str, np.ndarray]
    catalog: dict[str, np.ndarray]


def gaia_source(ids: np.ndarray) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(4)
    params = np.array([FIVE, SIX, TWO])[np.arange(STARS) % 3]
    bias = rng.normal(-0.035, 0.004, STARS)
    bias[:6] = np.nan
    return {
        "source_id": ids,
        "ra": rng.uniform(0.0, 360.0, STARS),
        "dec": rng.uniform(-60.0, 60.0, STARS),
        "parallax": np.where(params == TWO, np.nan, rng.uniform(0.2, 2.0, STARS)),
        "parallax_error": np.where(params == TWO, np.nan, 0.02),
        "nu_eff_used_in_astrometry": np.where(params == FIVE, 1.45, np.nan),
        "pseudocolour": np.where(params == SIX, 1.42, np.nan),
        "astrometric_params": params.astype(np.int64),
        "tentative_parallax_bias": bias,
        "ruwe": np.full(STARS, 1.0, np.float32),
        "phot_g_mean_mag": rng.uniform(12.0, 15.0, STARS),
    }


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("dr4")
    spectra = pq.read_table(EXAMPLES / "xp_continuous_000.parquet").slice(0, STARS)
    pq.write_table(spectra, folder / "xp.parquet")
    source = gaia_source(spectra.column("source_id").to_numpy())
    ids = source["source_id"]
    tables = {
        "gaia_source": source,
        "all_source_photometry": {
            "source_id": ids[::-1], "phot_bp_n_obs": np.full(STARS, 20),
            "phot_rp_n_obs": np.full(STARS, 20),
            "phot_bp_n_blended_transits": np.where(ids[::-1] == ids[5], 20, 0),
            "phot_rp_n_blended_transits": np.full(STARS, 1),
        },
        "all_source_flags": {
            "source_id": ids, "non_single_star": (np.arange(STARS) == 7).astype(int),
            "has_xp": np.full(STARS, True),
        },
        "tmass": {
            "source_id": ids[:40], **{f"{b}_m": np.full(40, 9.0) for b in ("j", "h", "ks")},
            **{f"{b}_msigcom": np.full(40, 0.02) for b in ("j", "h", "ks")},
        },
    }  # fmt: skip
    for name, columns in tables.items():
        table = {k: pa.array(v, from_pandas=True) for k, v in columns.items()}
        pq.write_table(pa.table(table), folder / f"{name}.parquet")
    bundle = tiny_bundle(folder / "bundle").path
    given = [folder / f"{name}.parquet" for name in TABLES]
    cluster = ClusterConfig(workers=1, device="cpu")
    plan = make_plan(RunSpec(folder / "xp.parquet", folder / "run", given, bundle, cluster=cluster))
    lines = plan.auxiliary_lines()
    result = run(plan)
    part = pq.read_table(next((folder / "run" / "catalog").glob("*.parquet")))
    catalog = {name: part.column(name).to_numpy() for name in part.column_names}
    assert catalog["source_id"].tolist() == ids.tolist()
    return Made(plan, lines, result, source, catalog)


def test_parallaxes_are_found_by_the_bits_and_corrected_by_the_bias_of_the_release(
    made: Made,
) -> None:
    source, params = made.source, made.source["astrometric_params"]
    has_bias = np.isfinite(source["tentative_parallax_bias"]) & (params != TWO)
    corrected = made.catalog["parallax_zpc"]
    wanted = (source["parallax"] - source["tentative_parallax_bias"])[has_bias]
    assert corrected[has_bias] == pytest.approx(wanted, rel=1e-6)
    assert np.isnan(corrected[params == TWO]).all()
    # Without a bias Lindegren et al. (2021) give the zero-point, as for DR3.
    solved = np.where(params == FIVE, 31, np.where(params == SIX, 95, 3))
    latitude = astrometry.ecliptic_latitude(source["ra"], source["dec"])
    relation = astrometry.zero_point(
        source["phot_g_mean_mag"], source["nu_eff_used_in_astrometry"], source["pseudocolour"],
        latitude, solved,
    )  # fmt: skip
    by_relation = ~has_bias & (params != TWO)
    assert by_relation.sum() == 4
    zero_point = made.catalog["parallax_zp"]
    assert zero_point[by_relation] == pytest.approx(relation[by_relation], rel=1e-5)
    release = load_input_flags()["PLX_ZP_RELEASE"].value
    assert (made.catalog["input_flags"] & release).tolist() == (has_bias * release).tolist()
    bad = made.catalog["quality_flags"] & load_flags()["PLX_BAD"].value > 0
    assert bad.tolist() == (params == TWO).tolist()
    # The summary says how the two differ.
    difference = (source["tentative_parallax_bias"] - relation)[has_bias]
    found = made.result.zero_point_difference
    assert found is not None
    assert found["stars"] == len(difference)
    assert found["median_mas"] == pytest.approx(np.median(difference), abs=1.5e-3)
    assert any("zero-points of the parallax" in line for line in made.result.lines())
    summary = read_summary(made.plan.output) or {}
    assert summary["zero_point_difference"] == found


def test_columns_of_other_tables_set_their_flags(made: Made) -> None:
    flags = made.catalog["quality_flags"]
    for name, star in (("XP_BLEND", 5), ("NSS_OR_VAR", 7)):
        raised = np.flatnonzero(flags & load_flags()[name].value > 0)
        assert raised.tolist() == [star], name
    assert made.catalog["has_tmass"].tolist() == [True] * 40 + [False] * 20


def test_each_table_has_an_account_and_the_report_shows_it(made: Made) -> None:
    account = made.result.auxiliary
    found = {Path(table).stem: counts["stars"] for table, counts in account.items()}
    assert found == dict(zip(TABLES, (60, 60, 60, 40), strict=True))
    (photometry,) = (c for t, c in account.items() if "all_source_photometry" in t)
    assert photometry["phot_bp_n_blended_transits"] == 60
    page = write_report(made.plan.output).read_text()
    (line,) = (line for line in made.result.lines() if "tmass.parquet" in line)
    assert line.endswith("40 of 60 stars; values taken: j_m, j_msigcom, h_m, h_msigcom, ks_m, "
                         "ks_msigcom (40)")  # fmt: skip
    assert line in page
    assert "PLX_ZP_RELEASE" in page


def test_what_no_table_has_is_named_with_the_flags_that_need_it(made: Made) -> None:
    place = next(i for i, line in enumerate(made.lines) if line.startswith("in no table, "))
    columns, flags = made.lines[place : place + 2]
    assert columns.startswith("in no table, of gaia_source: l, b, phot_g_mean_flux, ")
    assert columns.endswith("; of tmass_original_valid: ph_qual")
    assert "ruwe" not in columns
    assert flags == (
        "  flags that are therefore not set: BPRP_EXCESS (phot_bp_rp_excess_factor); "
        "NSS_OR_VAR (phot_variable_flag), but by non_single_star"
    )
    present = {column.name for table in made.plan.auxiliary_columns for column in table.used}
    columns, flags = absent_lines(present - {"non_single_star"}, load_release("dr4"))
    assert "not in Gaia DR4: phot_bp_rp_excess_factor" in columns
    assert "of all_source_flags: non_single_star" in columns
    assert "tentative" not in columns
    assert flags.endswith("; NSS_OR_VAR (non_single_star, phot_variable_flag)")


def test_columns_that_flags_need_are_columns_of_the_contract() -> None:
    from catalogproc.contract import load_contract

    names = load_contract("gaia_source").names
    needed = [n for flag in load_flags().flags for n in (*flag.needs, *flag.needs_one_of)]
    assert needed
    assert set(needed) <= set(names)
