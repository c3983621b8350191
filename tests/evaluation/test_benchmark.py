"""Evaluation of a model: scores, tables, CSV, figures, and the commands."""

from __future__ import annotations

import csv
import io
import struct
import subprocess
import sys
from dataclasses import astuple, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from support.bundles import tiny_bundle

from catalogproc.datasets.benchmark_stars import OUTSIDE, Benchmark
from catalogproc.datasets.test_sets import Simulated, simulated
from catalogproc.evaluation.benchmark import BenchmarkConfig, BenchmarkResult, evaluate_model
from catalogproc.evaluation.literature import PUBLISHED
from catalogproc.evaluation.metrics import INPUT_SETS, Predictions, evaluate_input_sets
from catalogproc.evaluation.panel_scores import (
    GRAVITY,
    KEPLER,
    LIMIT,
    MODEL,
    TREES,
    Panel,
    score_panel,
)
from catalogproc.evaluation.scorecard import FIELDS, csv_text, figure, text, write_scorecard
from catalogproc.evaluation.xgboost_baseline import Trees, TreeSettings
from catalogproc.network.bundle import Bundle
from catalogproc.network.predictor import Predictor
from catalogproc.network.star_tokens import StarTokens
from catalogproc.vocabulary import load_vocabulary

VOCABULARY = load_vocabulary()
SMALL = BenchmarkConfig(
    sets=("b", "f"),
    tree_stars=600,
    trees=Trees(TreeSettings(trees=15, rate=0.3, depth=4, threads=1)),
    limit_stars=12,
    library_stars=3000,
)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return tiny_bundle(tmp_path_factory.mktemp("bundles") / "tiny")


@pytest.fixture(scope="module")
def stars() -> Benchmark:
    torch.set_num_threads(1)
    return simulated(Simulated(300, 41), VOCABULARY)


@pytest.fixture(scope="module")
def progress_calls() -> list[tuple[int, int, str]]:
    return []


@pytest.fixture(scope="module")
def result(
    bundle: Bundle, stars: Benchmark, progress_calls: list[tuple[int, int, str]]
) -> BenchmarkResult:
    return evaluate_model(bundle, stars, SMALL, lambda *x: progress_calls.append(x))


def test_scores_of_the_model_are_those_of_its_predictions(
    result: BenchmarkResult, bundle: Bundle, stars: Benchmark
) -> None:
    scores = evaluate_input_sets(
        Predictor(bundle), stars.inputs, stars.labels, ("teff", "age", "dist"), "bf"
    )
    for panel, rows in scores.items():
        for row in rows:
            line = result.find(panel, MODEL, row.label)
            assert line is not None
            assert astuple(line.score)[1:] == pytest.approx(astuple(row)[1:], rel=1e-4, abs=1e-4)


def test_every_panel_has_its_methods(result: BenchmarkResult) -> None:
    methods = {
        panel: {line.method for line in result.scores if line.panel == panel} for panel in "abfk"
    }
    assert methods == {
        "a": {TREES},
        "b": {MODEL, TREES, LIMIT},
        "f": {MODEL},
        "k": {MODEL, TREES, GRAVITY},
    }
    one, other = (result.find(panel, TREES, "mass") for panel in "ab")
    assert one is not None
    assert other is not None
    assert one.score == other.score
    best = result.find("b", LIMIT, "teff")
    assert best is not None
    assert best.score.stars == SMALL.limit_stars
    # Only 12 stars, but the information limit is far better than random weights.
    model = result.find("b", MODEL, "teff")
    assert model is not None
    assert model.limit_ratio > 2
    assert best.limit_ratio == 1


def test_the_kepler_panel_has_the_giants_held_out(result: BenchmarkResult) -> None:
    from catalogproc.datasets.kepler import parts

    line = result.find(KEPLER, TREES, "mass")
    assert line is not None
    assert line.score.stars == len(parts()[1])
    assert 0.05 < line.score.scatter < 0.08
    gravity = result.find(KEPLER, GRAVITY, "mass")
    assert gravity is not None
    assert gravity.score.scatter > line.score.scatter


def test_limit_ratio_is_on_the_same_stars() -> None:
    """The ratio is computed on the stars that have an information limit."""
    truth = np.full((200, len(VOCABULARY)), np.nan)
    truth[:, VOCABULARY.column("teff")] = 5000.0
    random = np.random.default_rng(1)
    error = random.normal(0, 100, 200)
    error[100:] *= 50
    best = np.full((200, 1), np.nan)
    best[:100, 0] = 5000 + error[:100] / 2
    answers = {
        MODEL: Predictions(("teff",), 5000 + error[:, None]),
        LIMIT: Predictions(("teff",), best),
    }
    model, limit = score_panel(Panel("c", answers, StarTokens.exact(truth)), VOCABULARY)
    assert (model.method, model.score.stars, limit.score.stars) == (MODEL, 200, 100)
    assert model.limit_ratio == pytest.approx(2)
    assert model.score.scatter > 3 * limit.score.scatter


def test_progress_is_monotonic_and_complete(
    result: BenchmarkResult, progress_calls: list[tuple[int, int, str]]
) -> None:
    done = [x for x, _, _ in progress_calls]
    assert done == sorted(done)
    total = {x for _, x, _ in progress_calls}
    assert total == {done[-1]}
    notes = " ".join(note for _, _, note in progress_calls)
    for word in ("library", "b: trees for teff", "b: posteriors", "f: model", "Kepler"):
        assert word in notes


def test_the_csv_has_every_score(result: BenchmarkResult) -> None:
    rows = list(csv.DictReader(io.StringIO(csv_text(result))))
    assert tuple(rows[0]) == FIELDS
    assert len(rows) == len(result.scores)
    teff = next(r for r in rows if (r["panel"], r["method"], r["quantity"]) == ("b", MODEL, "teff"))
    line = result.find("b", MODEL, "teff")
    assert line is not None
    assert float(teff["scatter"]) == pytest.approx(line.score.scatter, rel=1e-5)
    assert (teff["unit"], teff["published_scatter"]) == ("K", "47.17")
    assert teff["published_in"] == "Leung & Bovy 2024"
    trees = next(r for r in rows if (r["panel"], r["quantity"]) == ("a", "teff"))
    assert (trees["method"], trees["published_scatter"], trees["z_std"]) == (TREES, "50.73", "")


def test_the_text_describes_stars_and_methods(result: BenchmarkResult) -> None:
    words = text(result)
    assert words.startswith(f"# random 0 ({result.hash[:8]}) on 300 simulated giants")
    assert "The stars are simulated." in words
    assert INPUT_SETS["b"].name in words
    assert "0.114 (Zhang, Bu et al. 2026)" in words
    assert "published, real stars" in words
    assert "Mass as g R²" in words
    assert "for 12 of the stars" in words
    widths = {len(line) for line in words.splitlines() if line.startswith("| ")}
    assert len(widths) <= 4  # columns of every table are aligned


def test_published_numbers_are_those_of_the_papers() -> None:
    assert PUBLISHED["b", "mass"] == ("Zhang, Bu et al. 2026", 0.114)
    assert PUBLISHED["b", "age"] == ("Zhang, Bu et al. 2026", 1.334)
    assert [PUBLISHED[p, "teff"][1] for p in "abcdef"] == [50.73, 47.17, 63.21, 52.28, 224, 0.9]


@pytest.mark.parametrize(
    ("number", "like", "expected"),
    [(47.17, None, "47.2"), (0.114, None, "0.114"), (-0.4, 140.0, "0"), (-0.6, 140.0, "-1"),
     (12.3, 12.3, "12.3"), (float("nan"), 1.0, ""), (0.0, None, "0.000"), (1234.5, None, "1,234")],
)  # fmt: skip
def test_three_digits(number: float, like: float | None, expected: str) -> None:
    assert figure(number, like) == expected


def test_figures_and_tables_are_written(result: BenchmarkResult, tmp_path: Path) -> None:
    paths = write_scorecard(result, tmp_path / "new")
    assert [path.name for path in paths] == [
        "evaluation.md", "evaluation.csv", "scatter.png", "residuals.png",
    ]  # fmt: skip
    for path in paths[2:]:
        content = path.read_bytes()
        width, height = struct.unpack(">II", content[16:24])
        assert content[:8] == b"\x89PNG\r\n\x1a\n"
        assert min(width, height) > 500
        assert len(content) > 20_000


def test_real_stars_have_no_information_limit(bundle: Bundle, stars: Benchmark) -> None:
    real = Benchmark(
        "mine", True, stars.ids, stars.values, stars.errors, stars.truth, stars.truth_errors,
        VOCABULARY,
    )  # fmt: skip
    result = evaluate_model(bundle, real.rows(slice(50)), SMALL)
    assert not any(line.method == LIMIT for line in result.scores)
    assert "The stars are real." in text(result)
    assert np.isnan([line.limit_ratio for line in result.scores]).all()


def test_stars_trained_on_and_extrapolated_labels_have_their_own_scores(
    bundle: Bundle, stars: Benchmark
) -> None:
    """Labels are wrong outside the DistMass range only: the scores of the samples show it."""
    outside, known = np.arange(300) % 5 == 0, np.arange(300) < 40
    truth = stars.truth.copy()
    truth[outside, VOCABULARY.column("mass")] += 3
    real = replace(
        stars, real=True, truth=truth, extra={**stars.extra, OUTSIDE: outside.astype(float)}
    )
    seen = replace(bundle, calibration=replace(bundle.calibration, trained_on=stars.ids[known]))
    result = evaluate_model(seen, real, SMALL, training=stars)
    assert result.sample_sizes == {
        "all": 300, "neither": int((~known & ~outside).sum()), "trained on": 40,
        "labels extrapolated": 60,
    }  # fmt: skip
    found = {name: result.find("b", MODEL, "mass", name) for name in result.sample_sizes}
    assert {name: line.score.stars for name, line in found.items()} == result.sample_sizes
    bias = {name: line.score.bias for name, line in found.items()}
    assert bias["labels extrapolated"] == pytest.approx(bias["neither"] - 3, abs=0.3)
    lines = text(result).splitlines()
    assert "- trained on: stars of the model's training set, 40" in lines
    [head] = [x for x in lines if x.startswith("| quantity") and "extrapolated" in x][:1]
    assert [word.strip() for word in head.split("|")[3:-1]] == list(result.sample_sizes)
    mass = next(x for x in lines[lines.index(head) :] if x.startswith("| mass"))
    assert mass.count("(60)") == 1
    assert csv_text(result).count(",labels extrapolated,") > 3


def test_simulated_stars_are_not_divided_into_samples(result: BenchmarkResult) -> None:
    assert not result.sample_sizes
    assert "trained on" not in text(result)


def test_quick_is_a_smaller_evaluation() -> None:
    full, quick = BenchmarkConfig.preset(False), BenchmarkConfig.preset(True)
    assert full.sets == ("b", "c", "d", "e", "f")
    assert full.trees.settings.trees == 2000
    assert set(quick.sets) < set(full.sets)
    assert quick.trees.settings.trees < full.trees.settings.trees
    assert quick.library_stars < full.library_stars


def catalogproc(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "catalogproc", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def test_infer_and_evaluate_commands(bundle: Bundle, tmp_path: Path) -> None:
    table, out = tmp_path / "in.csv", tmp_path / "out.csv"
    table.write_text("id,teff,logg\n1,4800,2.5\n2,,3.1\n")
    done = catalogproc(
        *("infer", "--input", str(table), "--labels", "mass,age", "--output", str(out)),
        *("--model", str(bundle.path)),
    )
    assert done.returncode == 0, done.stderr
    assert "2 rows written" in done.stdout
    assert out.read_text().startswith(
        "id,teff,logg,mass,e_mass,age,e_age,age_16,age_84\n1,4800,2.5,"
    )
    done = catalogproc(
        *("evaluate", "--data", str(tmp_path), "--output", str(tmp_path / "e")),
        *("--model", str(bundle.path), "--quick"),
    )
    assert done.returncode == 2
    assert "no xp_continuous*" in done.stderr
    assert not (tmp_path / "e").exists()
