"""Evaluation on a dataset's test part, on a small one and a network of random weights."""

from __future__ import annotations

import csv
import io
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from support.bundles import tiny_bundle
from support.real_dataset import write_real_dataset
from typer.testing import CliRunner

from catalogproc.cli.main import app
from catalogproc.datasets.benchmark_stars import GIANT
from catalogproc.datasets.dataset import TEST, TRAIN, dataset_columns, dataset_facts
from catalogproc.datasets.dataset_parts import dataset_part, giants, marks_giants
from catalogproc.datasets.teacher import Measured, fit_teacher
from catalogproc.datasets.test_sets import Simulated, benchmark, training_stars
from catalogproc.evaluation.dataset_catalog import Question, dataset_catalog
from catalogproc.evaluation.metrics import select_inputs
from catalogproc.evaluation.panel_scores import MODEL, TREES
from catalogproc.evaluation.real_giants import evaluate_giants
from catalogproc.evaluation.real_giants_criteria import criteria
from catalogproc.evaluation.real_giants_page import csv_text, page, write_real_giants
from catalogproc.evaluation.real_giants_result import WITH_PARALLAX, RealGiants
from catalogproc.evaluation.seismic_scores import TEACHER_METHOD
from catalogproc.evaluation.xgboost_baseline import TreeData, Trees, TreeSettings, fit_baseline
from catalogproc.flags import load_flags
from catalogproc.network.bundle import Bundle
from catalogproc.network.predictor import Predictor
from catalogproc.vocabulary import load_vocabulary

VOCABULARY = load_vocabulary(basis="canonical")
FEW = TreeSettings(trees=20, rate=0.3, depth=4, threads=1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_real_dataset(tmp_path_factory.mktemp("real") / "stars")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    torch.set_num_threads(1)
    return tiny_bundle(tmp_path_factory.mktemp("bundles") / "tiny", VOCABULARY)


@pytest.fixture(scope="module")
def trees(tmp_path_factory: pytest.TempPathFactory) -> Trees:
    return Trees(FEW, tmp_path_factory.mktemp("trees"))


@pytest.fixture(scope="module")
def steps() -> list[tuple[int, int, str]]:
    return []


@pytest.fixture(scope="module")
def found(
    bundle: Bundle, folder: Path, trees: Trees, steps: list[tuple[int, int, str]]
) -> RealGiants:
    return evaluate_giants(bundle, folder, trees, "cpu", lambda *x: steps.append(x))


def test_giants_are_evaluated_and_trees_are_fitted_to_giants(folder: Path) -> None:
    assert marks_giants(folder)
    assert not marks_giants(folder.parent)
    test, training = (
        benchmark(folder, Simulated(1, 1), VOCABULARY),
        training_stars(folder, Simulated(1, 1), VOCABULARY),
    )
    assert (len(test), len(training)) == (160, 240)
    assert (test.extra[GIANT] == 1).all()
    assert test.name == "160 giants among the 200 stars of stars, test part"
    everyone = dataset_part(folder, TEST, VOCABULARY)
    assert len(everyone) == 200
    np.testing.assert_array_equal(test.ids, everyone.ids[everyone.extra[GIANT] > 0])
    # Trees read coefficients past the relevant ones too.
    known = np.isfinite(everyone.values)
    np.testing.assert_array_equal(everyone.tree_inputs.values[known], everyone.values[known])
    assert np.isfinite(everyone.tree_inputs.values).sum() > known.sum()


def test_the_catalog_of_a_dataset_is_what_the_network_says_of_its_tokens(
    folder: Path, bundle: Bundle
) -> None:
    stars = dataset_part(folder, TEST, VOCABULARY)
    path = folder / "test.parquet"
    made = dataset_catalog(bundle, path, Question(), "cpu")
    inputs = select_inputs("b", stars.inputs, stars.labels, VOCABULARY)
    predicted = Predictor(bundle).predict(inputs, ("teff", "logg"))
    for k, name in enumerate(predicted.labels):
        residual = made[name].to_numpy() - predicted.mean[:, k]
        assert np.abs(residual / predicted.sigma[:, k]).max() < 1e-3
    np.testing.assert_array_equal(made["source_id"].to_numpy(), stars.ids)
    assert np.isnan(made["parallax_zpc"].to_numpy()).all()
    near = dataset_catalog(bundle, path, Question(parallax=True), "cpu")
    table = pq.read_table(path)
    np.testing.assert_array_equal(near["parallax_zpc"].to_numpy(), table["parallax_zpc"].to_numpy())
    known = np.isfinite(near["parallax_zpc"].to_numpy())
    change = np.abs(near["logg"].to_numpy() - made["logg"].to_numpy())
    changed = change > 1e-3 * made["e_logg"].to_numpy()
    assert not changed[~known].any()
    assert changed[known].mean() > 0.9


def test_of_one_band_nothing_of_the_other_is_read(
    folder: Path, bundle: Bundle, tmp_path: Path
) -> None:
    """Stars whose other band is changed have the same catalog, bit for bit."""
    table = pq.read_table(folder / "test.parquet")
    place = table.column_names.index("rp_coefficients")
    other = pa.array([row[::-1] if row else row for row in table["rp_coefficients"].to_pylist()])
    changed = table.set_column(place, "rp_coefficients", other.cast(table.schema.field(place).type))
    pq.write_table(changed, tmp_path / "test.parquet")
    paths = folder / "test.parquet", tmp_path / "test.parquet"
    made = [dataset_catalog(bundle, path, Question(only="bp"), "cpu") for path in paths]
    pd.testing.assert_frame_equal(*(table.to_pandas() for table in made), check_exact=True)
    flagged = made[0]["quality_flags"].to_numpy() & load_flags().mask("XP_ONE_BAND")
    assert (flagged[made[0]["n_tokens"].to_numpy() > 5] != 0).all()
    both = [dataset_catalog(bundle, path, Question(), "cpu") for path in paths]
    assert not both[0]["teff"].equals(both[1]["teff"])


def test_fainter_stars_have_noise_of_their_magnitude(folder: Path, bundle: Bundle) -> None:
    path = folder / "test.parquet"
    near, far = (
        dataset_catalog(bundle, path, Question(faint=faint), "cpu")
        for faint in (None, (19.0, 19.5))
    )
    g_mag = far["phot_g_mean_mag"].to_numpy()
    assert (g_mag > 18.9).all()
    assert (g_mag < 19.6).all()
    change = [far[name].to_numpy() - near[name].to_numpy() for name in ("bp_rp", "teff")]
    assert 0.01 < np.nanstd(change[0]) < 0.3
    assert np.abs(change[1]).min() > 0
    # Noise hides most coefficients.
    numbers = [x["n_tokens"].to_numpy().mean() for x in (near, far)]
    assert numbers[1] < 0.7 * numbers[0]
    again = dataset_catalog(bundle, path, Question(faint=(19.0, 19.5)), "cpu")
    assert again["teff"].equals(far["teff"])


def test_scores_are_those_of_the_giants(
    found: RealGiants, folder: Path, bundle: Bundle, trees: Trees
) -> None:
    assert (found.stars, found.giants, found.seen, found.tree_stars) == (200, 160, 0, 240)
    test, training = (
        benchmark(folder, Simulated(1, 1), VOCABULARY),
        training_stars(folder, Simulated(1, 1), VOCABULARY),
    )
    [teff] = [row for row in found.scores if row.quantity == "teff"]
    inputs = select_inputs("b", test.inputs, test.labels, VOCABULARY)
    mean = Predictor(bundle).predict(inputs, ("teff",)).mean[:, 0]
    column = VOCABULARY.column("teff")
    residual = mean - test.truth[:, column]
    assert teff.by_method[MODEL].stars == 160
    assert teff.by_method[MODEL].bias == pytest.approx(np.median(residual), rel=1e-4)
    # XGBoost on all of the 63 quantities, fitted to the giants of the training part.
    read = [
        select_inputs("b", some.tree_inputs, some.labels, VOCABULARY).values
        for some in (training, test)
    ]
    columns = np.flatnonzero(np.isfinite(read[1]).any(axis=0))
    assert len(columns) == 63
    data = TreeData(read[0], training.truth[:, [column]], ("teff",), columns)
    grown = fit_baseline(data, FEW).predict(read[1])[:, 0]
    wanted = np.sqrt(np.mean((grown - test.truth[:, column]) ** 2))
    assert teff.by_method[TREES].rms == pytest.approx(wanted, rel=1e-5)
    assert sum(one.stars for one in teff.deciles[TREES]) == 160


def test_trees_are_fitted_once(
    found: RealGiants, bundle: Bundle, folder: Path, trees: Trees, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert trees.cache is not None
    names = sorted(path.name.split("-")[0] for path in trees.cache.iterdir())
    assert names == ["alpha_m", "log_age", "logebv", "logg", "m_h", "mass", "teff"]

    def refuse(*_: object) -> None:
        raise AssertionError

    monkeypatch.setattr("catalogproc.evaluation.xgboost_baseline.fit_baseline", refuse)
    again = evaluate_giants(bundle, folder, trees, "cpu")
    assert csv_text(again) == csv_text(found)
    with pytest.raises(AssertionError):  # other settings are other trees
        evaluate_giants(bundle, folder, replace(trees, settings=replace(FEW, depth=3)), "cpu")


def test_stars_that_the_model_was_trained_on_are_left_out(
    bundle: Bundle, folder: Path, found: RealGiants
) -> None:
    stars = dataset_part(folder, TEST, VOCABULARY)
    seen = np.sort(stars.ids[:50])
    knowing = replace(bundle, calibration=replace(bundle.calibration, trained_on=seen))
    rest = evaluate_giants(knowing, folder, Trees(FEW), "cpu")
    assert (rest.seen, rest.giants) == (50, 120)
    assert rest.scores[0].by_method[MODEL].stars == 120
    assert rest.good[0].stars == 120
    assert rest.seismic["mass"][0].score.stars < found.seismic["mass"][0].score.stars


def test_stars_of_other_folds_are_for_models_of_that_dataset(
    bundle: Bundle, tmp_path: Path
) -> None:
    """A model of another dataset may have been calibrated with them."""
    folder = write_real_dataset(tmp_path / "held out", 300, fold_of_seismic=2)
    other = evaluate_giants(bundle, folder, Trees(FEW), "cpu")
    assert (other.seen, other.giants) == (40, 64)
    assert other.seismic["mass"][0].score.stars == 0
    training = {**bundle.training, "dataset_sha256": dataset_facts(folder)["sha256"]}
    own = evaluate_giants(replace(bundle, training=training), folder, Trees(FEW), "cpu")
    assert (own.seen, own.giants) == (0, 96)
    assert own.seismic["mass"][0].score.stars == 40
    assert "No star of the test part has any" in page(other)


def test_good_params_are_counted_by_kind_and_parallax(
    found: RealGiants, bundle: Bundle, folder: Path
) -> None:
    numbers = {kind.kind: kind.stars for kind in found.good}
    table = {False: (160, 0), True: (40, 0)}
    assert numbers["giants, without parallax"] == table[False][0]
    assert numbers["other stars, without parallax"] == table[True][0]
    assert numbers["other stars, with a parallax, which is read"] == 20
    assert all(0 <= kind.unflagged <= kind.good <= kind.stars for kind in found.good)
    made = dataset_catalog(bundle, folder / "test.parquet", Question(), "cpu")
    giant = dataset_part(folder, TEST, VOCABULARY).extra[GIANT] > 0
    good = made["good_params"].to_numpy()[giant]
    dwarf = (made["quality_flags"].to_numpy()[giant] >> 13) & 1
    [kind] = [one for one in found.good if one.kind == "giants, without parallax"]
    assert (kind.good, kind.unflagged) == (good.sum(), (good & (dwarf == 0)).sum())


def test_seismic_stars_and_the_teacher(found: RealGiants, folder: Path) -> None:
    for label, source in (("mass", "mass_source"), ("log_age", "age_source")):
        by_method = {one.method: one.score for one in found.seismic[label]}
        assert by_method[MODEL].stars == by_method[WITH_PARALLAX].stars == 67
        assert by_method[TEACHER_METHOD].stars <= 67
        columns = {
            part: dataset_columns(
                folder,
                part,
                ["teff", "logg", "m_h", "alpha_m", label, f"e_{label}", source, "fold"],
            )
            for part in (TRAIN, TEST)
        }
        atmosphere = {
            part: np.stack([c[n] for n in ("teff", "logg", "m_h", "alpha_m")], axis=1).astype(float)
            for part, c in columns.items()
        }
        train = columns[TRAIN]
        rows = train[source] != "teacher"
        fit = fit_teacher(
            Measured(
                atmosphere[TRAIN][rows], train["fold"][rows].astype(int),
                train[label][rows].astype(float), train[f"e_{label}"][rows].astype(float),
            )
        )  # fmt: skip
        value, _ = fit.predict(atmosphere[TEST], np.zeros(200))
        true = columns[TEST][label].astype(float)
        if label == "log_age":
            true = np.clip(true, np.log10(0.3e9), np.log10(14e9))
        residual = (value - true)[columns[TEST][source] != "teacher"]
        wanted = np.nanmedian(residual)
        assert by_method[TEACHER_METHOD].bias == pytest.approx(wanted, abs=1e-6)


def test_the_page_states_the_numbers(found: RealGiants, tmp_path: Path) -> None:
    text = page(found)
    assert "160 giants among the 200 stars of the test part of stars" in text
    assert "fitted to the 240 giants of the training part" in text
    assert "| other stars, without parallax" in text
    for heading in ("Uncertainties", "Skill along the true values", "asteroseismology"):
        assert f"## {heading}" in text or f"with {heading}" in text
    rows = list(csv.DictReader(io.StringIO(csv_text(found))))
    [row] = [
        x for x in rows if (x["part"], x["quantity"], x["method"]) == ("giants", "logg", MODEL)
    ]
    [logg] = [one for one in found.scores if one.quantity == "logg"]
    assert float(row["scatter"]) == pytest.approx(logg.by_method[MODEL].scatter, rel=1e-5)
    parts = {"giants", "noise added", "one band", "decile", "parallax", "seismic", "selection",
             "red clump", "good_params"}  # fmt: skip
    assert {x["part"] for x in rows} == parts  # too few stars for bins
    paths = write_real_giants(found, tmp_path)
    assert [path.name for path in paths] == ["real_giants.md", "real_giants.csv", "attenuation.png"]
    assert paths[2].read_bytes()[:4] == b"\x89PNG"


def test_the_red_clump_is_scored_by_the_source_of_the_stage(
    found: RealGiants, folder: Path, bundle: Bundle
) -> None:
    made = dataset_catalog(bundle, folder / "test.parquet", Question(), "cpu")
    stage = dataset_columns(folder, TEST, ["rc_prob", "rc_source"], repeats=False)
    giant = dataset_part(folder, TEST, VOCABULARY).extra[GIANT] > 0
    for words, source in (("asteroseismology", "APO-K2"), ("trees on APOGEE's labels", "teacher")):
        rows = giant & (stage["rc_source"].astype(str) == source)
        one = found.red_clump[words]
        clump, other = (made["rc_prob"].to_numpy()[rows & (stage["rc_prob"] == x)] for x in (1, 0))
        assert one.stars == rows.sum() == len(clump) + len(other)
        larger = (clump[:, None] > other) + 0.5 * (clump[:, None] == other)
        assert one.auc == pytest.approx(larger.mean())
    assert "| asteroseismology " in page(found).split("## The red clump")[1]


def test_criteria_pass_and_fail(found: RealGiants) -> None:
    failed = {one.words: one.passed for one in criteria(found)}
    assert not failed["Teff: R2"]  # the weights are random
    perfect = tuple(
        replace(
            row,
            by_method=row.by_method
            | {
                MODEL: replace(
                    row.by_method[TREES], scatter=0.01, bias=0.0, z_std=1.0, within_1_sigma=0.68
                )
            },
        )
        for row in found.scores
    )
    good = tuple(replace(kind, good=0) for kind in found.good)
    parallax = {
        MODEL: found.parallax[MODEL],
        WITH_PARALLAX: replace(found.parallax[MODEL], scatter=0.0),
    }
    best = replace(
        found, scores=perfect, bins=(), faint=(), good=good, parallax=parallax, seismic={}
    )
    assert "seismic mass, 67 stars: r" in failed
    assert all(one.passed for one in criteria(best))


def test_progress_rises_to_the_end(found: RealGiants, steps: list[tuple[int, int, str]]) -> None:
    done = [step for step, _, _ in steps]
    assert done == sorted(done)
    assert steps[-1][:2] == (1000, 1000)
    assert {total for _, total, _ in steps} == {1000}


def test_a_dataset_without_marks_has_all_stars(folder: Path) -> None:
    stars = dataset_part(folder, TEST, VOCABULARY)
    unmarked = replace(stars, extra={k: v for k, v in stars.extra.items() if k != GIANT})
    assert giants(unmarked) is unmarked


@pytest.mark.slow
def test_evaluate_command_on_a_dataset(folder: Path, bundle: Bundle, tmp_path: Path) -> None:
    """One command: the tables, every figure, and the predictions of the trees."""
    done = subprocess.run(
        [sys.executable, "-m", "catalogproc", "evaluate", "--model", str(bundle.path), "--data",
         str(folder), "--figures", "all", "--quick", "--output", str(tmp_path)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "# random 0" in done.stdout
    names = {path.name for path in tmp_path.iterdir()}
    assert {"real_giants.md", "real_giants.csv", "attenuation.png", "experiments.md"} < names
    assert len([name for name in names if name.startswith("figure_") and "png" in name]) == 16
    text = (tmp_path / "experiments.md").read_text()
    assert "160 giants among the 200 stars of stars, test part; real stars" in text
    assert "Masses are known of 160 of these stars, most of them the teacher's" in text
    assert "XGBoost is fitted to 240 others" in text
    fits = sorted(path.name.split("-")[0] for path in (tmp_path / "trees").iterdir())
    # Figures 4 and 5 read those of the tables; figure 19 has three of its own.
    assert fits == [
        "alpha_m",
        "log_age",
        "logebv",
        "logg",
        "m_h",
        "mass",
        "rp0",
        "rp0",
        "rp0",
        "teff",
    ]


def test_the_tables_alone_are_written_without_figures(
    folder: Path, bundle: Bundle, tmp_path: Path
) -> None:
    words = ["evaluate", "--model", str(bundle.path), "--data", str(folder), "--quick"]
    done = CliRunner().invoke(app, [*words, "--figures", "none", "--output", str(tmp_path)])
    assert done.exit_code == 0, done.output
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"real_giants.md", "real_giants.csv", "attenuation.png", "trees"}
