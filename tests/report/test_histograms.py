"""Histograms of the report against numpy's, and the throughput of a run written by hand."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from support.catalogs import STARTED, catalog_table, finished_run

from catalogproc.flags import load_flags, load_input_flags
from catalogproc.report import histograms as module
from catalogproc.report.histograms import (
    COLUMNS,
    RANGES,
    RELATIVE_TO,
    UNCERTAINTIES,
    count_stars,
    measure_throughput,
    percentiles,
)
from catalogproc.rundir.receipts import read_receipts

STARS = catalog_table(3_000, seed=5)


def columns(table: pa.Table) -> dict[str, np.ndarray]:
    return {name: table[name].to_numpy() for name in COLUMNS}


@pytest.fixture(scope="module")
def counted() -> module.Histograms:
    return count_stars(STARS.select(list(COLUMNS)).to_batches(max_chunksize=700))


def test_histograms_equal_those_of_numpy(counted: module.Histograms) -> None:
    stars = columns(STARS)
    good, mass_age = stars["good_params"], stars["good_mass_age"]
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
        for got, chosen in zip(found, (slice(None), mass_age), strict=True):
            wanted = np.histogram(stars[name][chosen].astype(float), axis.edges)[0]
            np.testing.assert_array_equal(got, wanted)
    assert counted.stars == 3_000
    assert counted.good_params == good.sum()
    assert counted.good_mass_age == mass_age.sum()


def test_percentiles_of_uncertainties_are_those_of_the_stars(counted: module.Histograms) -> None:
    """Within the width of a bin (2 %) and the few stars at the edges of the magnitude bin."""
    stars = columns(STARS)
    g = stars["phot_g_mean_mag"]
    inside = (g >= 12.0) & (g < 12.25)
    row = int(module.MAGNITUDE.bin_of(np.array([12.1]))[0])
    for name in ("e_teff", "e_logg", "e_m_h", "e_mass"):
        values = stars[name].astype(float)
        values = (values / stars[RELATIVE_TO[name]] if name in RELATIVE_TO else values)[inside]
        got = 10.0 ** percentiles(counted.uncertainties[name], module.LOG_ERROR)[:, row]
        wanted = np.quantile(values, [0.16, 0.5, 0.84])
        np.testing.assert_allclose(got, wanted, rtol=0.08)
    assert set(counted.uncertainties) == set(UNCERTAINTIES)
    few = percentiles(np.eye(3, 10, dtype=np.int64), module.Axis(0, 1, 10))
    assert np.isnan(few).all()


def test_flags_are_counted_bit_by_bit(counted: module.Histograms) -> None:
    facts = STARS["input_flags"].to_pylist()
    for flag in load_input_flags().flags:
        wanted = sum(bool(item & flag.value) for item in facts)
        assert counted.input_flags[flag.name] == wanted > 0
    value = STARS["quality_flags"].to_pylist()
    for flag in load_flags().flags:
        assert counted.flags[flag.name] == sum(bool(v >> flag.bit & 1) for v in value)


def test_flags_that_alone_exclude_a_star(counted: module.Histograms) -> None:
    """By hand: of the flags of a sample a star has this one and no other."""
    flags, value = load_flags(), STARS["quality_flags"].to_pylist()
    for mask, found in (
        (flags.good_params, counted.alone_params), (flags.good_mass_age, counted.alone_mass_age),
    ):  # fmt: skip
        names = {flag.name for flag in flags.flags if flag.value & mask}
        have = [names & set(flags.words(v)) for v in value]
        for flag in flags.flags:
            assert found[flag.name] == sum(one == {flag.name} for one in have)


def test_ranges_count_every_known_star(counted: module.Histograms) -> None:
    for name, axis in RANGES.items():
        known = STARS[name].to_numpy().astype(float)
        known = known[np.isfinite(known)]
        inside = np.clip(known, axis.low, np.nextafter(axis.high, axis.low))
        wanted = np.histogram(inside, axis.edges)[0]
        assert counted.ranges[name].sum() == len(known)
        assert np.abs(counted.ranges[name] - wanted).sum() <= 4, name  # on an edge of two bins


def test_the_sky_counts_stars_with_a_position(counted: module.Histograms) -> None:
    index = STARS["_healpix_29"].to_numpy()
    assert counted.sky_by_id == (index < 0).sum() > 0
    assert counted.with_position == 3_000
    own = STARS["source_id"].to_numpy() >> 35 + 2 * (12 - module.SKY_ORDER)
    pixel = np.where(index < 0, own, index >> 2 * (29 - module.SKY_ORDER))
    assert counted.sky[5] == (pixel == 5).sum()


def test_batch_size_does_not_matter_and_points_are_kept_only_below_the_limit(
    counted: module.Histograms, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = count_stars(STARS.combine_chunks().to_batches())
    for name in ("kiel", "kiel_m_h", "age_m_h_good", "sky", "mass"):
        np.testing.assert_allclose(getattr(whole, name), getattr(counted, name), atol=1e-9)
    np.testing.assert_array_equal(counted.points["teff"], STARS["teff"].to_numpy())
    monkeypatch.setattr(module, "MAX_POINTS", 2_999)
    more = count_stars(STARS.to_batches(max_chunksize=700))
    assert len(more.points["teff"]) == 0
    assert more.stars == 3_000


def test_unknown_values_are_not_counted() -> None:
    names = ["teff", "m_h", "age", "e_teff", "phot_g_mean_mag"]
    table = STARS
    for name in names:
        place = table.schema.get_field_index(name)
        nothing = pa.array(np.full(3_000, np.nan, np.float32))
        table = table.set_column(place, table.schema.field(place), nothing)
    none = count_stars(table.to_batches())
    assert none.stars == 3_000
    for counts in (none.kiel, none.age, none.age_m_h, none.uncertainties["e_teff"]):
        assert counts.sum() == 0


def test_a_catalog_without_stars_gives_empty_histograms() -> None:
    none = count_stars([])
    assert none.stars == none.with_position == 0
    assert none.kiel.shape == (module.TEFF.bins, module.LOGG.bins)


# ---------------------------------------------------------------- throughput


def test_throughput_adds_up_to_the_rows_and_skips_idle_time(tmp_path: Path) -> None:
    finished_run(tmp_path, files=1, chunks=4, rows=100, rejected=0)
    receipts = sorted(read_receipts(tmp_path).values(), key=lambda r: r.first_row)
    # Two chunks at the same time from 0 to 10 s, one until 20 s; the last one the next day.
    begins, spent = (0.0, 0.0, 10.0, 86_400.0), (10.0, 10.0, 10.0, 5.0)
    run = [
        replace(r, started=(STARTED + timedelta(seconds=begin)).isoformat(), seconds=seconds)
        for r, begin, seconds in zip(receipts, begins, spent, strict=True)
    ]
    speed = measure_throughput(run)
    assert speed.seconds[-1] == pytest.approx(25.0)
    assert speed.breaks == (pytest.approx(20.0),)
    assert (speed.rate * np.diff(speed.seconds)).sum() == pytest.approx(400)
    middles = 0.5 * (speed.seconds[1:] + speed.seconds[:-1])
    for low, high, rate in ((0, 9, 20), (11, 19, 10), (21, 25, 20)):
        np.testing.assert_allclose(speed.rate[(middles > low) & (middles < high)], rate)
    assert measure_throughput(run[::-1]).rate.tolist() == speed.rate.tolist()
    assert measure_throughput([]).rate.sum() == 0
