"""Model cards describe a model and its evaluation on simulated and real stars."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from support.paths import EXAMPLES

from catalogproc.datasets.test_sets import Simulated, simulated
from catalogproc.job import TrainingJob
from catalogproc.network.bundle import Bundle, load_bundle
from catalogproc.resources import shipped
from catalogproc.training.model_card import draw_curve, write_card

JOB = TrainingJob("a-job", "a-bundle", real={"spectra": 0.1})


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder = tmp_path_factory.mktemp("card") / "copy"
    shutil.copytree(load_bundle("tiny").path, folder)
    for name in ("CARD.md", "scores.json"):
        (folder / name).unlink(missing_ok=True)
    return load_bundle(folder)


def test_a_card_has_all_sections_and_pictures(bundle: Bundle) -> None:
    stars = simulated(Simulated(400, 3), bundle.vocabulary)
    files = sorted(EXAMPLES.glob("*.parquet"))
    scores = write_card(bundle, JOB, stars.table(), "For tests.", files)
    text = (bundle.path / "CARD.md").read_text(encoding="utf-8")
    for part in (
        f"# {bundle.name}", bundle.hash, "For tests.", "on 400 simulated giants",
        "Real red giants, held out by KIC", "Mucciarelli", "comparison.png", "learning_curve.png",
    ):  # fmt: skip
        assert part in text, part
    for picture in ("comparison.png", "learning_curve.png"):
        content = (bundle.path / picture).read_bytes()
        assert content.startswith(b"\x89PNG")
        assert len(content) > 5_000
    teff = next(score for score in scores["b"] if score.label == "teff")
    assert teff.stars == 400
    assert teff.scatter < 150
    # Skill beside scatter, and along the true values.
    table, along = text.split("## Skill along the true values")
    assert table.count("| inputs | scatter | R2 | slope | slope of truth |") == 8  # one a quantity
    spread = next(score.spread for score in scores["b"] if score.label == "teff")
    assert f"### Teff [K]: true values spread by {spread:.3g} K" in table
    assert "3.8 % in mass and 11 % in age" in table
    assert "0.114 Msun and 1.334 Gyr" in table
    for name in ("mass, relative [%]", "age, relative [%]", "age [Gyr]"):
        assert f"### {name}" in table, name
    masses = along.split("### mass [Msun], by true value\n")[1].split("###")[0]
    rows = [line.split(" | ") for line in masses.splitlines() if " to " in line]
    assert len(rows) == 10
    assert sum(int(row[1]) for row in rows) == 400
    # Pulled towards the mean: light stars too heavy, heavy ones too light.
    assert float(rows[0][2]) > 0 > float(rows[-1][2])
    # The network in words, no Python dictionary.
    network = next(line for line in text.splitlines() if line.startswith("| network |"))
    assert "Transformer on" in network
    assert "{" not in network


def test_a_card_has_no_section_on_real_stars_without_them(bundle: Bundle) -> None:
    stars = simulated(Simulated(100, 4), bundle.vocabulary)
    write_card(bundle, TrainingJob("a-job", "a-bundle"), stars.table())
    text = (bundle.path / "CARD.md").read_text(encoding="utf-8")
    assert "Kepler" not in text.split("## Evaluation on")[1]
    assert "comparison.png" not in text


def test_a_card_of_real_stars_is_of_giants(bundle: Bundle) -> None:
    """By the labels: log g < 3.5 and Teff < 5800 K."""
    table = simulated(Simulated(100, 4), bundle.vocabulary).table()
    teff, logg = (bundle.vocabulary.column(name) for name in ("teff", "logg"))
    table.values[:, teff], table.values[:, logg] = 4800.0, 2.5
    table.values[:20, teff], table.values[20:50, logg] = 6100.0, 4.4
    training = {**bundle.training, "dataset_sha256": "0"}
    real = replace(bundle, training=training)
    scores = write_card(real, TrainingJob("a-job", "a-bundle"), table)
    assert scores["b"][0].stars == 50
    text = (bundle.path / "CARD.md").read_text(encoding="utf-8")
    assert "on 50 real giants not used in training" in text


def test_a_learning_curve_without_validation_is_drawn(tmp_path: Path) -> None:
    source = tmp_path / "curve.csv"
    source.write_text("step,loss,validation_loss\n1,2.0,\n2,1.0,\n")
    draw_curve(source, tmp_path / "curve.png")
    assert (tmp_path / "curve.png").stat().st_size > 5_000


def test_every_shipped_model_has_a_card_with_its_hash() -> None:
    for folder in shipped("model").iterdir():
        if folder.is_dir():
            text = (folder / "CARD.md").read_text(encoding="utf-8")
            assert load_bundle(folder).hash in text, folder.name
