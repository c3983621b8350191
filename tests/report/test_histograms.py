"""The report's counts against numpy's own, and its speed against a run written by hand."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from support.catalogs import STARTED, catalog_table, finished_run

from catalogproc.contract import load_flags
from catalogproc.report import histograms as module
from catalogproc.report.histograms import COLUMNS, ERRORS, RELATIVE, percentiles, tally
from catalogproc.report.pace import pace
from catalogproc.rundir.receipts import read_receipts

STARS = catalog_table(3_000, seed=5)


def columns(table: pa.Table) -> dict[str, np.ndarray]:
    return {name: table[name].to_numpy() for name in COLUMNS}


@pytest.fixture(scope="module")
def counted() -> module.Tally:
    return tally(STARS.select(list(COLUMNS)).to_batches(max_chunksize=700))


def test_histograms_are_numpys(counted: module.Tally) -> None:
    stars = columns(STARS)
    good, settled = stars["good_params"], stars["good_mass_age"]
    kiel = (module.TEFF.edges, module.LOGG.edges)
    for chosen, grid, summed in (
        (slice(None), counted.kiel, counted.kiel_m_h),
        (good, counted.kiel_good, counted.kiel_good_m_h),
    ):
        where = stars["teff"][chosen].astype(float), stars["logg"][chosen].astype(float)
        np.testing.assert_array_equal(grid, np.histogram2d(*where, bins=kiel)[0])
        weights = stars["m_h"][chosen].astype(float)
        np.testing.assert_allclose(
            summed, np.histogram2d(*where, bins=kiel, weights=weights)[0], atol=1e-9
        )
    for name, axis in (("mass", module.MASS), ("age", module.AGE)):
        found = getattr(counted, name), getattr(counted, f"{name}_good")
        for got, chosen in zip(found, (slice(None), settled), strict=True):
            wanted = np.histogram(stars[name][chosen].astype(float), axis.edges)[0]
            np.testing.assert_array_equal(got, wanted)
    assert counted.stars == 3_000
    assert counted.good_params == good.sum()
    assert counted.good_mass_age == settled.sum()


def test_percentiles_of_errors_are_those_of_the_stars(counted: module.Tally) -> None:
    """To the width of a bin, 2 %, and the few stars at its edges."""
    stars = columns(STARS)
    g = stars["phot_g_mean_mag"]
    inside = (g >= 12.0) & (g < 12.25)
    row = int(module.MAGNITUDE.place(np.array([12.1]))[0])
    for name in ("e_teff", "e_logg", "e_m_h", "e_mass"):
        values = stars[name].astype(float)
        values = (values / stars[RELATIVE[name]] if name in RELATIVE else values)[inside]
        got = 10.0 ** percentiles(counted.errors[name], module.LOG_ERROR)[:, row]
        wanted = np.quantile(values, [0.16, 0.5, 0.84])
        np.testing.assert_allclose(got, wanted, rtol=0.08)
    assert set(counted.errors) == set(ERRORS)
    few = percentiles(np.eye(3, 10, dtype=np.int64), module.Axis(0, 1, 10))
    assert np.isnan(few).all()


def test_flags_are_counted_bit_by_bit(counted: module.Tally) -> None:
    value = STARS["quality_flags"].to_pylist()
    for flag in load_flags().flags:
        assert counted.flags[flag.name] == sum(bool(v >> flag.bit & 1) for v in value)


def test_the_sky_counts_stars_with_a_position(counted: module.Tally) -> None:
    index = STARS["_healpix_29"].to_numpy()
    assert counted.placed == (index >= 0).sum() < 3_000
    assert counted.sky[5] == ((index >> 2 * (29 - module.SKY_ORDER)) == 5).sum()


def test_the_batches_do_not_matter_and_points_are_kept_only_while_few(
    counted: module.Tally, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = tally(STARS.combine_chunks().to_batches())
    for name in ("kiel", "kiel_m_h", "age_m_h_good", "sky", "mass"):
        np.testing.assert_allclose(getattr(whole, name), getattr(counted, name), atol=1e-9)
    np.testing.assert_array_equal(counted.points["teff"], STARS["teff"].to_numpy())
    monkeypatch.setattr(module, "FEW", 2_999)
    more = tally(STARS.to_batches(max_chunksize=700))
    assert len(more.points["teff"]) == 0
    assert more.stars == 3_000


def test_unknown_values_are_counted_nowhere() -> None:
    names = ["teff", "m_h", "age", "e_teff", "phot_g_mean_mag"]
    table = STARS
    for name in names:
        place = table.schema.get_field_index(name)
        nothing = pa.array(np.full(3_000, np.nan, np.float32))
        table = table.set_column(place, table.schema.field(place), nothing)
    none = tally(table.to_batches())
    assert none.stars == 3_000
    for counts in (none.kiel, none.age, none.age_m_h, none.errors["e_teff"]):
        assert counts.sum() == 0


def test_a_catalog_without_stars_is_counted_too() -> None:
    none = tally([])
    assert none.stars == none.placed == 0
    assert none.kiel.shape == (module.TEFF.bins, module.LOGG.bins)


# ---------------------------------------------------------------- the speed of a run


def test_the_pace_adds_up_to_the_rows_and_leaves_out_the_night(tmp_path: Path) -> None:
    finished_run(tmp_path, files=1, chunks=4, rows=100, rejected=0)
    receipts = sorted(read_receipts(tmp_path).values(), key=lambda r: r.first_row)
    # Two chunks side by side from 0 to 10 s, one until 20 s; the last one the next day.
    begins, spent = (0.0, 0.0, 10.0, 86_400.0), (10.0, 10.0, 10.0, 5.0)
    run = [
        replace(r, started=(STARTED + timedelta(seconds=begin)).isoformat(), seconds=seconds)
        for r, begin, seconds in zip(receipts, begins, spent, strict=True)
    ]
    speed = pace(run)
    assert speed.seconds[-1] == pytest.approx(25.0)
    assert speed.breaks == (pytest.approx(20.0),)
    assert (speed.rate * np.diff(speed.seconds)).sum() == pytest.approx(400)
    middles = 0.5 * (speed.seconds[1:] + speed.seconds[:-1])
    for low, high, rate in ((0, 9, 20), (11, 19, 10), (21, 25, 20)):
        np.testing.assert_allclose(speed.rate[(middles > low) & (middles < high)], rate)
    assert pace(run[::-1]).rate.tolist() == speed.rate.tolist()
    assert pace([]).rate.sum() == 0
