"""A model judged: the numbers, the table, the CSV, the pictures, the verbs."""

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

from catalogproc.datasets.test_sets import OUTSIDE, Benchmark, simulated
from catalogproc.evaluation.benchmark import (
    BEST,
    GRAVITY,
    KEPLER,
    MODEL,
    TREES,
    Effort,
    Judgement,
    Panel,
    _lines,
    judge,
)
from catalogproc.evaluation.literature import PUBLISHED
from catalogproc.evaluation.metrics import INPUT_SETS, Answers, evaluate
from catalogproc.evaluation.scorecard import FIELDS, csv_text, figure, text, write_scorecard
from catalogproc.evaluation.xgboost_baseline import TreeSettings
from catalogproc.network.bundle import Bundle
from catalogproc.network.predictor import Predictor
from catalogproc.vocabulary import load_vocabulary

VOCABULARY = load_vocabulary()
LITTLE = Effort(
    sets=("b", "f"),
    tree_stars=600,
    trees=TreeSettings(trees=15, rate=0.3, depth=4, threads=1),
    best_stars=12,
    library=3000,
)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return tiny_bundle(tmp_path_factory.mktemp("bundles") / "tiny")


@pytest.fixture(scope="module")
def stars() -> Benchmark:
    torch.set_num_threads(1)
    return simulated(300, 41, VOCABULARY)


@pytest.fixture(scope="module")
def told() -> list[tuple[int, int, str]]:
    return []


@pytest.fixture(scope="module")
def judged(bundle: Bundle, stars: Benchmark, told: list[tuple[int, int, str]]) -> Judgement:
    return judge(bundle, stars, LITTLE, lambda *x: told.append(x))


def test_the_models_lines_are_its_scores(
    judged: Judgement, bundle: Bundle, stars: Benchmark
) -> None:
    scores = evaluate(Predictor(bundle), stars.values, stars.truth, ("teff", "age", "dist"), "bf")
    for panel, rows in scores.items():
        for row in rows:
            line = judged.find(panel, MODEL, row.label)
            assert line is not None
            assert astuple(line.score)[1:] == pytest.approx(astuple(row)[1:], rel=1e-4, abs=1e-4)


def test_every_panel_has_its_methods(judged: Judgement) -> None:
    methods = {
        panel: {line.method for line in judged.lines if line.panel == panel} for panel in "abfk"
    }
    assert methods == {
        "a": {TREES},
        "b": {MODEL, TREES, BEST},
        "f": {MODEL},
        "k": {MODEL, TREES, GRAVITY},
    }
    one, other = (judged.find(panel, TREES, "mass") for panel in "ab")
    assert one is not None
    assert other is not None
    assert one.score == other.score
    best = judged.find("b", BEST, "teff")
    assert best is not None
    assert best.score.stars == LITTLE.best_stars
    # A dozen stars, but the best possible is far better than random weights.
    model = judged.find("b", MODEL, "teff")
    assert model is not None
    assert model.of_best > 2
    assert best.of_best == 1


def test_the_kepler_giants_are_those_held_out(judged: Judgement) -> None:
    from catalogproc.datasets.kepler import parts

    line = judged.find(KEPLER, TREES, "mass")
    assert line is not None
    assert line.score.stars == len(parts()[1])
    assert 0.05 < line.score.scatter < 0.08
    gravity = judged.find(KEPLER, GRAVITY, "mass")
    assert gravity is not None
    assert gravity.score.scatter > line.score.scatter


def test_scatters_are_compared_on_the_same_stars() -> None:
    """The best possible answer is known of some stars only: others must not count."""
    truth = np.full((200, len(VOCABULARY)), np.nan)
    truth[:, VOCABULARY.column("teff")] = 5000.0
    random = np.random.default_rng(1)
    error = random.normal(0, 100, 200)
    error[100:] *= 50
    best = np.full((200, 1), np.nan)
    best[:100, 0] = 5000 + error[:100] / 2
    answers = {MODEL: Answers(("teff",), 5000 + error[:, None]), BEST: Answers(("teff",), best)}
    model, limit = _lines(Panel("c", answers, truth), VOCABULARY)
    assert (model.method, model.score.stars, limit.score.stars) == (MODEL, 200, 100)
    assert model.of_best == pytest.approx(2)
    assert model.score.scatter > 3 * limit.score.scatter


def test_progress_runs_from_start_to_end(
    judged: Judgement, told: list[tuple[int, int, str]]
) -> None:
    done = [x for x, _, _ in told]
    assert done == sorted(done)
    total = {x for _, x, _ in told}
    assert total == {done[-1]}
    notes = " ".join(note for _, _, note in told)
    for word in ("library", "b: trees for teff", "b: posteriors", "f: the model", "Kepler"):
        assert word in notes


def test_the_csv_holds_every_line(judged: Judgement) -> None:
    rows = list(csv.DictReader(io.StringIO(csv_text(judged))))
    assert tuple(rows[0]) == FIELDS
    assert len(rows) == len(judged.lines)
    teff = next(r for r in rows if (r["panel"], r["method"], r["quantity"]) == ("b", MODEL, "teff"))
    line = judged.find("b", MODEL, "teff")
    assert line is not None
    assert float(teff["scatter"]) == pytest.approx(line.score.scatter, rel=1e-5)
    assert (teff["unit"], teff["published_scatter"]) == ("K", "47.17")
    assert teff["published_in"] == "Leung & Bovy 2024"
    trees = next(r for r in rows if (r["panel"], r["quantity"]) == ("a", "teff"))
    assert (trees["method"], trees["published_scatter"], trees["z_std"]) == (TREES, "50.73", "")


def test_the_text_says_what_it_is(judged: Judgement) -> None:
    words = text(judged)
    assert words.startswith(f"# random 0 ({judged.hash[:8]}) on 300 simulated giants")
    assert "The stars are simulated." in words
    assert INPUT_SETS["b"].name in words
    assert "0.114 (Zhang, Bu et al. 2026)" in words
    assert "published, real stars" in words
    assert "Mass as g R²" in words
    assert "of 12 of the stars" in words
    widths = {len(line) for line in words.splitlines() if line.startswith("| ")}
    assert len(widths) <= 4  # every table is straight


def test_published_numbers_are_those_of_the_papers() -> None:
    assert PUBLISHED["b", "mass"] == ("Zhang, Bu et al. 2026", 0.114)
    assert PUBLISHED["b", "age"] == ("Zhang, Bu et al. 2026", 1.334)
    assert [PUBLISHED[p, "teff"][1] for p in "abcdef"] == [50.73, 47.17, 63.21, 52.28, 224, 0.9]


@pytest.mark.parametrize(
    ("number", "like", "words"),
    [(47.17, None, "47.2"), (0.114, None, "0.114"), (-0.4, 140.0, "0"), (-0.6, 140.0, "-1"),
     (12.3, 12.3, "12.3"), (float("nan"), 1.0, ""), (0.0, None, "0.000"), (1234.5, None, "1,234")],
)  # fmt: skip
def test_three_digits(number: float, like: float | None, words: str) -> None:
    assert figure(number, like) == words


def test_pictures_and_tables_are_written(judged: Judgement, tmp_path: Path) -> None:
    paths = write_scorecard(judged, tmp_path / "new")
    assert [path.name for path in paths] == [
        "evaluation.md", "evaluation.csv", "scatter.png", "residuals.png",
    ]  # fmt: skip
    for path in paths[2:]:
        content = path.read_bytes()
        width, height = struct.unpack(">II", content[16:24])
        assert content[:8] == b"\x89PNG\r\n\x1a\n"
        assert min(width, height) > 500
        assert len(content) > 20_000


def test_real_stars_have_no_best_possible_answer(bundle: Bundle, stars: Benchmark) -> None:
    real = Benchmark(
        "mine", True, stars.ids, stars.values, stars.errors, stars.truth, stars.truth_errors,
        VOCABULARY,
    )  # fmt: skip
    judged = judge(bundle, real.rows(slice(50)), LITTLE)
    assert not any(line.method == BEST for line in judged.lines)
    assert "The stars are real." in text(judged)
    assert np.isnan([line.of_best for line in judged.lines]).all()


def test_stars_trained_on_and_extrapolated_labels_are_counted_apart(
    bundle: Bundle, stars: Benchmark
) -> None:
    """Wrong labels far from DistMass's stars, right ones elsewhere: each sample shows its own."""
    outside, known = np.arange(300) % 5 == 0, np.arange(300) < 40
    truth = stars.truth.copy()
    truth[outside, VOCABULARY.column("mass")] += 3
    real = replace(
        stars, real=True, truth=truth, beside={**stars.beside, OUTSIDE: outside.astype(float)}
    )
    seen = replace(bundle, reliability=replace(bundle.reliability, trained_on=stars.ids[known]))
    judged = judge(seen, real, LITTLE, training=stars)
    assert judged.apart == {
        "all": 300, "neither": int((~known & ~outside).sum()), "trained on": 40,
        "labels extrapolated": 60,
    }  # fmt: skip
    found = {name: judged.find("b", MODEL, "mass", name) for name in judged.apart}
    assert {name: line.score.stars for name, line in found.items()} == judged.apart
    bias = {name: line.score.bias for name, line in found.items()}
    assert bias["labels extrapolated"] == pytest.approx(bias["neither"] - 3, abs=0.3)
    lines = text(judged).splitlines()
    assert "- trained on: stars that the model was trained on, 40" in lines
    [head] = [x for x in lines if x.startswith("| quantity") and "extrapolated" in x][:1]
    assert [word.strip() for word in head.split("|")[3:-1]] == list(judged.apart)
    mass = next(x for x in lines[lines.index(head) :] if x.startswith("| mass"))
    assert mass.count("(60)") == 1
    assert csv_text(judged).count(",labels extrapolated,") > 3


def test_no_star_is_apart_where_none_is_real(judged: Judgement) -> None:
    assert not judged.apart
    assert "trained on" not in text(judged)


def test_quick_is_less_of_the_same() -> None:
    full, quick = Effort.of(False), Effort.of(True)
    assert full.sets == ("b", "c", "d", "e", "f")
    assert full.trees.trees == 2000
    assert set(quick.sets) < set(full.sets)
    assert quick.trees.trees < full.trees.trees
    assert quick.library < full.library


def catalogproc(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "catalogproc", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def test_the_verbs(bundle: Bundle, tmp_path: Path) -> None:
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
        *("--bundle", str(bundle.path), "--quick"),
    )
    assert done.returncode == 2
    assert "no xp_continuous*" in done.stderr
    assert not (tmp_path / "e").exists()
