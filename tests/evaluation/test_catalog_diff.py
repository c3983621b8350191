"""Two catalogs compared star by star, by numbers that were put into them."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from support.catalogs import catalog_table, identity, open_run, write_chunk
from support.xp_files import parquet_bytes, put

from catalogproc.datasets.crosswalk import read_crosswalk
from catalogproc.errors import InputError
from catalogproc.evaluation.catalog_diff import compare_catalogs
from catalogproc.evaluation.diff_page import write_diff
from catalogproc.flags import load_flags
from catalogproc.release import load_release

STARS, LOST, FRESH = 4000, 300, 200
A, B = 40.0, 28.0  # input uncertainties of Teff, K
MOVED = 5


def run(folder: Path, table: pa.Table, release: str) -> None:
    made = replace(identity(1, len(table)), release=load_release(release).to_dict())
    open_run(folder, made)
    write_chunk(folder, made, 0, made.inputs[0], 0, table)


def changed(table: pa.Table, **columns: np.ndarray) -> pa.Table:
    for name, values in columns.items():
        place = table.column_names.index(name)
        array = pa.array(values).cast(table.field(place).type)
        table = table.set_column(place, table.field(place), array)
    return table


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """DR3 and DR4 of the same stars: independent noise in Teff, transits shared in log g."""
    folder, rng = tmp_path_factory.mktemp("runs"), np.random.default_rng(5)
    table = catalog_table(STARS + FRESH)
    ids, size = table["source_id"].to_numpy(), len(table)
    teff, logg = (table[name].to_numpy() for name in ("teff", "logg"))
    edge, old_edge = load_flags()["LABEL_EDGE"].value, load_flags()["UNC_TEFF"].value
    common = {
        "good_params": np.full(size, True),
        "good_mass_age": np.full(size, True),
        "input_flags": np.zeros(size, int),
        "phot_g_mean_mag": rng.uniform(12, 16, size),
    }
    noise = rng.normal(size=(3, size))
    old = changed(
        table, **common, teff=teff + A * noise[0], e_teff=np.full(size, 60.0),
        e_teff_input=np.full(size, A), e_logg_input=np.full(size, 0.10),
        logg=logg + 0.07 * noise[1] + np.sqrt(0.10**2 - 0.07**2) * noise[2],
        quality_flags=np.where(np.arange(size) % 10 == 0, old_edge, 0),
    )  # fmt: skip
    new_ids = np.where(np.arange(size) % 2, ids, ids + MOVED)
    new = changed(
        table, **common, source_id=new_ids, teff=teff + 15.0 + B * rng.normal(size=size),
        e_teff=np.full(size, 50.0), e_teff_input=np.full(size, B),
        e_logg_input=np.full(size, 0.07), logg=logg + 0.07 * noise[1],
        quality_flags=np.where(np.arange(size) % 4 == 0, edge, 0),
    )  # fmt: skip
    run(folder / "old", old.slice(0, STARS), "dr3")
    run(folder / "new", new.slice(LOST), "dr4")
    link = pa.table({
        "dr3_source_id": np.append(ids[:STARS], ids[3000]),
        "source_id": np.append(new_ids[:STARS], new_ids[10]),  # of a neighbour, farther away
        "angular_distance": np.append(np.full(STARS, 20.0), 900.0),
    })  # fmt: skip
    put(folder, "link.parquet", parquet_bytes(link))
    return folder


def test_differences_scatter_as_the_noise_that_was_put_in(runs: Path) -> None:
    found = compare_catalogs(runs / "old", runs / "new", runs / "link.parquet")
    both = STARS - LOST
    assert (len(found.first), len(found.second)) == (STARS, STARS + FRESH - LOST)
    assert (found.in_both, found.not_in_crosswalk) == (both, 0)
    assert f"in both {both:,}; in old alone {LOST}; in new alone {FRESH}" in found.lines()
    teff, logg = (one for one in found.group("all") if one.label in ("teff", "logg"))
    assert teff.pairs == both
    assert teff.bias == pytest.approx(15.0, abs=3.0)
    assert teff.scatter == pytest.approx(np.hypot(A, B), rel=0.05)
    assert teff.z_input == pytest.approx(1.0, rel=0.05)
    assert teff.z_total == pytest.approx(np.hypot(A, B) / np.hypot(60.0, 50.0), rel=0.05)
    # The second log g has the noise of the first but for what more transits take away.
    assert logg.shared == pytest.approx(np.sqrt((1 - 0.49) / (1 + 0.49)), rel=1e-3)
    assert logg.z_input == pytest.approx(logg.shared, rel=0.05)
    ranges = [one for one in found.group("G") if one.label == "teff"]
    assert [one.name for one in ranges] == [f"{g} to {g + 1}" for g in range(12, 16)]
    assert sum(one.pairs for one in ranges) == both
    # The labels of the other catalog's columns are those that both have.
    assert found.labels == ("teff", "logg", "m_h", "mass", "log_age")


def test_flags_are_counted_on_both_sides(runs: Path) -> None:
    found = compare_catalogs(runs / "old", runs / "new", runs / "link.parquet")
    rows = np.arange(LOST, STARS)
    old, new = rows % 10 == 0, rows % 4 == 0
    counted = {one.name: (one.first_alone, one.second_alone, one.both) for one in found.membership}
    assert counted["good_params"] == (0, 0, STARS - LOST)
    assert counted["UNC_TEFF"] == (old.sum(), 0, 0)
    assert counted["LABEL_EDGE"] == (0, new.sum(), 0)
    edge = {one.label: one for one in found.group("quality_flags") if one.name == "LABEL_EDGE"}
    assert edge["teff"].pairs == new.sum()
    assert edge["teff"].z_input == pytest.approx(1.0, rel=0.1)


def test_the_direction_of_the_crosswalk_follows_from_the_releases(runs: Path) -> None:
    there = compare_catalogs(runs / "old", runs / "new", runs / "link.parquet")
    back = compare_catalogs(runs / "new", runs / "old", runs / "link.parquet")
    assert back.in_both == there.in_both
    assert back.not_in_crosswalk == FRESH
    one, other = (x.group("all")[0] for x in (there, back))
    assert one.bias == pytest.approx(-other.bias)
    without = compare_catalogs(runs / "old", runs / "new")
    assert without.in_both == there.in_both // 2
    assert any("taken to be the same" in line for line in without.lines())
    same = compare_catalogs(runs / "old", runs / "old")
    assert same.group("all")[0].scatter == 0.0
    bright = compare_catalogs(runs / "old", runs / "new", where="phot_g_mean_mag < 13")
    assert {one.name for one in bright.group("G")} == {"12 to 13"}
    assert 0 < bright.in_both < without.in_both / 2
    with pytest.raises(InputError, match="same release"):
        compare_catalogs(runs / "old", runs / "old", runs / "link.parquet")


def test_no_common_star_is_refused(runs: Path, tmp_path: Path) -> None:
    run(tmp_path / "other", catalog_table(50, 9), "dr4")
    with pytest.raises(InputError, match=r"no star is in both(.|\n)*--crosswalk"):
        compare_catalogs(runs / "old", tmp_path / "other")


def test_text_page_and_tables_say_the_same(runs: Path, tmp_path: Path) -> None:
    found = compare_catalogs(runs / "old", runs / "new", runs / "link.parquet")
    text, paths = write_diff(found, tmp_path)
    assert [path.name for path in paths] == [
        "diff.html", "diff.md", "differences.csv", "membership.csv",
    ]  # fmt: skip
    assert (tmp_path / "diff.md").read_text() == text
    with (tmp_path / "differences.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(found.differences)
    teff = found.group("all")[0]
    assert float(rows[0]["z_input"]) == pytest.approx(teff.z_input, rel=1e-5)
    page = (tmp_path / "diff.html").read_text()
    for content in (text, page):
        assert f"{teff.z_input:.2f}" in content
        assert "LABEL_EDGE" in content
    assert page.count("<svg") == len(found.labels) + 1


def test_the_best_pairs_of_a_crosswalk_are_taken(tmp_path: Path) -> None:
    path = put(tmp_path, "link.csv", (
        b"dr3_source_id,source_id,angular_distance,probable_match\n"
        b"1,10,5.0,False\n1,11,9.0,True\n2,11,1.0,False\n2,20,30.0,False\n3,,1.0,False\n"
    ))  # fmt: skip
    link = read_crosswalk(path)
    assert link.rows == 5
    assert link.to_newer(np.array([1, 2, 3, 4])).tolist() == [11, 0, 0, 0]
    assert link.to_older(np.array([11, 10])).tolist() == [1, 0]
    wrong = put(tmp_path, "wrong.csv", b"dr3_source_id,source_id\n1.5,2\n")
    with pytest.raises(InputError, match="no integers"):
        read_crosswalk(wrong)
