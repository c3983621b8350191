"""From files in the layouts of the surveys to a dataset; every defect of their rows is handled."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import torch
from support.dust_maps import write_combine19
from support.survey_files import STARS, THREE_TIMES, TWICE, Sky, Trap, gnorm, write_fits, write_lb24

from catalogproc.contract import load_contract
from catalogproc.datasets.benchmark_stars import EXTRA, OUTSIDE
from catalogproc.datasets.cuts import Cuts
from catalogproc.datasets.dataset import PAPER, Report, dataset_columns, dataset_facts, load_dataset
from catalogproc.datasets.labels import Masses
from catalogproc.datasets.lb24 import CUTS, LB24Files, dataset_from_lb24
from catalogproc.datasets.star_table import StarTable, fit_standardisation
from catalogproc.datasets.surveys import SurveyFiles, dataset_from_surveys
from catalogproc.datasets.test_sets import Simulated, benchmark, training_stars
from catalogproc.datasets.writer import Selection, Split
from catalogproc.errors import InputError, JobError
from catalogproc.evaluation.xgboost_baseline import Trees, TreeSettings
from catalogproc.features import combined19, dust_map
from catalogproc.network.bundle import load_bundle
from catalogproc.training.token_sampling import standardise
from catalogproc.vocabulary import load_vocabulary

VOCABULARY = load_vocabulary()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("datasets")


@pytest.fixture(scope="module")
def sky(folder: Path) -> Sky:
    return Sky.make(folder / "simulated")


@pytest.fixture(scope="module")
def distmass(folder: Path, sky: Sky) -> Path:
    write_fits(folder / "APOGEE_DistMass-DR17_v1.6.1.fits", sky.distmass)
    return folder / "APOGEE_DistMass-DR17_v1.6.1.fits"


@pytest.fixture(scope="module")
def published(folder: Path, sky: Sky) -> tuple[Path, Path]:
    return write_lb24(folder, sky)


@pytest.fixture(scope="module")
def lb24_files(published: tuple[Path, Path], distmass: Path) -> LB24Files:
    return LB24Files(*published, distmass)


@pytest.fixture(scope="module")
def lb24(folder: Path, lb24_files: LB24Files) -> Report:
    return dataset_from_lb24(lb24_files, folder / "lb24")


@pytest.fixture(scope="module")
def files(folder: Path, sky: Sky, distmass: Path) -> SurveyFiles:
    """Two files of spectra, gaia_source without 2MASS and dust, allStar."""
    write_fits(folder / "allStar.fits", sky.allstar, wide=True)
    spectra = sky.spectra.filter(pa.array(np.arange(len(sky)) != Trap.NO_SPECTRUM))
    spectra = without_band(spectra, "rp", int(sky["source_id"][Trap.BP_ONLY]))
    unknown_stars = spectra.slice(200, 5).set_column(
        0, spectra.field(0), pa.array(np.arange(5, dtype=np.int64) + 2)
    )
    # The second file repeats a star of the first, and has stars that are not in APOGEE.
    pq.write_table(spectra.slice(0, 250), folder / "xp_0.parquet")
    second = pa.concat_tables([spectra.slice(249), unknown_stars])
    pq.write_table(second, folder / "xp_1.parquet")
    source = sky.source.drop_columns(["ebv", "e_ln_ebv", "ph_qual"])
    source = source.drop_columns([n for n in source.column_names if n.endswith(("_m", "_msigcom"))])
    ruwe = source["ruwe"].to_numpy().copy()
    ruwe[Trap.BAD_RUWE] = 1.9
    place = source.column_names.index("ruwe")
    source = source.set_column(place, source.field(place), pa.array(ruwe))
    pq.write_table(source.take(pa.array(np.argsort(sky["source_id"]))), folder / "gaia.parquet")
    return SurveyFiles(
        folder / "allStar.fits",
        distmass,
        (folder / "gaia.parquet",),
        (folder / "xp_0.parquet", folder / "xp_1.parquet"),
    )


def without_band(spectra: pa.Table, band: str, star: int) -> pa.Table:
    keep = pc.not_equal(spectra["source_id"], star)
    for name in spectra.column_names:
        if name.startswith(f"{band}_"):
            place = spectra.column_names.index(name)
            column = pc.if_else(keep, spectra[name].combine_chunks(), pa.scalar(None))
            spectra = spectra.set_column(place, pa.field(name, column.type), column)
    return spectra


@pytest.fixture(scope="module")
def dust(folder: Path) -> dust_map.DustMap:
    write_combine19(folder / "combine19.h5")
    return combined19.stage(folder / "maps", folder / "combine19.h5")


WIDE = Selection(Cuts(box=None), Split(published=False))
"""No box: the smallest and largest coefficients of 480 stars are not extreme."""


@pytest.fixture(scope="module")
def surveys(folder: Path, files: SurveyFiles, dust: dust_map.DustMap) -> Report:
    return dataset_from_surveys(files, folder / "surveys", WIDE, dust_map=dust)


def rows(path: Path) -> pa.Table:
    parts = [pq.read_table(path / f"{name}.parquet") for name in ("train", "test")]
    return pa.concat_tables(parts)


def by_star(path: Path, sky: Sky) -> dict[int, dict[str, Any]]:
    """First row of each simulated star."""
    number = {int(source_id): star for star, source_id in enumerate(sky["source_id"])}
    return {number[row["source_id"]]: row for row in rows(path).to_pylist() if row["repeat"] == 0}


# --- datasets of both origins -------------------------------------------------------------------


@pytest.fixture(params=["lb24", "surveys"])
def made(request: pytest.FixtureRequest, folder: Path) -> tuple[Path, Report]:
    return folder / request.param, request.getfixturevalue(request.param)


def test_a_dataset_fulfils_its_contract(made: tuple[Path, Report]) -> None:
    for name in ("train", "test"):
        table = pq.read_table(made[0] / f"{name}.parquet")
        load_contract("training").check(table)
        assert set(table["split"].to_pylist()) == {name}
        field = table.schema.field("mass")
        assert field.metadata[b"unit"] == b"solMass"


def test_every_token_has_a_column_with_its_unit() -> None:
    contract = load_contract("training")
    for token in VOCABULARY.tokens:
        if token.kind != "coefficient":
            assert contract[token.name].unit == token.unit
            assert contract[f"e_{token.name}"].unit == token.unit


def test_no_star_is_in_both_parts(made: tuple[Path, Report], sky: Sky) -> None:
    train, test = (
        set(pq.read_table(made[0] / f"{name}.parquet")["source_id"].to_pylist())
        for name in ("train", "test")
    )
    assert not train & test
    assert 0.05 < len(test) / len(train | test) < 0.17
    assert (train | test) <= set(sky["source_id"].tolist())  # all digits are kept


def test_rows_read_are_kept_or_left_out_with_a_reason(made: tuple[Path, Report], sky: Sky) -> None:
    path, report = made
    kept = sum(report.rows.values())
    assert report.rows_read == len(sky.rows)
    assert report.rows_read == kept + sum(report.left_out.values())
    assert kept == len(rows(path))
    assert sum(report.stars.values()) == len(set(rows(path)["source_id"].to_pylist()))
    text = "\n".join(report.lines())
    for number in PAPER.values():
        assert f"{number:,}" in text
    assert f"{report.stars['train']:,}" in text
    for reason, count in report.left_out.items():
        assert reason in text
        assert count > 0


def test_further_spectra_of_a_star_are_counted_and_ordered(made: tuple[Path, Report]) -> None:
    table = rows(made[0])
    repeats = {}
    for source_id, repeat in zip(
        table["source_id"].to_pylist(), table["repeat"].to_pylist(), strict=True
    ):
        repeats.setdefault(source_id, []).append(repeat)
    assert all(sorted(found) == list(range(len(found))) for found in repeats.values())
    assert 25 < sum(len(found) == 2 for found in repeats.values()) <= len(TWICE)
    assert sum(len(found) == 3 for found in repeats.values()) == len(THREE_TIMES)


def test_a_dataset_loads_as_tokens(made: tuple[Path, Report]) -> None:
    train, test = load_dataset(made[0])
    assert isinstance(train, StarTable)
    assert len(train.ids) == made[1].rows["train"]
    assert len(test.ids) == made[1].stars["test"] == len(set(test.ids.tolist()))
    assert train.values.shape[1] == len(VOCABULARY)
    labels = VOCABULARY.columns(("teff", "logg", "m_h", "mass", "log_age"))
    assert np.isfinite(train.values[:, labels]).mean() > 0.98
    assert np.isfinite(train.values[:, VOCABULARY.column("bprp")]).all()
    assert (train.errors[np.isfinite(train.errors)] >= 0).all()
    # Absent values have no error.
    assert not np.isfinite(train.errors[~np.isfinite(train.values)]).any()
    once, _ = load_dataset(made[0], repeats=False)
    assert len(once.ids) == made[1].stars["train"] == len(set(once.ids.tolist()))


def test_columns_are_in_the_row_order_of_the_tokens(made: tuple[Path, Report]) -> None:
    train, test = load_dataset(made[0])
    for part, table in (("train", train), ("test", test)):
        found = dataset_columns(made[0], part, ["source_id", "mass", "distmass_bitmask"])
        assert (found["source_id"] == table.ids).all()
        mass = table.values[:, VOCABULARY.column("mass")]
        assert (found["mass"] == mass).all()
        assert set(found["distmass_bitmask"].tolist()) <= {0, 1, 2}


def test_a_training_samples_it(made: tuple[Path, Report]) -> None:
    """Standardised by its training part, the median of every token is about 0."""
    train, _ = load_dataset(made[0])
    labels = np.array([token.kind == "label" for token in VOCABULARY.tokens])
    standardisation, domain = fit_standardisation(train.values, labels)
    z, error = standardise(*train.sample(3, 64), standardisation, torch.device("cpu"))
    assert z.shape == (64, len(VOCABULARY))
    assert torch.isfinite(error[torch.isfinite(z)]).all()
    assert z.nanmedian(dim=0).values[VOCABULARY.columns(("bp0", "teff", "mass"))].abs().max() < 1
    assert domain.high[VOCABULARY.column("log_age")] <= np.log10(13.8e9) + 1e-6


def test_statistics_are_of_the_training_part_alone(made: tuple[Path, Report]) -> None:
    train, test = load_dataset(made[0])
    with (made[0] / "statistics.csv").open() as file:
        found = {row["token"]: row for row in csv.DictReader(file)}
    assert list(found) == list(VOCABULARY.names)
    differ = False
    for name in ("bp0", "rp3", "jh", "teff", "mass", "log_age"):
        x = train.values[:, VOCABULARY.column(name)].astype(np.float64)
        x = x[np.isfinite(x)]
        assert float(found[name]["center"]) == pytest.approx(np.median(x))
        spread = 1.4826 * np.median(np.abs(x - np.median(x)))
        assert float(found[name]["scale"]) == pytest.approx(spread)
        assert int(found[name]["stars"]) == len(x)
        both = np.concatenate([x, test.values[:, VOCABULARY.column(name)]])
        differ |= float(found[name]["center"]) != np.nanmedian(both)
    assert differ


def test_a_changed_byte_is_refused(made: tuple[Path, Report], tmp_path: Path) -> None:
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(made[0], copy)
    load_dataset(copy)
    content = bytearray((copy / "train.parquet").read_bytes())
    content[len(content) // 2] ^= 1
    (copy / "train.parquet").write_bytes(content)
    with pytest.raises(InputError, match="changed after it was written"):
        load_dataset(copy)
    with pytest.raises(InputError, match="no readable dataset"):
        load_dataset(tmp_path)


def test_facts_name_files_cuts_and_credit(made: tuple[Path, Report]) -> None:
    facts = dataset_facts(made[0])
    assert len(facts["sha256"]) == 64
    assert "APOGEE" in facts["credit"]
    assert facts["cuts"]["age"] == [0.0, 13.8]
    assert any("DistMass" in name for name in facts["files"])
    assert facts["report"]["rows"] == dict(made[1].rows)
    json.dumps(facts)


# --- Leung & Bovy's sets ------------------------------------------------------------------------


def test_values_of_the_published_sets_are_unchanged(lb24: Report, folder: Path, sky: Sky) -> None:
    stars = by_star(folder / "lb24", sky)
    values, errors = gnorm(sky)
    for star in (Trap.WARNED, Trap.OUTSIDE, 100, 200, 300):
        if star not in stars:
            assert star > 99  # a subgiant
            continue
        row = stars[star]
        assert row["bp_coefficients"] == pytest.approx(values[star, :55].astype("f4"))
        assert row["rp_coefficient_errors"] == pytest.approx(errors[star, 55:].astype("f4"))
        assert row["mass"] == np.float32(sky.distmass["MASS"][star])
        assert 10 ** row["log_age"] == pytest.approx(sky.distmass["AGE_UNCOR_SS"][star], rel=1e-5)
        assert row["e_log_age"] == pytest.approx(0.14)
        assert row["teff"] == sky.allstar["TEFF"][star]
        assert row["logebv"] == pytest.approx(sky["ln_ebv_seen"][star])
        assert row["bp_n_relevant_bases"] == sky["n_bp_relevant"][star]
    assert stars[Trap.OUTSIDE]["distmass_bitmask"] == 2


def test_each_spectrum_of_a_star_gets_its_mass(lb24: Report, folder: Path, sky: Sky) -> None:
    """DistMass has several rows of the star's name; the temperature identifies the spectrum."""
    found = {(row["source_id"], row["teff"]): row for row in rows(folder / "lb24").to_pylist()}
    checked = 0
    for row, star in enumerate(sky.rows):
        key = (int(sky["source_id"][star]), float(sky.labels["teff"][row]))
        if star in (*TWICE, *THREE_TIMES) and key in found:
            assert found[key]["mass"] == np.float32(sky.distmass["MASS"][row])
            checked += 1
    assert checked > 40


def test_stars_in_both_published_parts_are_moved_and_counted(
    lb24: Report, folder: Path, sky: Sky, published: tuple[Path, Path]
) -> None:
    import h5py

    parts = []
    for path in published:
        with h5py.File(path) as file:
            parts.append(set(file["gaia_source_id"][:].tolist()))
    in_both = (parts[0] & parts[1]) - {0}
    kept = set(rows(folder / "lb24")["source_id"].to_pylist())
    # Some of them are in one part only, because their rows in the other were left out.
    assert 0 < lb24.in_both_parts <= len(in_both)
    train = set(pq.read_table(folder / "lb24" / "train.parquet")["source_id"].to_pylist())
    test = set(pq.read_table(folder / "lb24" / "test.parquet")["source_id"].to_pylist())
    assert test <= parts[1]
    assert len(in_both & kept & train) >= lb24.in_both_parts
    assert f"moved to the training part: {lb24.in_both_parts}" in "\n".join(lb24.lines())


def test_a_new_split_depends_on_source_id_alone(lb24_files: LB24Files, tmp_path: Path) -> None:
    selection = Selection(CUTS, Split(published=False, fraction=0.3))
    first, again = (
        dataset_from_lb24(lb24_files, tmp_path / name, selection) for name in ("a", "b")
    )
    assert first.in_both_parts == 0
    assert 0.2 < first.stars["test"] / sum(first.stars.values()) < 0.4
    same = [dataset_facts(tmp_path / name)["sha256"] for name in ("a", "b")]
    assert same[0] == same[1]
    assert again.rows == first.rows
    # The order of rows and files does not matter.
    training, testing, distmass = lb24_files
    swapped = dataset_from_lb24(LB24Files(testing, training, distmass), tmp_path / "c", selection)
    ids = [
        set(pq.read_table(tmp_path / name / "test.parquet")["source_id"].to_pylist())
        for name in ("a", "c")
    ]
    assert ids[0] == ids[1]
    assert swapped.stars == first.stars


def test_reasons_why_rows_of_the_published_sets_are_left_out(
    lb24: Report, folder: Path, sky: Sky
) -> None:
    stars = by_star(folder / "lb24", sky)
    gone = (
        Trap.NO_GAIA, Trap.NO_SPECTRUM, Trap.METALS_BAD, Trap.STAR_BAD, Trap.PERSISTENCE,
        Trap.NEIGHBOUR, Trap.NAN_LABELS, Trap.ODD_NAME, Trap.NO_MASS, Trap.NO_AGE, Trap.TOO_OLD,
        Trap.METAL_POOR, Trap.SENTINEL_MASS,
    )  # fmt: skip
    assert not set(gone) & set(stars)
    assert lb24.left_out["no Gaia source"] == 1
    assert lb24.left_out["no XP spectrum"] == 1
    assert lb24.left_out["age outside 0 to 13.8 Gyr"] == 1
    assert lb24.left_out["[M/H] outside -2.5 to 1 dex"] == 1
    giant = np.isfinite(sky.distmass["AGE_UNCOR_SS"])
    assert lb24.left_out["log_age is not known"] >= (~giant).sum() - 1
    # Dwarfs have a mass and no age: they are left out unless the age is not required.
    assert set(stars) <= set(np.flatnonzero(giant[:STARS]))
    # A missing temperature or error is no reason.
    for star in (Trap.NO_TEFF, Trap.NO_ERROR, Trap.NO_AGE_ERROR, Trap.AP_NAME, Trap.NO_J):
        assert star in stars, star
    assert np.isnan(stars[Trap.NO_AGE_ERROR]["e_log_age"])


def test_cuts_can_be_changed(lb24_files: LB24Files, tmp_path: Path) -> None:
    options = ["required=none", "age=:20", "m_h=-0.45:1", "distmass_bits=2"]
    selection = Selection(CUTS.with_options(options))
    report = dataset_from_lb24(lb24_files, tmp_path / "d", selection)
    table = rows(tmp_path / "d")
    assert np.nanmin(table["m_h"].to_numpy()) >= -0.45
    assert np.isnan(table["log_age"].to_numpy()).any()
    assert np.isnan(table["m_h"].to_numpy()).any()
    assert report.left_out["DistMass's bits"] == 1
    assert np.nanmax(10 ** table["log_age"].to_numpy()) > 14e9
    assert report.outside == 0


# --- surveys ------------------------------------------------------------------------------------


def test_values_from_the_surveys_are_those_of_a_run(
    surveys: Report, folder: Path, sky: Sky, dust: dust_map.DustMap
) -> None:
    stars = by_star(folder / "surveys", sky)
    values, _ = gnorm(sky)
    checked = 0
    for star in range(25, STARS, 7):
        if star not in stars:
            continue
        row, checked = stars[star], checked + 1
        assert row["bp_coefficients"] == pytest.approx(values[star, :55], rel=2e-6)
        assert row["bprp"] == pytest.approx(sky["bp_mag"][star] - sky["rp_mag"][star], abs=1e-5)
        jh = sky["j_mag"][star] - sky["h_mag"][star]
        assert row["jh"] == pytest.approx(jh, abs=2e-6, nan_ok=True)
        assert row["mass"] == np.float32(sky.distmass["MASS"][star])
        assert row["apogee_id"] == sky.apogee_id[star]
        parallax, error = sky["parallax"][star], sky["e_parallax"][star]
        if error > 0.1:
            assert np.isnan(row["parallax_zpc"])
            continue
        assert row["parallax_zpc"] == pytest.approx(parallax, abs=1e-5, nan_ok=True)
        scale = 10 ** (0.2 * sky["g_mag"][star])
        assert row["g_fakemag"] == pytest.approx(parallax * scale, rel=1e-4, abs=0.1, nan_ok=True)
        place = ([sky["l"][star]], [sky["b"][star]])
        ln, e_ln = dust_map.ln_ebv_by_parallax(dust, *place, [parallax], [error])
        assert row["logebv"] == pytest.approx(ln[0], abs=2e-3, nan_ok=True)
        assert row["e_logebv"] == pytest.approx(e_ln[0], abs=2e-3, nan_ok=True)
    assert checked > 30


def test_reasons_why_rows_of_the_surveys_are_left_out(
    surveys: Report, folder: Path, sky: Sky
) -> None:
    stars = by_star(folder / "surveys", sky)
    expected = {
        Trap.NO_GAIA: "no Gaia source",
        Trap.NO_SPECTRUM: "no XP spectrum",
        Trap.BP_ONLY: "a band of the spectrum is missing",
        Trap.NEIGHBOUR: "a neighbour in the fibre",
        Trap.BAD_RUWE: "ruwe 1.4 or more",
        Trap.METALS_BAD: "m_h is not known",
        Trap.STAR_BAD: "m_h is not known",
        Trap.PERSISTENCE: "m_h is not known",
        Trap.NO_MASS: "mass is not known",
    }
    for star, reason in expected.items():
        assert star not in stars, reason
        assert surveys.left_out[reason] >= 1
    assert surveys.notes["spectra rejected, duplicate"] == 1
    assert surveys.left_out["a band of the spectrum is missing"] == 1
    assert surveys.notes["of APOGEE's rows, in DistMass"] == len(sky.rows)
    assert not {2, 3, 4, 5, 6} & set(rows(folder / "surveys")["source_id"].to_pylist())


def test_missing_values_of_the_surveys_are_absent(surveys: Report, folder: Path, sky: Sky) -> None:
    stars = by_star(folder / "surveys", sky)
    for star, name in (
        (Trap.NO_J, "jh"), (Trap.NO_J, "jk"), (Trap.NO_K, "jk"), (Trap.NO_TEFF, "teff"),
        (Trap.NO_ERROR, "e_teff"), (Trap.NO_AGE_ERROR, "e_log_age"),
    ):  # fmt: skip
        assert np.isnan(stars[star][name]), name
    assert np.isfinite(stars[Trap.NO_K]["jh"])
    dustless = [row for row in stars.values() if np.isnan(row["parallax_zpc"])]
    assert all(np.isnan(row["logebv"]) for row in dustless)
    assert np.isfinite([row["logebv"] for row in stars.values()]).mean() > 0.75


def test_the_best_spectrum_of_a_star_comes_first(surveys: Report, folder: Path, sky: Sky) -> None:
    """APOGEE's primary spectrum, then the one of highest signal: not the first in the file."""
    stars = by_star(folder / "surveys", sky)
    for star, row in ((40, STARS), (45, 45)):
        assert stars[star]["teff"] == sky.labels["teff"][row]


def test_spectra_with_an_extreme_coefficient_are_left_out(
    files: SurveyFiles, sky: Sky, tmp_path: Path
) -> None:
    report = dataset_from_surveys(
        files, tmp_path / "d", Selection(Cuts(box=(2.0, 100.0)), Split(False))
    )
    reason = "a coefficient outside 2 to 100 %"
    assert report.left_out[reason] > 10
    values, _ = gnorm(sky)
    kept = list(by_star(tmp_path / "d", sky))
    low = np.percentile(np.delete(values, [Trap.NO_GAIA, Trap.NO_SPECTRUM], axis=0), 1.0, axis=0)
    assert (values[kept] > low).all()


def test_2mass_tables_are_preferred_to_allstar(
    files: SurveyFiles, sky: Sky, folder: Path, tmp_path: Path
) -> None:
    names = ["source_id", "j_m", "j_msigcom", "h_m", "h_msigcom", "ks_m", "ks_msigcom"]
    table = sky.source.select(names)
    shifted = pc.add(table["j_m"], pa.scalar(0.5, pa.float32()))
    table = table.set_column(1, "j_m", shifted)
    table = table.take(pa.array(np.argsort(sky["source_id"])))
    pq.write_table(table, tmp_path / "tmass.parquet")
    dataset_from_surveys(replace(files, tmass=(tmp_path / "tmass.parquet",)), tmp_path / "d", WIDE)
    stars = by_star(tmp_path / "d", sky)
    for star in [star for star in stars if star > 30][:20]:
        jh = sky["j_mag"][star] - sky["h_mag"][star] + 0.5
        assert stars[star]["jh"] == pytest.approx(jh, abs=1e-5, nan_ok=True)


def test_a_parallax_of_an_assumed_zero_point_is_no_label(
    files: SurveyFiles, sky: Sky, dust: dust_map.DustMap, tmp_path: Path
) -> None:
    """Nor is what a dust map has at its distance."""
    (known,) = files.gaia_source
    source = pq.read_table(known)
    place = source.column_names.index("nu_eff_used_in_astrometry")
    nu_eff = source.column(place).to_numpy().copy()
    without = np.arange(len(nu_eff)) % 2 == 0
    nu_eff[without] = np.nan
    pq.write_table(
        source.set_column(place, source.field(place), pa.array(nu_eff)), tmp_path / "gaia.parquet"
    )
    changed = replace(files, gaia_source=(tmp_path / "gaia.parquet",))
    dataset_from_surveys(changed, tmp_path / "d", WIDE, dust_map=dust)
    assumed = set(source["source_id"].to_numpy()[without].tolist())
    labels = ("parallax_zpc", "e_parallax", "g_fakemag", "e_g_fakemag", "logebv", "e_logebv")
    found = rows(tmp_path / "d").to_pylist()
    for row in found:
        if row["source_id"] in assumed:
            assert all(np.isnan(row[name]) for name in labels)
            assert np.isfinite(row["bprp"])
    kept = [row for row in found if row["source_id"] not in assumed]
    assert np.isfinite([row["parallax_zpc"] for row in kept]).mean() > 0.5
    assert 0 < len(kept) < len(found)


# --- failures, cuts and labels ------------------------------------------------------------------


def test_a_failure_leaves_nothing(lb24_files: LB24Files, tmp_path: Path) -> None:
    broken = tmp_path / "in" / "testing_set.h5"
    broken.parent.mkdir()
    broken.write_bytes(lb24_files.testing.read_bytes()[:-3000])
    with pytest.raises(InputError, match="cannot be read as HDF5"):
        dataset_from_lb24(replace(lb24_files, testing=broken), tmp_path / "out" / "d")
    assert not list((tmp_path / "out").iterdir())


def test_files_that_do_not_belong_together_are_refused(
    lb24_files: LB24Files, sky: Sky, tmp_path: Path
) -> None:
    table = sky.distmass | {"APOGEE_ID": np.array([b"2M" + b"0" * 16] * len(sky.rows))}
    write_fits(tmp_path / "other.fits", table)
    other = replace(lb24_files, distmass=tmp_path / "other.fits")
    with pytest.raises(JobError, match=r"no star is left(.|\n)*belong together"):
        dataset_from_lb24(other, tmp_path / "d")
    assert not (tmp_path / "d").exists()


def test_a_dataset_is_not_overwritten(lb24: Report, folder: Path, lb24_files: LB24Files) -> None:
    with pytest.raises(JobError, match="the folder exists already"):
        dataset_from_lb24(lb24_files, folder / "lb24")


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("agee=1:2", r"no such cut(.|\n)*required, mass, age"),
        ("age", "no such cut"),
        ("age=12", r"a cut cannot be read(.|\n)*age=LOW:HIGH"),
        ("age=a:b", "a cut cannot be read"),
        ("bad_aspcap=x", r"numbers with commas"),
        ("both_bands=1", r"yes or no"),
    ],
)
def test_unknown_and_invalid_cuts_are_refused(option: str, message: str) -> None:
    with pytest.raises(JobError, match=message):
        Cuts().with_options([option])


def test_cuts_are_read_from_options() -> None:
    options = ["age=0:12", "box=none", "bad_star=none", "ruwe=1.2", "both_bands=no", "g=:17"]
    cuts = Cuts().with_options(options)
    assert cuts.age == (0.0, 12.0)
    assert cuts.box is None
    assert cuts.bad_star == ()
    assert cuts.ruwe == 1.2
    assert not cuts.both_bands
    assert cuts.g == (-np.inf, 17.0)
    assert Cuts().with_options(["bad_aspcap=16, 23"]).bad_aspcap == (16, 23)


def test_masses_are_matched_by_the_available_names(distmass: Path, sky: Sky) -> None:
    masses = Masses.read(distmass)
    names = pa.array(["nobody", None, sky.apogee_id[100]])
    teff = np.full(3, np.nan)
    assert masses.find(teff, apogee_id=names).tolist() == [-1, -1, 100]
    stars = pa.array(sky["source_id"][:3])
    assert masses.find(teff, source_id=stars).tolist() == [-1, -1, -1]  # DistMass has none
    with_ids = replace(masses, source_id=pa.array(sky["source_id"][sky.rows]))
    assert with_ids.find(teff, apogee_id=names, source_id=stars).tolist() == [0, 1, 100]


def test_a_benchmark_is_the_test_part_and_baselines_use_the_training_part(
    folder: Path, lb24: Report
) -> None:
    test_stars = benchmark(folder / "lb24", Simulated(1, 1), VOCABULARY)
    training = training_stars(folder / "lb24", Simulated(1, 1), VOCABULARY)
    assert test_stars.real
    assert (len(test_stars), len(training)) == (lb24.stars["test"], lb24.stars["train"])
    assert not set(test_stars.ids) & set(training.ids)
    labels = VOCABULARY.columns(VOCABULARY.named("label"))
    _, test = load_dataset(folder / "lb24", VOCABULARY)
    assert np.isnan(test_stars.values[:, labels]).all()
    np.testing.assert_array_equal(test_stars.truth[:, labels], test.values[:, labels])
    np.testing.assert_array_equal(test_stars.errors[:, 0], test.errors[:, 0])
    assert set(test_stars.extra) == {*EXTRA, OUTSIDE}
    # As many as in the report of the dataset, except for repeats.
    part = dataset_columns(folder / "lb24", "test", ("m_h", "distmass_bitmask"), repeats=True)
    outside = (part["m_h"] < -0.5) | (part["distmass_bitmask"] & 2 > 0)
    assert outside.sum() == lb24.outside > 0
    assert 0 < test_stars.extra[OUTSIDE].sum() <= lb24.outside
    near = test_stars.extra["parallax_over_error"] > 5
    # Distance and pseudo-luminosity are from the same parallax.
    fakemag = test_stars.truth[near, VOCABULARY.column("g_fakemag")].astype(float)
    distance = 10 ** (0.2 * test_stars.extra["phot_g_mean_mag"][near].astype(float)) / fakemag
    known = np.isfinite(distance)
    assert known.sum() > 5
    np.testing.assert_allclose(test_stars.extra["dist"][near][known], distance[known], rtol=1e-4)


@pytest.mark.slow
def test_every_experiment_runs_on_a_dataset(folder: Path, lb24: Report) -> None:
    """Few real stars with repeats and no true distance; XGBoost uses the training part."""
    from catalogproc.paper import registry, results_page

    bundle = load_bundle("tiny")
    stars = benchmark(folder / "lb24", Simulated(1, 1), bundle.vocabulary)
    scale = registry.Scale(Trees(TreeSettings(trees=5, threads=1)), 10_000, 200)
    context = registry.make_context(bundle, stars, folder / "lb24", scale)
    results = registry.run_experiments(registry.EXPERIMENTS, context)
    assert all(result.outcome is not None for result in results)
    paths = results_page.write_experiments(results, context, folder / "evaluation")
    assert sum(path.suffix == ".png" for path in paths) == 16
    assert "stars of lb24, test part; real stars" in paths[-1].read_text()
