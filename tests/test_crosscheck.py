"""The checks themselves are checked, on stars whose scatter and bias are known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from catalogproc.errors import InputError
from catalogproc.science.judges.crosscheck import (
    Members,
    catalog_answers,
    clusters,
    pairs,
    read_members,
    repeats,
    seismic,
)
from catalogproc.science.simulator.simulate import Simulator

STARS = 400


@pytest.fixture(scope="module")
def stars() -> dict[str, np.ndarray]:
    """Simulated giants along the branch: what differs from star to star in a real cluster."""
    torch.set_num_threads(1)
    columns = Simulator().draw(STARS, 5).columns
    return {name: columns[name].numpy().astype(float) for name in ("logg", "m_h", "mass")}


IDS = np.arange(STARS, dtype=np.int64) + 4_000_000_000_000_000_001


def members(cluster: str = "NGC 1", rows: slice = slice(0, 200)) -> Members:
    ids = IDS[rows]
    return Members(ids, np.full(len(ids), cluster), np.linspace(0, 1, len(ids)))


def measured(value: float, error: float, seed: int, extra: float = 0.0) -> tuple:
    """One age, or one [M/H], as it comes out of STARS stars: with noise, and more than stated."""
    random = np.random.default_rng(seed)
    errors = error * random.uniform(0.5, 2.0, STARS)
    noise = errors * random.standard_normal(STARS) + extra * random.standard_normal(STARS)
    return value + noise, errors


def test_a_cluster_of_one_age_and_composition(stars: dict[str, np.ndarray]) -> None:
    """Honest errors: chi2 is 1, nothing is left to explain, no trend, and the bias comes out."""
    answers = {"log_age": measured(9.6, 0.08, 1), "m_h": measured(0.05, 0.05, 2)}
    known = {"NGC 1": {"log_age": 9.5}}
    found = clusters(members(), IDS, answers, known, against=stars["logg"])
    age, metals = found
    assert (age.cluster, age.label, age.stars) == ("NGC 1", "log_age", 200)
    assert age.value == pytest.approx(9.6, abs=4 * age.error)
    assert age.bias == pytest.approx(0.1, abs=0.03)
    assert np.isnan(metals.bias)
    for score in found:
        assert score.chi2_red == pytest.approx(1.0, abs=4 * (2 / 199) ** 0.5)
        assert score.intrinsic < 0.02
        assert abs(score.slope) < 4 * score.e_slope
    assert age.scatter == pytest.approx(np.std(answers["log_age"][0][:200]), rel=0.35)


def test_what_the_errors_leave_unexplained_and_a_trend_are_found(
    stars: dict[str, np.ndarray],
) -> None:
    values, errors = measured(0.0, 0.05, 3, extra=0.15)
    loose = clusters(members(), IDS, {"m_h": (values, errors)})[0]
    assert loose.intrinsic == pytest.approx(0.15, rel=0.2)
    assert loose.chi2_red > 3
    values, errors = measured(0.0, 0.05, 4)
    tilted = (values + 0.1 * (stars["logg"] - 2.5), errors)
    trend = clusters(members(), IDS, {"m_h": tilted}, against=stars["logg"])[0]
    assert trend.slope == pytest.approx(0.1, abs=4 * trend.e_slope)
    assert trend.slope > 10 * trend.e_slope


def test_members_are_found_by_identifier_whatever_the_order() -> None:
    answers = {"m_h": measured(0.0, 0.05, 5)}
    order = np.random.default_rng(0).permutation(STARS)
    turned = {"m_h": tuple(column[order] for column in answers["m_h"])}
    wanted = clusters(members(), IDS, answers)[0]
    found = clusters(members(), IDS[order], turned)[0]
    assert found.stars == wanted.stars
    assert found.value == pytest.approx(wanted.value, rel=1e-12)
    strangers = Members(IDS[:2] - 7, np.array(["X", "X"]), np.ones(2))
    assert clusters(strangers, IDS, answers) == []
    answers["m_h"][0][:198] = np.nan
    assert clusters(members(), IDS, answers) == []  # two answers are no cluster
    assert len(members().likely(0.5).source_id) == 100


def test_two_spectra_of_a_star() -> None:
    """z has a scatter of 1 if the errors are those of the noise, of 2 if they are half of it."""
    one, other = measured(4800, 50, 6), measured(4800, 50, 7)
    score = repeats("teff", *one, *other)
    assert score.pairs == STARS
    assert score.z_scatter == pytest.approx(1.0, abs=0.15)
    assert score.within_1_sigma == pytest.approx(0.683, abs=0.08)
    halved = repeats("teff", one[0], one[1] / 2, other[0], other[1] / 2)
    assert halved.z_scatter == pytest.approx(2 * score.z_scatter)
    shifted = repeats("teff", one[0] + 30, one[1], *other)
    assert shifted.bias == pytest.approx(score.bias + 30)
    one[0][:10], other[1][10:20] = np.nan, np.nan
    assert repeats("teff", *one, *other).pairs == STARS - 20
    assert repeats("teff", one[0][:10], one[1][:10], other[0][:10], other[1][:10]).pairs == 0


def test_pairs_are_of_the_same_star() -> None:
    ids = np.array([7, 3, 7, 5, 3, 7, 9])
    first, further = pairs(ids)
    assert (ids[first] == ids[further]).all()
    assert sorted(zip(first.tolist(), further.tolist(), strict=True)) == [(0, 2), (0, 5), (1, 4)]


def test_masses_against_oscillations(stars: dict[str, np.ndarray]) -> None:
    random, mass = np.random.default_rng(8), stars["mass"]
    ours = mass * (1 + 0.1 * random.standard_normal(STARS))
    theirs = 1.05 * mass[100:300] * (1 + 0.05 * random.standard_normal(200))
    score = seismic(IDS, ours, 0.1 * mass, IDS[100:300], theirs, 0.05 * theirs)
    assert score.pairs == 200
    assert score.bias == pytest.approx(-0.05 * np.median(mass[100:300]), abs=0.04)
    assert score.z_scatter == pytest.approx(1.0, abs=0.25)


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_member_lists_keep_every_digit(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"members.{suffix}"
    if suffix == "csv":
        lines = [f"{star},NGC_188 ,0.9" for star in IDS[:3]] + [f"{IDS[3]},M67,"]
        path.write_text("# a comment\nGaiaDR3,Name,Prob\n" + "\n".join(lines) + "\n")
    else:
        columns = {"GaiaDR3": IDS[:4], "Name": [*["NGC_188"] * 3, "M67"]}
        pq.write_table(pa.table(columns | {"Prob": [0.9, 0.9, 0.9, None]}), path)
    found = read_members(path)
    assert found.source_id.tolist() == IDS[:4].tolist()
    assert found.cluster.tolist() == ["NGC_188"] * 3 + ["M67"]
    assert found.probability.tolist() == [0.9, 0.9, 0.9, 0.0]


def test_a_list_that_has_lost_digits_is_refused(tmp_path: Path) -> None:
    pq.write_table(
        pa.table({"id": IDS[:3].astype(float), "Name": ["a"] * 3}), tmp_path / "m.parquet"
    )
    with pytest.raises(InputError, match=r"member list(.|\n)*does not hold identifiers"):
        read_members(tmp_path / "m.parquet", source_id="id")
    with pytest.raises(InputError, match="no column GaiaDR3"):
        read_members(tmp_path / "m.parquet")


def test_a_catalog_s_good_stars(tmp_path: Path) -> None:
    columns = {name: np.arange(4.0) for name in ("logg", "m_h", "e_m_h", "log_age", "e_log_age")}
    columns |= {"source_id": IDS[:4], "good_params": [True, False, True, True]}
    (tmp_path / "catalog").mkdir()
    pq.write_table(pa.table(columns), tmp_path / "catalog" / "a.parquet")
    ids, answers, logg = catalog_answers(tmp_path)
    assert ids.tolist() == IDS[[0, 2, 3]].tolist()
    assert answers["m_h"][1].tolist() == logg.tolist() == [0.0, 2.0, 3.0]
    with pytest.raises(InputError, match="no finished catalog"):
        catalog_answers(tmp_path / "nothing")
