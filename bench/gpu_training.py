"""Six minutes of training of the complete published network on one GPU.

From new weights: no shipped model has this shape. Simulated giants first, then real ones twice, by
the jobs of `make train-giants`, each for its share of the time. A star costs 0.52 to 0.65 GFLOP
(33 to 66 tokens shown, 8 targets); at an assumed 100 TFLOP/s, an eighth of what an H100 multiplies
in bfloat16, that is 170,000 stars/s, and 12 ms for a batch of 2048: some 25,000 steps, five times
the stars that the shipped model has seen. Nothing depends on the assumption but the choice of
the batch: the rate follows the clock and has fallen to its minimum when the time is over. With
validation stars, the weights of the lowest validation loss are kept.
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from bench.gpu_pack import PACKED_FROM
from bench.gpu_pieces import write_pieces
from catalogproc.datasets.dataset import dataset_facts
from catalogproc.job import TrainingJob, load_training_job
from catalogproc.network.bundle import Bundle, load_bundle
from catalogproc.network.bundle_writer import rewrite_bundle
from catalogproc.network.transformer import Transformer
from catalogproc.training.checkpoint import CURVE, load_checkpoint, read_curve
from catalogproc.training.config import TrainSpec
from catalogproc.training.train_bundle import THREADS, make_trainer, settings_for, write_trained
from catalogproc.training.trainer import Trained, Trainer
from catalogproc.training.training_data import TrainingData, load_training_data

NEVER = 10**9
EVERY_STAGE: Mapping[str, Any] = {
    "steps": NEVER, "restart_steps": NEVER, "batch": 2048, "warm_steps": 300, "average": 0.999,
    "minimum_rate": 1e-6, "precision": "bfloat16", "parts": 2, "report_steps": 50,
    "checkpoint_steps": 1000,
}  # fmt: skip
"""Settings of all stages, in place of the job's."""

WEIGHTS = "float16"
"""Weights travel in 16 bits, as bundles have them."""

PIECES_EVERY = 40.0
"""Seconds after which the next checkpoint is written as pieces too."""


@dataclass(frozen=True)
class Stage:
    """One stage: the job, its share of the time, and settings of its own."""

    job: str
    share: float
    training: Mapping[str, Any]


STAGES = (
    Stage("train-giants-full", 0.25, {"rate": 1e-3}),
    Stage("train-giants-real", 0.35, {"rate": 8e-4, "patience_steps": NEVER}),
    Stage("train-giants", 0.40, {"rate": 5e-4, "patience_steps": NEVER}),
)

TINY: Mapping[str, Mapping[str, Any]] = {
    "network": {"width": 16, "encoder": [[2, 32]], "decoder": [[2, 32]], "head": [32, 16]},
    "simulation": {"statistics_stars": 300, "test_stars": 60, "calibration_stars": 400},
    "data": {"replay_stars": 200},
    "training": {"batch": 64, "warm_steps": 5, "report_steps": 2, "checkpoint_steps": 4},
}
"""Tables of a job for tests of this module."""


@dataclass(frozen=True)
class Course:
    """Where and how long to train.

    Attributes
    ----------
    output
        Gets the pieces of the model.
    data
        Dataset, as `make gpu-pack` writes it.
    work
        Folder of checkpoints.
    device
        cpu or cuda.
    end
        When the training is to be over, by :func:`time.monotonic`.
    tiny
        Whether the network is very small.
    history
        What the stages did, which is written with the pieces.
    """

    output: Path
    data: Path
    work: Path
    device: str
    end: float
    tiny: bool = False
    history: list[dict[str, Any]] = field(default_factory=list)

    @property
    def left(self) -> float:
        """Seconds that are left."""
        return max(1.0, self.end - time.monotonic())


def job_of(stage: Stage, seconds: float, tiny: bool) -> TrainingJob:
    """Return the job of a stage.

    Parameters
    ----------
    stage
        The stage.
    seconds
        How long it trains.
    tiny
        Whether the network is very small.
    """
    job = load_training_job(stage.job)
    training = dict(job.training) | EVERY_STAGE | stage.training | {"seconds": seconds}
    job = replace(job, training=training)
    if tiny:
        tables = {name: dict(getattr(job, name)) for name in TINY}
        changed = {name: table | TINY[name] for name, table in tables.items() if table}
        job = replace(job, **changed)
    return job


def train(course: Course) -> Bundle:
    """Train all stages, and return the last bundle, which is not calibrated.

    Parameters
    ----------
    course
        Where and how long.
    """
    base: Bundle | None = None
    for number in range(len(STAGES)):
        base = _Run(course, number, base).train()
    assert base is not None
    return base


class _Run:
    """One stage of a course; ``base`` is the bundle of the stage before."""

    def __init__(self, course: Course, number: int, base: Bundle | None) -> None:
        self.course, self.base, self.stage = course, base, STAGES[number]
        self.rest = sum(stage.share for stage in STAGES[number:])
        self.folder = course.work / self.stage.job
        self.packed = time.monotonic()

    def train(self) -> Bundle:
        """Train, and write the pieces of the result."""
        course = self.course
        began, left = time.monotonic(), course.left
        job = job_of(self.stage, 0.0, course.tiny)
        real = course.data if job.data else None
        self.spec = TrainSpec(job, self.folder, real, device=course.device)
        # Stars are simulated on the processor too, in threads: no code that only a GPU has seen.
        self.data = _known(load_training_data(self.spec, self.base, "cpu"), real)
        # Preparations are part of the stage's share.
        seconds = max(1.0, left * self.stage.share / self.rest - (time.monotonic() - began))
        self.spec = replace(self.spec, job=job_of(self.stage, seconds, course.tiny))
        settings = settings_for(self.spec.job.training, self.data.star_count)
        trainer = make_trainer(self.data, self.base, settings, course.device)
        self.trainer = replace(trainer, threads=min(THREADS, os.cpu_count() or 1))
        trained = self.trainer.fit(self.folder, progress=self._progress)
        course.history.append(self._facts(trained.history))
        return self._pack(trained)

    def _progress(self, step: int, steps: int, metrics: Mapping[str, float]) -> None:
        print(f"{self.stage.job} {step} " + ", ".join(f"{k} {v:.4g}" for k, v in metrics.items()))
        is_checkpoint = "validation_loss" in metrics
        if is_checkpoint and time.monotonic() - self.packed >= PIECES_EVERY:
            self._pack(_of_checkpoint(self.folder, self.trainer))

    def _pack(self, trained: Trained) -> Bundle:
        """Write a bundle with weights of 16 bits, and its pieces."""
        made = self.course.work / f"{self.stage.job}-bundle"
        shutil.rmtree(made, ignore_errors=True)
        spec = replace(self.spec, output=made)
        bundle = write_trained(spec, self.data, self.base, trained)
        bundle = rewrite_bundle(bundle, bundle.path, dtype=WEIGHTS)
        shutil.copy(self.folder / CURVE, bundle.path / CURVE)
        facts = {
            "stage": self.stage.job, "tiny": self.course.tiny,
            "now": self._facts(trained.history), "stages": self.course.history,
        }  # fmt: skip
        write_pieces(bundle.path, self.course.output, facts)
        self.packed = time.monotonic()
        return bundle

    def _facts(self, history: tuple[dict[str, float], ...]) -> dict[str, Any]:
        """Return numbers of a training, for the page on speed."""
        last = history[-1]
        on_gpu = self.course.device.startswith("cuda")
        found = {
            "job": self.stage.job,
            "device": torch.cuda.get_device_name() if on_gpu else "cpu",
            "seconds": self.trainer.settings.seconds,
            "steps": int(last["step"]),
            "batch": self.trainer.settings.batch,
            "stars_per_second": median(row["stars_per_second"] for row in history),
            "loss": last["loss"],
        }
        losses = [row["validation_loss"] for row in history if "validation_loss" in row]
        if losses:
            found["validation_loss"] = min(losses)
        if on_gpu:
            found["peak_memory_gb"] = torch.cuda.max_memory_allocated() / 1e9
        return found


def _known(data: TrainingData, folder: Path | None) -> TrainingData:
    """Name the dataset that a compact one was made of, so that its calibration finds it."""
    if folder is None:
        return data
    original = dataset_facts(folder).get(PACKED_FROM, data.facts["dataset_sha256"])
    return replace(data, facts={**data.facts, "dataset_sha256": original})


def _of_checkpoint(folder: Path, trainer: Trainer) -> Trained:
    """Return the network of a checkpoint: that of the lowest validation loss, or the average."""
    loaded = load_checkpoint(folder)
    assert loaded is not None
    tensors, facts = loaded
    part = "best/" if facts["best"] and trainer.settings.patience_steps else "average/"
    network = Transformer(trainer.shape)
    network.load_state_dict(
        {name.removeprefix(part): x for name, x in tensors.items() if name.startswith(part)}
    )
    counts = tensors["request_counts"][1:].numpy().astype(np.int64)
    return Trained(network.eval(), read_curve(folder), counts)


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench.gpu_training", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder of the pieces")
    parser.add_argument("--data", type=Path, required=True, help="dataset of make gpu-pack")
    parser.add_argument("--until", type=float, required=True, help="end, seconds since 1970")
    parser.add_argument("--tiny", action="store_true", help="a very small network, for tests")
    options = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    end = time.monotonic() + options.until - time.time()
    with tempfile.TemporaryDirectory(prefix="training-") as work:
        course = Course(options.out, options.data, Path(work), device, end, options.tiny)
        bundle = load_bundle(train(course).path)
        print(f"{bundle.name} {bundle.hash[:8]}, not calibrated: {course.history[-1]}")


if __name__ == "__main__":
    main()
