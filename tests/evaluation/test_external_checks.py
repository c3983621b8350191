"""The checks themselves are checked, on stars whose scatter and bias are known."""

from __future__ import annotations

import csv
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from catalogproc.errors import InputError, JobError
from catalogproc.evaluation.external_checks import clusters, pairs, repeats, seismic
from catalogproc.evaluation.external_report import crosscheck
from catalogproc.evaluation.external_tables import (
    Members,
    read_answers,
    read_known,
    read_masses,
    read_members,
)
from catalogproc.inference.engine import Engine
from catalogproc.job import load_job
from catalogproc.network.bundle import load_bundle
from catalogproc.readers.xp import read_spectra
from catalogproc.simulation.simulated_stars import write_stars
from catalogproc.simulation.simulator import Simulator

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
    path = tmp_path / "m.parquet"
    pq.write_table(pa.table({"source_id": IDS[:3].astype(float), "Name": ["a"] * 3}), path)
    with pytest.raises(InputError, match=r"identifiers(.|\n)*a float does not hold"):
        read_members(path)
    pq.write_table(pa.table({"star": IDS[:3]}), path)
    with pytest.raises(InputError, match=r"member list lacks(.|\n)*source_id and cluster"):
        read_members(path)
    with pytest.raises(InputError, match=r"lacks(.|\n)*source_id, mass, e_mass"):
        read_masses(path)
    with pytest.raises(InputError, match=r"lacks(.|\n)*m_h or log_age"):
        read_known(path)
    with pytest.raises(InputError, match=r"member list cannot be read"):
        read_members(tmp_path / "nothing.parquet")


def test_a_catalog_s_good_stars(tmp_path: Path) -> None:
    names = ("logg", "m_h", "e_m_h", "e_m_h_input", "mass", "e_mass", "e_mass_input")
    columns = {name: np.arange(4.0) for name in names}
    columns |= {"source_id": IDS[:4], "good_params": [True, False, True, True]}
    columns |= {"good_mass_age": [True, False, False, True]}
    (tmp_path / "catalog").mkdir()
    pq.write_table(pa.table(columns), tmp_path / "catalog" / "a.parquet")
    found = read_answers(tmp_path, ("m_h", "mass"))
    assert found.source_id.tolist() == IDS[[0, 2, 3]].tolist()
    assert found.error["m_h"].tolist() == found.logg.tolist() == [0.0, 2.0, 3.0]
    np.testing.assert_array_equal(found.value["mass"], [0.0, np.nan, 3.0])
    with pytest.raises(InputError, match="no finished catalog"):
        read_answers(tmp_path / "nothing", ("m_h",))


DRAWS = 60


@pytest.fixture(scope="module")
def catalogs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two catalogs of the same giants: all that differs is the noise of two spectra each. The
    first DRAWS are one giant again and again, which is a cluster as no sky has it."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("catalogs")
    paths = write_stars(Simulator().draw(4_000, 12), folder / "stars")
    files = [path for path in paths if path.name.startswith("xp_continuous")]
    table = pa.Table.from_batches([batch for path in files for batch in read_spectra(path)])
    engine = Engine(load_bundle("default"), replace(load_job("demo"), inflate_errors=False))
    good = engine.process(table).to_pandas()["good_mass_age"].to_numpy()
    table = table.take(np.flatnonzero(good)[:600])
    table = table.take(np.r_[np.zeros(DRAWS, dtype=int), np.arange(1, len(table))])
    ids = np.arange(len(table), dtype=np.int64) + IDS[0]
    table = table.set_column(0, table.schema.field("source_id"), pa.array(ids))
    random = np.random.default_rng(3)
    for name in ("one", "two"):
        noisy = table
        for band in ("bp", "rp"):
            at = table.schema.get_field_index(f"{band}_coefficients")
            value, error = (
                np.stack(table[f"{band}_{what}"].to_numpy())
                for what in ("coefficients", "coefficient_errors")
            )
            value = value + error * random.standard_normal(error.shape)
            field = table.schema.field(at)
            noisy = noisy.set_column(at, field, pa.array(list(value), field.type))
        (folder / name / "catalog").mkdir(parents=True)
        pq.write_table(engine.process(noisy), folder / name / "catalog" / "part.parquet")
    return folder / "one", folder / "two"


def test_the_command_holds_a_catalog_against_all_three(
    catalogs: tuple[Path, Path], tmp_path: Path
) -> None:
    """Errors by derivatives, told by spectra that were read twice: z scatters by 1."""
    one, two = catalogs
    stars = pq.read_table(one / "catalog").to_pandas()
    lists = tmp_path / "lists"
    lists.mkdir()
    rows = "".join(f"{star},Same,0.9\n" for star in stars["source_id"][:DRAWS])
    (lists / "members.csv").write_text(f"GaiaDR3,Name,Prob\n{rows}{IDS[0] - 7},Elsewhere,0.9\n")
    age = float(stars["log_age"][:DRAWS].median())
    (lists / "known.csv").write_text(f"cluster,log_age\nSame,{age + 0.2}\n")
    pq.write_table(
        pa.table({
            "source_id": stars["source_id"], "mass": stars["mass"] - 0.3, "e_mass": stars["e_mass"]
        }), lists / "masses.parquet",
    )  # fmt: skip
    told = subprocess.run(
        [sys.executable, "-m", "catalogproc", "crosscheck", str(one), "--again", str(two),
         "--members", str(lists / "members.csv"), "--known", str(lists / "known.csv"),
         "--masses", str(lists / "masses.parquet"), "--output", str(tmp_path / "out")],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert (tmp_path / "out" / "crosscheck.md").read_text() in told.stdout
    found = {
        name: list(csv.DictReader((tmp_path / "out" / f"{name}.csv").read_text().splitlines()))
        for name in ("clusters", "repeats", "masses")
    }
    z = {line["label"]: float(line["z_scatter"]) for line in found["repeats"]}
    for label in ("teff", "logg", "m_h", "mass", "log_age"):
        assert z[f"{label}, noise alone"] == pytest.approx(1.0, abs=0.15)
        assert z[label] < z[f"{label}, noise alone"]
    same = {line["label"]: line for line in found["clusters"]}
    assert {line["cluster"] for line in found["clusters"]} == {"Same"}
    assert float(same["m_h"]["intrinsic"]) == float(same["log_age"]["intrinsic"]) == 0.0
    assert float(same["log_age"]["bias"]) == pytest.approx(-0.2, abs=0.05)
    assert same["m_h"]["known"] == "nan"
    [mass] = found["masses"]
    assert float(mass["bias"]) == pytest.approx(0.3)
    assert int(mass["pairs"]) == stars["good_mass_age"].sum()


def test_something_must_be_given_to_check_against(
    catalogs: tuple[Path, Path], tmp_path: Path
) -> None:
    with pytest.raises(JobError, match=r"--members, --again or --masses"):
        crosscheck(catalogs[0], tmp_path)
