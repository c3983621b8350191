"""The card of a model says what it is, and shows how it does on simulated and real stars."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from support.paths import EXAMPLES

from catalogproc.datasets.test_sets import simulated
from catalogproc.job import TrainingJob
from catalogproc.network.bundle import Bundle, load_bundle
from catalogproc.resources import shipped
from catalogproc.training.model_card import draw_curve, write_card

JOB = TrainingJob("a-job", "a-bundle", real={"spectra": 0.1})


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder = tmp_path_factory.mktemp("card") / "copy"
    shutil.copytree(load_bundle("default").path, folder)
    for name in ("CARD.md", "scores.json"):
        (folder / name).unlink(missing_ok=True)
    return load_bundle(folder)


def test_the_card_has_its_parts_and_pictures(bundle: Bundle) -> None:
    stars = simulated(400, 3, bundle.vocabulary)
    files = sorted(EXAMPLES.glob("*.parquet"))
    scores = write_card(bundle, JOB, stars.table(), "For tests.", files)
    words = (bundle.path / "CARD.md").read_text(encoding="utf-8")
    for part in (
        f"# {bundle.name}", bundle.hash, "For tests.", "on 400 simulated giants",
        "Real red giants, held out by KIC", "Mucciarelli", "comparison.png", "learning_curve.png",
    ):  # fmt: skip
        assert part in words, part
    for picture in ("comparison.png", "learning_curve.png"):
        content = (bundle.path / picture).read_bytes()
        assert content.startswith(b"\x89PNG")
        assert len(content) > 5_000
    teff = next(score for score in scores["b"] if score.label == "teff")
    assert teff.stars == 400
    assert teff.scatter < 150


def test_no_real_stars_are_claimed_where_none_were_asked(bundle: Bundle) -> None:
    stars = simulated(100, 4, bundle.vocabulary)
    write_card(bundle, TrainingJob("a-job", "a-bundle"), stars.table())
    words = (bundle.path / "CARD.md").read_text(encoding="utf-8")
    assert "Kepler" not in words.split("## How it does")[1]
    assert "comparison.png" not in words


def test_a_curve_without_validation_is_drawn_too(tmp_path: Path) -> None:
    source = tmp_path / "curve.csv"
    source.write_text("step,loss,validation_loss\n1,2.0,\n2,1.0,\n")
    draw_curve(source, tmp_path / "curve.png")
    assert (tmp_path / "curve.png").stat().st_size > 5_000


def test_every_shipped_model_has_a_card_of_its_own_hash() -> None:
    for folder in shipped("model").iterdir():
        if folder.is_dir():
            words = (folder / "CARD.md").read_text(encoding="utf-8")
            assert load_bundle(folder).hash in words, folder.name
