"""Each way from files of the surveys' true layouts to a model that a run takes."""

from __future__ import annotations

import re
import shlex
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from support.dust_maps import write_combine19
from support.paths import ROOT
from support.survey_files import Sky, write_fits, write_lb24

from catalogproc.cli import main
from catalogproc.cluster.plan import make_plan
from catalogproc.cluster.spec import RunSpec
from catalogproc.datasets.cuts import Cuts
from catalogproc.datasets.dataset import dataset_facts, load_dataset
from catalogproc.datasets.surveys import SurveyFiles, dataset_from_surveys
from catalogproc.errors import JobError, ResumeError
from catalogproc.features import dust_map
from catalogproc.inference.engine import Engine
from catalogproc.job import TrainingJob, load_training_job
from catalogproc.network.bundle import load_bundle
from catalogproc.network.transformer import Shape
from catalogproc.training.checkpoint import read_curve
from catalogproc.training.train_bundle import Work, settings_for, train_bundle

JOB = """\
kind = "train"
bundle = "real"
description = "seconds, for tests"
[network]
width = 16
encoder = [[4, 32]]
decoder = [[4, 32]]
head = [32]
dropout = 0.0
[data]
validation = 0.2
label_weight = 8.0
[training]
epochs = 24
batch = 64
rate = 1e-2
restart_epochs = 24
checkpoint_epochs = 4
patience_epochs = 16
targets = 8
unlabelled = 0.8
repeat = 0.0
precision = "float32"
"""


def catalogproc(monkeypatch: pytest.MonkeyPatch, *words: str | Path) -> None:
    """The command line, in this process: starting another one costs more than all the rest."""
    monkeypatch.setattr(sys, "argv", ["catalogproc", *map(str, words)])
    with pytest.raises(SystemExit) as ended:
        main.main()
    assert ended.value.code == 0


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("real")
    (folder / "job.toml").write_text(JOB)
    return folder


@pytest.fixture(scope="module")
def sky(folder: Path) -> Sky:
    sky = Sky.make(folder / "simulated")
    write_fits(folder / "distmass.fits", sky.distmass)
    write_fits(folder / "allStar.fits", sky.allstar, wide=True)
    write_lb24(folder, sky)
    source = sky.source.drop_columns(["ebv", "e_ln_ebv"])
    pq.write_table(sky.spectra, folder / "xp.parquet")
    pq.write_table(source, folder / "gaia.parquet")
    write_combine19(folder / "combine19.h5")
    return sky


def answers(bundle_path: Path, sky: Sky, dust: str | None = None) -> pa.Table:
    """What a run writes of the stars: planned as a run is, refusals and all, then computed."""
    bundle, spectra = load_bundle(bundle_path), bundle_path.parents[1] / "xp.parquet"
    plan = make_plan(RunSpec(spectra, bundle_path.parent / "out", (), bundle_path, dust=dust))
    engine = Engine(bundle, plan.job, dust_map=plan.dust_map)
    engine.self_check()
    assert sky.spectra["source_id"].equals(sky.source["source_id"])
    return engine.process(sky.spectra.combine_chunks(), sky.source.combine_chunks())


def test_from_two_downloads_to_answers(
    folder: Path, sky: Sky, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """README's lines, with files of those layouts in place of the downloads."""
    data, output = folder / "lb24", folder / "trained"
    sets = (folder / "training_set.h5", folder / "testing_set.h5")
    catalogproc(
        monkeypatch,
        *("dataset", "lb24", *sets, "--distmass", folder / "distmass.fits", "--output", data),
        *("--cut", "age=0:13.8", "ruwe=1.4"),
    )
    said = capsys.readouterr().out
    assert re.search(r"in all +\d+ +\d+ +319,585", said)
    catalogproc(
        monkeypatch,
        *("train", "--data", data, "--job", folder / "job.toml", "--output", output),
        *("--device", "cpu"),
    )
    said = capsys.readouterr().out
    assert re.search(r"stars, \d+ steps of 64; \S+ s a step here: \d+ s if it goes", said)
    bundle = load_bundle(output / "real")
    facts = bundle.training
    assert facts["dataset_sha256"] == dataset_facts(data)["sha256"]
    training, test = load_dataset(data)
    assert facts["stars"] < len(training.ids)
    assert facts["test_stars"] == len(test.ids)
    assert {"mass", "log_age", "teff", "logebv", "g_fakemag", "bp0"} <= {*bundle.requestable}
    card = (bundle.path / "CARD.md").read_text()
    assert facts["dataset_sha256"] in card
    assert "real stars" in card
    table = answers(bundle.path, sky)
    for name in ("teff", "logg", "m_h", "mass", "age"):
        assert np.isfinite(table[name].to_numpy()).all()
    # Seconds of training make no model, but it learns: half a nat of likelihood a question.
    curve = read_curve(output)
    assert curve[-1]["validation_loss"] < curve[0]["loss"] - 0.5


def test_from_the_surveys_with_dust_to_answers(
    folder: Path, sky: Sky, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    maps, data, output = folder / "maps", folder / "surveys", folder / "of_surveys"
    monkeypatch.setenv(dust_map.FOLDER_VARIABLE, str(maps))
    catalogproc(monkeypatch, "dust", "--from", folder / "combine19.h5")
    assert "combined19: 869 pixels" in capsys.readouterr().out
    catalogproc(
        monkeypatch,
        *("dataset", "build", "--apogee", folder / "allStar.fits"),
        *("--distmass", folder / "distmass.fits", "--gaia-source", folder / "gaia.parquet"),
        *("--xp", folder / "xp.parquet", "--cut", "box=none", "bprp=0:4", "--output", data),
    )
    assert dataset_facts(data)["dust map"] == dust_map.open_dust_map().hash
    catalogproc(
        monkeypatch,
        *("train", "--data", data, "--job", folder / "job.toml", "--output", output),
    )
    table = answers(output / "real", sky, "combined19")
    assert np.isfinite(table["ebv"].to_numpy()).all()


def job(**changes: object) -> TrainingJob:
    settings = {"epochs": 4, "batch": 128, "checkpoint_epochs": 2, "restart_epochs": 4}
    content = {"name": "j", "bundle": "on", "training": settings, "data": {"seed": 1}}
    return TrainingJob(**(content | changes))  # type: ignore[arg-type]


SHORT = job(
    network={"width": 16, "encoder": [[4, 32]], "decoder": [[4, 32]], "head": [32]},
    training={"epochs": 6, "batch": 64, "restart_epochs": 6, "checkpoint_epochs": 2,
              "average": 0.9, "targets": 4},
)  # fmt: skip


def test_a_model_goes_on_and_forgets_nothing_unasked(
    folder: Path, sky: Sky, tmp_path: Path
) -> None:
    """From the model of two downloads, on a dataset without dust: E(B-V) would be forgotten."""
    parent, data = folder / "trained" / "real", folder / "plain"
    one = SurveyFiles(
        folder / "allStar.fits", folder / "distmass.fits", (folder / "gaia.parquet",),
        (folder / "xp.parquet",),
    )  # fmt: skip
    dataset_from_surveys(one, data, cuts=Cuts(box=None))
    with pytest.raises(JobError, match=r"would forget(.|\n)*found: logebv(.|\n)*set replay"):
        train_bundle(job(), tmp_path / "a", data=data, base=parent, device="cpu")
    replay = {"seed": 1, "replay": 0.25, "replay_stars": 500}
    bundle = train_bundle(job(data=replay), tmp_path / "a", data=data, base=parent, device="cpu")
    old = load_bundle(parent)
    assert bundle.training["from"].endswith(f"({old.hash})")
    assert {*old.requestable} <= {*bundle.requestable}
    assert (bundle.standardisation.scale == old.standardisation.scale).all()
    assert "25% of the stars are simulated" in (bundle.path / "CARD.md").read_text()
    with pytest.raises(ResumeError, match=r"another training(.|\n)*dataset = "):
        train_bundle(
            job(bundle="other", data=replay), tmp_path / "a", data=folder / "lb24", base=parent,
            device="cpu", resume=True,
        )  # fmt: skip


def test_a_training_that_was_stopped_gives_the_same_model(folder: Path, tmp_path: Path) -> None:
    """Bit for bit: the bundle's hash is over weights, scales and all that is recorded of them."""
    data = folder / "lb24"

    def stop(step: int, steps: int, note: str) -> None:
        if step > steps // 2:
            raise KeyboardInterrupt

    whole = train_bundle(SHORT, tmp_path / "a", data=data, device="cpu")
    with pytest.raises(KeyboardInterrupt):
        train_bundle(SHORT, tmp_path / "b", data=data, device="cpu", progress=stop)
    with pytest.raises(ResumeError, match="resume it"):
        train_bundle(SHORT, tmp_path / "b", data=data, device="cpu")
    resumed = train_bundle(SHORT, tmp_path / "b", data=data, device="cpu", resume=True)
    assert resumed.hash == whole.hash


def test_a_job_and_its_stars_belong_together(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(JobError, match=r"needs a dataset(.|\n)*--data DIR"):
        train_bundle(job(), tmp_path)
    with pytest.raises(JobError, match="takes no dataset"):
        train_bundle(load_training_job("train-tiny"), tmp_path, data=folder)
    with pytest.raises(JobError, match=r"unknown field(.|\n)*replay(.|\n)*\[data\]"):
        train_bundle(job(data={"repaly": 0.1}), tmp_path, data=folder)


def test_the_published_settings_in_steps_of_the_published_stars() -> None:
    """SCIENCE 4.1: 4,096 epochs, the rate restarts every 512; 258,863 of 287,626 trained on."""
    published = load_training_job("train-apogee")
    settings = settings_for(published.training, 258_863)
    assert settings.steps == 4096 * 252
    assert settings.restart_steps == 512 * 252
    assert (settings.batch, settings.targets, settings.repeat) == (1024, 1, 1.0)
    assert (settings.rate, settings.minimum_rate, settings.weight_decay) == (1e-4, 1e-10, 0.01)
    assert (settings.min_tokens, settings.max_tokens) == (5, 64)
    assert settings.report_steps == 252
    assert Shape.from_dict({"tokens": 120, **published.network}) == Shape(120)
    for wrong, message in (
        ({"epochs": 3, "steps": 3}, "in steps and in epochs"),
        ({"epochs": 1.5}, "wrong type"),
    ):
        with pytest.raises(JobError, match=message):
            settings_for(wrong, 1000)
    with pytest.raises(JobError, match="without number"):
        settings_for({"epochs": 3}, 0)


def test_how_long_it_takes_is_said_in_words() -> None:
    work = Work(258_863, 1024, 1_032_192, 0.4, 256, 28_763)
    assert work.seconds == pytest.approx(1_032_192 * 0.4 + 256 * 28_763 / 1024 / 3 * 0.4)
    assert work.line().endswith("0.4 s a step here: 4 d 19 h if it goes to its end")
    half = replace(work, done=work.steps // 2)
    assert half.seconds == pytest.approx(work.seconds / 2)
    assert "516,096 of them done; 0.4 s a step here: 2 d 9 h" in half.line()


def test_readme_s_lines_are_these_commands() -> None:
    """Four lines, each a command that the command line has, with options that it has."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    section = text[text.index("Train it on the real data") :]
    lines = section.split("```")[1].strip().splitlines()
    assert len(lines) == 4
    words = [shlex.split(line, comments=True) for line in lines]
    assert words[0][0] in ("curl", "wget")
    assert [w[:3] for w in words[1:]] == [
        ["catalogproc", "dataset", "lb24"], ["catalogproc", "train", "--data"],
        ["catalogproc", "run", "--input"],
    ]  # fmt: skip
