"""From files in the layouts of the surveys to a model that a run can use."""

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
from catalogproc.datasets.writer import Selection, Split
from catalogproc.errors import JobError, ResumeError
from catalogproc.features import dust_map
from catalogproc.inference.engine import Engine
from catalogproc.job import TrainingJob, load_training_job
from catalogproc.network.bundle import load_bundle
from catalogproc.network.shape import Shape
from catalogproc.training.checkpoint import read_curve
from catalogproc.training.config import TrainSpec
from catalogproc.training.time_estimate import TimeEstimate
from catalogproc.training.train_bundle import settings_for, train_bundle

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


def catalogproc(monkeypatch: pytest.MonkeyPatch, *arguments: str | Path) -> None:
    """Run the command line in this process, which is faster than starting another one."""
    monkeypatch.setattr(sys, "argv", ["catalogproc", *map(str, arguments)])
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


def catalog_of(bundle_path: Path, sky: Sky, dust: str | None = None) -> pa.Table:
    """Catalog rows of the stars: planned with all checks of a run, then computed."""
    bundle, spectra = load_bundle(bundle_path), bundle_path.parents[1] / "xp.parquet"
    plan = make_plan(RunSpec(spectra, bundle_path.parent / "out", (), bundle_path, dust=dust))
    engine = Engine(bundle, plan.job, dust_map=plan.dust_map)
    engine.self_check()
    assert sky.spectra["source_id"].equals(sky.source["source_id"])
    return engine.process(sky.spectra.combine_chunks(), sky.source.combine_chunks())


def test_two_downloads_to_a_catalog(
    folder: Path, sky: Sky, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The commands of docs/training.md, with simulated files in place of the downloads."""
    data, output = folder / "lb24", folder / "trained"
    sets = (folder / "training_set.h5", folder / "testing_set.h5")
    catalogproc(
        monkeypatch,
        *("dataset", "lb24", *sets, "--distmass", folder / "distmass.fits", "--output", data),
        *("--cut", "age=0:13.8", "ruwe=1.4"),
    )
    output_text = capsys.readouterr().out
    assert re.search(r"total +\d+ +\d+ +319,585", output_text)
    catalogproc(
        monkeypatch,
        *("train", "--data", data, "--job", folder / "job.toml", "--output", output),
        *("--device", "cpu"),
    )
    output_text = capsys.readouterr().out
    estimate = r"stars, \d+ steps of 64; \S+ s per step on this machine: \d+ s if all steps"
    assert re.search(estimate, output_text)
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
    table = catalog_of(bundle.path, sky)
    for name in ("teff", "logg", "m_h", "mass", "age"):
        assert np.isfinite(table[name].to_numpy()).all()
    # Seconds of training give no useful model, but the loss falls by half a nat per request.
    curve = read_curve(output)
    assert curve[-1]["validation_loss"] < curve[0]["loss"] - 0.5


def test_surveys_with_dust_to_a_catalog(
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
    table = catalog_of(output / "real", sky, "combined19")
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


def test_fine_tuning_forgets_no_token(folder: Path, sky: Sky, tmp_path: Path) -> None:
    """Fine-tuning on a dataset without dust: without replay E(B-V) would be forgotten."""
    base, data = folder / "trained" / "real", folder / "plain"
    files = SurveyFiles(
        folder / "allStar.fits", folder / "distmass.fits", (folder / "gaia.parquet",),
        (folder / "xp.parquet",),
    )  # fmt: skip
    dataset_from_surveys(files, data, Selection(Cuts(box=None), Split(published=False)))
    with pytest.raises(JobError, match=r"would forget(.|\n)*found: logebv(.|\n)*set replay"):
        train_bundle(TrainSpec(job(), tmp_path / "a", data, base, device="cpu"))
    replay = {"seed": 1, "replay": 0.25, "replay_stars": 500}
    spec = TrainSpec(job(data=replay), tmp_path / "a", data, base, device="cpu")
    bundle = train_bundle(spec)
    old = load_bundle(base)
    assert bundle.training["from"].endswith(f"({old.hash})")
    assert {*old.requestable} <= {*bundle.requestable}
    assert (bundle.standardisation.scale == old.standardisation.scale).all()
    assert "25% of the stars are simulated" in (bundle.path / "CARD.md").read_text()
    with pytest.raises(ResumeError, match=r"another training(.|\n)*dataset = "):
        train_bundle(
            replace(spec, job=job(bundle="other", data=replay), data=folder / "lb24", resume=True)
        )


def test_a_resumed_training_gives_the_same_bundle(folder: Path, tmp_path: Path) -> None:
    """Bit for bit: the hash covers weights, scales and the facts of the training."""
    spec = TrainSpec(SHORT, tmp_path / "a", folder / "lb24", device="cpu")
    other = replace(spec, output=tmp_path / "b")

    def stop(step: int, steps: int, note: str) -> None:
        if step > steps // 2:
            raise KeyboardInterrupt

    uninterrupted = train_bundle(spec)
    with pytest.raises(KeyboardInterrupt):
        train_bundle(other, progress=stop)
    with pytest.raises(ResumeError, match="resume it"):
        train_bundle(other)
    resumed = train_bundle(replace(other, resume=True))
    assert resumed.hash == uninterrupted.hash


def test_a_dataset_is_refused_or_required_by_the_job(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(JobError, match=r"needs a dataset(.|\n)*--data DIR"):
        train_bundle(TrainSpec(job(), tmp_path))
    with pytest.raises(JobError, match="takes no dataset"):
        train_bundle(TrainSpec(load_training_job("train-tiny"), tmp_path, folder))
    with pytest.raises(JobError, match=r"unknown field(.|\n)*replay(.|\n)*\[data\]"):
        train_bundle(TrainSpec(job(data={"repaly": 0.1}), tmp_path, folder))


def test_the_shipped_job_has_the_published_settings() -> None:
    """4,096 epochs, a restart every 512, 258,863 training stars (Zhang, Bu et al. 2026)."""
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
    with pytest.raises(JobError, match="epochs are undefined"):
        settings_for({"epochs": 3}, 0)


def test_the_time_estimate_scales_with_the_steps_left() -> None:
    estimate = TimeEstimate(258_863, 1024, 1_032_192, 0.4, 256, 28_763)
    assert estimate.seconds == pytest.approx(1_032_192 * 0.4 + 256 * 28_763 / 1024 / 3 * 0.4)
    assert estimate.text().endswith(
        "0.4 s per step on this machine: 4 d 19 h if all steps are done"
    )
    half = replace(estimate, done=estimate.steps // 2)
    assert half.seconds == pytest.approx(estimate.seconds / 2)
    assert "516,096 of them done; 0.4 s per step on this machine: 2 d 9 h" in half.text()


def test_the_page_on_training_shows_these_commands() -> None:
    """Four lines: a download, and three commands of this program."""
    text = (ROOT / "docs/training.md").read_text(encoding="utf-8")
    section = text[text.index("The stars of the published network") :]
    lines = section.split("```")[1].strip().splitlines()
    assert len(lines) == 4
    commands = [shlex.split(line, comments=True) for line in lines]
    assert commands[0][0] in ("curl", "wget")
    assert [command[:3] for command in commands[1:]] == [
        ["catalogproc", "dataset", "lb24"], ["catalogproc", "train", "--data"],
        ["catalogproc", "run", "--input"],
    ]  # fmt: skip
