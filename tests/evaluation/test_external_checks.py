"""External validation, on stars whose scatter and bias are known."""

from __future__ import annotations

import csv
import subprocess
import sys
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy.table import Table
from support import simulated

from catalogproc.errors import InputError, JobError
from catalogproc.evaluation.external_checks import Measured, clusters, pairs, repeats
from catalogproc.evaluation.external_report import References, crosscheck
from catalogproc.evaluation.external_tables import (
    Members,
    read_good_stars,
    read_known,
    read_members,
)
from catalogproc.inference.engine import Engine
from catalogproc.inference.quality_flags import outside_mass_domain
from catalogproc.job import load_job
from catalogproc.network.bundle import load_bundle
from catalogproc.readers.xp import read_spectra
from catalogproc.simulation.simulated_stars import SimulatedStars, write_stars

STARS = 400


@pytest.fixture(scope="module")
def stars() -> dict[str, np.ndarray]:
    """Labels of simulated giants, which differ from star to star as in a real cluster."""
    columns = simulated.simulator().draw(STARS, 5).columns
    return {name: columns[name].numpy().astype(float) for name in ("logg", "m_h")}


IDS = np.arange(STARS, dtype=np.int64) + 4_000_000_000_000_000_001


def members(cluster: str = "NGC 1", rows: slice = slice(0, 200)) -> Members:
    ids = IDS[rows]
    return Members(ids, np.full(len(ids), cluster), np.linspace(0, 1, len(ids)))


def measured(value: float, error: float, seed: int, extra: float = 0.0) -> Measured:
    """One value measured for STARS stars, with noise, and with ``extra`` scatter."""
    random = np.random.default_rng(seed)
    errors = error * random.uniform(0.5, 2.0, STARS)
    noise = errors * random.standard_normal(STARS) + extra * random.standard_normal(STARS)
    return Measured(value + noise, errors)


def test_a_cluster_of_one_age_and_composition(stars: dict[str, np.ndarray]) -> None:
    """With correct errors chi2 is 1, there is no intrinsic scatter and no trend; bias is found."""
    answers = {"log_age": measured(9.6, 0.08, 1), "m_h": measured(0.05, 0.05, 2)}
    known = {"NGC 1": {"log_age": 9.5}}
    found = clusters(members(), IDS, answers, known, logg=stars["logg"])
    age, metals = found
    assert (age.cluster, age.label, age.stars) == ("NGC 1", "log_age", 200)
    assert age.value == pytest.approx(9.6, abs=4 * age.error)
    assert age.bias == pytest.approx(0.1, abs=0.03)
    assert np.isnan(metals.bias)
    for score in found:
        assert score.chi2_red == pytest.approx(1.0, abs=4 * (2 / 199) ** 0.5)
        assert score.intrinsic < 0.02
        assert abs(score.slope) < 4 * score.e_slope
    assert age.scatter == pytest.approx(np.std(answers["log_age"].value[:200]), rel=0.35)


def test_intrinsic_scatter_and_a_trend_are_found(
    stars: dict[str, np.ndarray],
) -> None:
    loose = clusters(members(), IDS, {"m_h": measured(0.0, 0.05, 3, extra=0.15)})[0]
    assert loose.intrinsic == pytest.approx(0.15, rel=0.2)
    assert loose.chi2_red > 3
    flat = measured(0.0, 0.05, 4)
    tilted = Measured(flat.value + 0.1 * (stars["logg"] - 2.5), flat.error)
    trend = clusters(members(), IDS, {"m_h": tilted}, logg=stars["logg"])[0]
    assert trend.slope == pytest.approx(0.1, abs=4 * trend.e_slope)
    assert trend.slope > 10 * trend.e_slope


def test_members_are_found_by_identifier_in_any_order() -> None:
    answers = {"m_h": measured(0.0, 0.05, 5)}
    order = np.random.default_rng(0).permutation(STARS)
    permuted = {"m_h": answers["m_h"].rows(order)}
    wanted = clusters(members(), IDS, answers)[0]
    found = clusters(members(), IDS[order], permuted)[0]
    assert found.stars == wanted.stars
    assert found.value == pytest.approx(wanted.value, rel=1e-12)
    not_in_catalog = Members(IDS[:2] - 7, np.array(["X", "X"]), np.ones(2))
    assert clusters(not_in_catalog, IDS, answers) == []
    answers["m_h"].value[:198] = np.nan
    assert clusters(members(), IDS, answers) == []  # only two stars
    assert len(members().likely(0.5).source_id) == 100


def test_repeats_measure_the_errors() -> None:
    """The scatter of z is 1 if the errors are those of the noise, and 2 if they are half of it."""
    first, second = measured(4800, 50, 6), measured(4800, 50, 7)
    score = repeats("teff", first, second)
    assert score.pairs == STARS
    assert score.z_scatter == pytest.approx(1.0, abs=0.15)
    assert score.within_1_sigma == pytest.approx(0.683, abs=0.08)
    halved = (Measured(each.value, each.error / 2) for each in (first, second))
    assert repeats("teff", *halved).z_scatter == pytest.approx(2 * score.z_scatter)
    shifted = repeats("teff", Measured(first.value + 30, first.error), second)
    assert shifted.bias == pytest.approx(score.bias + 30)
    first.value[:10], second.error[10:20] = np.nan, np.nan
    assert repeats("teff", first, second).pairs == STARS - 20
    assert repeats("teff", first.rows(slice(10)), second.rows(slice(10))).pairs == 0


def test_pairs_are_of_the_same_star() -> None:
    ids = np.array([7, 3, 7, 5, 3, 7, 9])
    first, further = pairs(ids)
    assert (ids[first] == ids[further]).all()
    assert sorted(zip(first.tolist(), further.tolist(), strict=True)) == [(0, 2), (0, 5), (1, 4)]


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


def test_a_list_with_float_identifiers_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.parquet"
    pq.write_table(pa.table({"source_id": IDS[:3].astype(float), "Name": ["a"] * 3}), path)
    with pytest.raises(InputError, match=r"identifiers(.|\n)*a float does not hold"):
        read_members(path)
    pq.write_table(pa.table({"star": IDS[:3]}), path)
    with pytest.raises(InputError, match=r"member list lacks(.|\n)*source_id and cluster"):
        read_members(path)
    with pytest.raises(InputError, match=r"lacks(.|\n)*m_h or log_age"):
        read_known(path)
    with pytest.raises(InputError, match=r"member list cannot be read"):
        read_members(tmp_path / "nothing.parquet")


def test_only_good_stars_of_a_catalog_are_read(tmp_path: Path) -> None:
    names = ("logg", "m_h", "e_m_h", "e_m_h_input", "mass", "e_mass", "e_mass_input")
    columns = {name: np.arange(4.0) for name in names}
    columns |= {"source_id": IDS[:4], "good_params": [True, False, True, True]}
    columns |= {"good_mass_age": [True, False, False, True]}
    (tmp_path / "catalog").mkdir()
    pq.write_table(pa.table(columns), tmp_path / "catalog" / "a.parquet")
    found = read_good_stars(tmp_path, ("m_h", "mass"))
    assert found.source_id.tolist() == IDS[[0, 2, 3]].tolist()
    assert found.error["m_h"].tolist() == found.logg.tolist() == [0.0, 2.0, 3.0]
    np.testing.assert_array_equal(found.value["mass"], [0.0, np.nan, 3.0])
    with pytest.raises(InputError, match="no finished catalog"):
        read_good_stars(tmp_path / "nothing", ("m_h",))


REPEATS = 60
GOOD = 400


@pytest.fixture(scope="module")
def catalogs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two catalogs of the same giants, which differ by the noise of the spectra only.

    The first REPEATS rows are one giant, as a cluster of identical stars.
    """
    folder = tmp_path_factory.mktemp("catalogs")
    stars = simulated.simulator().draw(6_000, 12)
    bright = np.flatnonzero(stars["g_mag"].numpy() < 14)
    columns = {name: column[bright] for name, column in stars.columns.items()}
    paths = write_stars(SimulatedStars(columns, stars.n_bp_coefficients, 12), folder / "stars")
    files = [path for path in paths if path.name.startswith("xp_continuous")]
    table = pa.Table.from_batches([batch for path in files for batch in read_spectra(path)])
    job = replace(load_job("demo"), inflate_errors=False, propagation="first_order")
    bundle = load_bundle("default")
    # Selecting good stars needs no propagated errors, which take most of the time.
    selected = Engine(bundle, replace(job, propagation="none")).process(table)
    good = selected["good_mass_age"].to_numpy() & inside_mass_domain(selected)
    good = np.flatnonzero(good)[:GOOD]
    table = table.take(np.r_[np.full(REPEATS, good[0]), good[1:]])
    ids = np.arange(len(table), dtype=np.int64) + IDS[0]
    table = table.set_column(0, table.schema.field("source_id"), pa.array(ids))
    random, engine = np.random.default_rng(3), Engine(bundle, job)
    for name in ("one", "two"):
        (folder / name / "catalog").mkdir(parents=True)
        catalog = engine.process(add_noise(table, random))
        pq.write_table(catalog, folder / name / "catalog" / "part.parquet")
    return folder / "one", folder / "two"


def inside_mass_domain(catalog: pa.Table) -> np.ndarray:
    """Stars that noise does not move out of the domain of masses, or rarely."""
    labels = [catalog[name].to_numpy() for name in ("teff", "logg", "m_h")]
    shifts = product((-60, 60), (-0.25, 0.25), (-0.1, 0.1))  # K, dex, dex
    outside = [
        outside_mass_domain(*(x + step for x, step in zip(labels, shift, strict=True)))
        for shift in shifts
    ]
    return ~np.any(outside, axis=0)


def add_noise(table: pa.Table, random: np.random.Generator) -> pa.Table:
    """The same spectra with Gaussian noise of their errors added."""
    for band in ("bp", "rp"):
        at = table.schema.get_field_index(f"{band}_coefficients")
        value, error = (
            np.stack(table[f"{band}_{kind}"].to_numpy())
            for kind in ("coefficients", "coefficient_errors")
        )
        value = value + error * random.standard_normal(error.shape)
        field = table.schema.field(at)
        table = table.set_column(at, field, pa.array(list(value), field.type))
    return table


def test_crosscheck_command_with_clusters_repeats_and_a_table_of_masses(
    catalogs: tuple[Path, Path], tmp_path: Path
) -> None:
    """The scatter of z of repeated spectra is at most 1 with the input uncertainty."""
    one, two = catalogs
    stars = pq.read_table(one / "catalog").to_pandas()
    lists = tmp_path / "lists"
    lists.mkdir()
    rows = "".join(f"{star},Same,0.9\n" for star in stars["source_id"][:REPEATS])
    (lists / "members.csv").write_text(f"GaiaDR3,Name,Prob\n{rows}{IDS[0] - 7},Elsewhere,0.9\n")
    age = float(stars["log_age"][:REPEATS].median())
    (lists / "known.csv").write_text(f"cluster,log_age\nSame,{age + 0.2}\n")
    pq.write_table(
        pa.table({
            "source_id": stars["source_id"], "mass": stars["mass"] - 0.3, "e_mass": stars["e_mass"]
        }), lists / "masses.parquet",
    )  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-m", "catalogproc", "crosscheck", str(one), "--again", str(two),
         "--members", str(lists / "members.csv"), "--known", str(lists / "known.csv"),
         "--catalog", str(lists / "masses.parquet"), "--output", str(tmp_path / "out")],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    text = (tmp_path / "out" / "crosscheck.md").read_text()
    printed = [line for line in done.stdout.splitlines() if not line.startswith(str(tmp_path))]
    assert set(printed) < set(text.splitlines())
    found = {
        name: list(csv.DictReader((tmp_path / "out" / f"{name}.csv").read_text().splitlines()))
        for name in ("clusters", "repeats", "plain-masses")
    }
    z = {line["label"]: float(line["z_scatter"]) for line in found["repeats"]}
    for label in ("teff", "logg", "m_h", "mass", "log_age"):
        # Derivatives at one point overstate what noise does to a network that is not linear.
        assert 0.5 < z[f"{label}, input uncertainty"] < 1.15, label
        assert z[label] < z[f"{label}, input uncertainty"]
    same = {line["label"]: line for line in found["clusters"]}
    assert {line["cluster"] for line in found["clusters"]} == {"Same"}
    assert float(same["m_h"]["intrinsic"]) == float(same["log_age"]["intrinsic"]) == 0.0
    assert float(same["log_age"]["bias"]) == pytest.approx(-0.2, abs=0.05)
    assert same["m_h"]["known"] == "nan"
    scores = found["plain-masses"]
    [mass] = (x for x in scores if (x["quantity"], x["sample"]) == ("mass", "good_mass_age")
              and x["part"] == "sample")  # fmt: skip
    assert float(mass["bias"]) == pytest.approx(0.3)
    assert int(mass["stars"]) == stars["good_mass_age"].sum()
    assert float(mass["slope"]) == float(mass["slope_of_truth"]) == pytest.approx(1.0)
    variance = stars["mass"][stars["good_mass_age"]].astype(float).var(ddof=0)
    assert float(mass["r2"]) == pytest.approx(1 - 0.3**2 / variance, rel=1e-3)
    deciles = [x for x in scores if (x["part"], x["quantity"]) == ("decile", "mass")]
    assert deciles
    assert sum(int(line["stars"]) for line in deciles) % int(mass["stars"]) == 0


def test_crosscheck_without_references_is_refused(
    catalogs: tuple[Path, Path], tmp_path: Path
) -> None:
    with pytest.raises(JobError, match=r"--catalog, --members or --again"):
        crosscheck(catalogs[0], tmp_path, References())


@pytest.mark.parametrize("suffix", ["csv", "ecsv", "fits", "vot"])
def test_clusters_are_read_with_their_units_and_names_in_any_case(
    tmp_path: Path, suffix: str
) -> None:
    """Ages in Myr, where the format states units."""
    megayears, age = ("Myr", 1e3) if suffix != "csv" else (None, 1.0)
    known = tmp_path / f"known.{suffix}"
    form = {"csv": "ascii.csv", "ecsv": "ascii.ecsv", "fits": "fits", "vot": "votable"}[suffix]
    table = Table({"cluster": ["a", "b"], "Age": np.array([4.0, 0.5]) * age, "M_H": [0.0, -0.2]})
    table["Age"].unit = megayears
    table.write(known, format=form)
    found = read_known(known)
    assert found["a"]["log_age"] == pytest.approx(np.log10(4e9))
    assert found["b"] == pytest.approx({"log_age": np.log10(5e8), "m_h": -0.2})
