"""From a training job to a bundle with its card: stars in, a judged model out."""

from __future__ import annotations

import json
import shutil
import statistics
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from catalogproc.datasets.star_table import Table
from catalogproc.errors import BundleError, JobError, ResumeError
from catalogproc.io.atomic import write_whole
from catalogproc.job import TrainingJob
from catalogproc.network.bundle import Bundle, load_bundle, rewritten, write_bundle
from catalogproc.network.predictor import Predictor
from catalogproc.network.transformer import Shape, Transformer
from catalogproc.training.checkpoint import read_curve
from catalogproc.training.config import Settings
from catalogproc.training.distributed import is_first, local_device
from catalogproc.training.fit_calibration import fit_reliability
from catalogproc.training.model_card import write_card
from catalogproc.training.trainer import Trained, train
from catalogproc.training.training_data import Lesson, real, simulated
from catalogproc.training.vocabulary_extension import extended_network
from catalogproc.training.weight_precision import OF_STARS, storage_type

CHECKED = ("teff", "logg", "m_h", "mass", "log_age", "logebv", "g_fakemag")
CHECK_STARS, STORAGE_STARS = 4, 2_000
CURVE, RECIPE = "learning_curve.csv", "training.json"

EPOCHS = {
    "epochs": "steps",
    "restart_epochs": "restart_steps",
    "warm_epochs": "warm_steps",
    "patience_epochs": "patience_steps",
    "checkpoint_epochs": "checkpoint_steps",
}
"""What a job may give in epochs: so many steps that the stars are drawn once on average."""

Announce = Callable[[str], None]


@dataclass(frozen=True)
class Work:
    """How long a training will take: as many steps as were timed on this machine promise."""

    stars: int
    batch: int
    steps: int
    seconds_a_step: float
    validations: int
    validation_stars: int
    done: int = 0

    @property
    def seconds(self) -> float:
        """In all. A star that is validated costs a third of one that is trained on: no gradient."""
        validated = self.validations * self.validation_stars / self.batch / 3
        left = max(self.steps - self.done, 0) / self.steps
        return left * (self.steps + validated) * self.seconds_a_step

    def line(self) -> str:
        """For the user, before it starts."""
        of = f"{self.stars:,} stars" if self.stars else "new stars every step"
        done = f", {self.done:,} of them done" if self.done else ""
        return (
            f"{of}, {self.steps:,} steps of {self.batch:,}{done}; "
            f"{self.seconds_a_step:.3g} s a step here: {_duration(self.seconds)} "
            "if it goes to its end"
        )


def train_bundle(
    job: TrainingJob,
    output: Path,
    *,
    data: Path | None = None,
    base: str | Path | None = None,
    spectra: Sequence[Path] = (),
    resume: bool = False,
    device: str = "auto",
    progress: Any = None,
    announce: Announce | None = None,
) -> Bundle | None:
    """Train by a job, judge the result on stars it did not see, and write its bundle.

    ``output`` gets checkpoints and the learning curve, and ``output/<bundle>`` the bundle:
    bundle.toml, weights.safetensors, CARD.md, learning_curve.csv, scores.json.

    Parameters
    ----------
    data
        The folder of a dataset to train on, for jobs that have a table ``data``; the others
        train on simulated stars.
    base
        The bundle to go on from, by name or folder: its network, its scales, and its tokens,
        to which those that it lacks are added (see network.learning.extend).
    spectra
        Files of real spectra without labels, for jobs whose table ``real`` mixes them in.
    resume
        Go on from the checkpoint in ``output``.
    announce
        Called with the time that it will take, before it starts.

    Of several processes that train together (network/learning/ranks.py) the first one writes,
    and gets the bundle; the others get None.

    Raises
    ------
    JobError
        A field of the job that is unknown or makes no sense; a dataset for a job without, or
        none for a job with; tokens of the base that would be forgotten.
    InputError
        No dataset in that folder, or one that was changed.
    ResumeError
        The folder holds another training, or one that ``resume`` was not given for.
    """
    where = _device(device)
    _refuse_data(job, data)
    if (output / job.bundle).exists():
        raise BundleError("the folder holds a bundle already", where=output / job.bundle)
    parent = None if base is None else load_bundle(base)
    lesson = (
        simulated(job, parent, where, spectra) if data is None else real(job, data, parent, where)
    )
    settings = settings_for(job.training, lesson.stars)
    _same_training(output, job, lesson, parent, resume)
    start, shape = None, Shape.from_dict({"tokens": len(lesson.vocabulary), **job.network})
    if parent is not None:
        start = extended_network(parent, lesson.vocabulary, settings.seed)
        shape = start.shape
    if announce is not None:
        curve = read_curve(output) if resume else ()
        done = int(curve[-1]["step"]) if curve else 0
        announce(replace(estimate(lesson, shape, settings, where), done=done).line())
    trained = _train(lesson, shape, settings, output, where, start, resume, progress)
    if not trained.first:
        return None
    facts = dict(lesson.facts) | {
        "job": job.name,
        "job_hash": job.hash,
        "seed": settings.seed,
        "steps": int(trained.history[-1]["step"]),
        "stars": lesson.stars or settings.steps * settings.batch,
        "final_loss": float(trained.history[-1]["loss"]),
    }
    if parent is not None:
        facts["from"] = f"{parent.name} ({parent.hash})"
        facts["from_data"] = str(parent.training.get("data", ""))
    bundle = _write(job, output, trained, lesson, facts, parent)
    bundle = finished(bundle, lesson)
    shutil.copy(output / CURVE, bundle.path / CURVE)
    write_card(bundle, job, lesson.test, lesson.use, spectra)
    return load_bundle(bundle.path)


def finished(bundle: Bundle, lesson: Lesson) -> Bundle:
    """The bundle with weights of as few bits as will do, and with how far it can be trusted."""
    labels = tuple(name for name in CHECKED if name in bundle.requestable)
    shown = lesson.test.values[:STORAGE_STARS].copy()
    shown[:, lesson.labels] = np.nan
    dtype, change = storage_type(bundle, shown, labels)
    said = dict(bundle.training) | {"weights": dtype}
    if change:
        said["weights_change"] = f"{OF_STARS:.1%} of answers within {change:.2g} of their sigma"
    bundle = rewritten(bundle, bundle.path, dtype=dtype, training=said)
    found = fit_reliability(Predictor(bundle), lesson.held(), lesson.trained_on)
    return rewritten(bundle, bundle.path, dtype=dtype, reliability=found)


def settings_for(training: Mapping[str, Any], stars: int) -> Settings:
    """The settings of a job's table ``training``, in which EPOCHS may stand for steps.

    An epoch are as many steps as give, on average, each of the ``stars`` once: their number
    over the batch, rounded down as the parent code does. The learning curve then gets a line
    an epoch. Raises JobError for a field that is unknown, or given twice.
    """
    content = dict(training)
    given = [name for name in EPOCHS if name in content]
    if not given:
        return Settings.from_dict(content)
    if not stars:
        raise JobError("epochs of stars without number", wanted="steps", found=", ".join(given))
    batch = Settings.from_dict({name: content[name] for name in content if name == "batch"}).batch
    epoch = max(1, stars // batch)
    for name in given:
        epochs = content.pop(name)
        if EPOCHS[name] in content:
            raise JobError("given in steps and in epochs", found=f"{name} and {EPOCHS[name]}")
        if not isinstance(epochs, int) or isinstance(epochs, bool):
            raise JobError("wrong type", wanted="a whole number", found=repr(epochs), where=name)
        content[EPOCHS[name]] = epochs * epoch
    content.setdefault("report_steps", epoch)
    return Settings.from_dict(content)


def estimate(lesson: Lesson, shape: Shape, settings: Settings, device: str) -> Work:
    """Time a few steps of a training, which are thrown away, and say what all will take."""
    few = 15 if device.startswith("cuda") else 1
    brief = replace(
        settings, steps=3 * few, report_steps=few, checkpoint_steps=3 * few, patience_steps=0
    )
    held = lesson.validation
    held = Table(held.ids[:8], held.values[:8], held.errors[:8])
    with tempfile.TemporaryDirectory() as folder:
        timed = replace(lesson, validation=held)
        history = _train(timed, shape, brief, Path(folder), device).history
    # The first report has the device's warming up in it.
    rate = statistics.median(row["stars_per_second"] for row in history[1:])
    return Work(
        stars=lesson.stars,
        batch=settings.batch,
        steps=settings.steps,
        seconds_a_step=settings.batch / rate,
        validations=-(-settings.steps // settings.checkpoint_steps),
        validation_stars=len(lesson.validation.ids),
    )


def _refuse_data(job: TrainingJob, data: Path | None) -> None:
    if (data is not None) != bool(job.data):
        raise JobError(
            "the job trains on real stars, and needs a dataset" if job.data
            else "the job trains on simulated stars, and takes no dataset",
            wanted="--data DIR, made by catalogproc dataset" if job.data
            else "a job with a table data, as train-apogee",
            found="none" if data is None else data, where=job.name,
        )  # fmt: skip


def _same_training(
    output: Path, job: TrainingJob, lesson: Lesson, parent: Bundle | None, resume: bool
) -> None:
    """Note what is trained and on what; refuse to go on from something else's checkpoint."""
    now = {
        "dataset": lesson.facts.get("dataset_sha256", ""),
        "from": "" if parent is None else parent.hash,
        "data": dict(job.data),
        "simulation": dict(job.simulation),
        "real": dict(job.real),
        "spectra": lesson.facts.get("real_spectra_sha256", ""),
    }
    path = output / RECIPE
    if not is_first():
        return
    if resume and path.is_file():
        was = json.loads(path.read_text(encoding="utf-8"))
        for name, value in now.items():
            if was.get(name, type(value)()) != value:
                raise ResumeError(
                    "the checkpoint is of another training",
                    wanted=f"{name} = {was.get(name)}", found=f"{name} = {value}", where=output,
                )  # fmt: skip
        return
    if path.is_file():
        return  # the checkpoint beside it is refused where it is read
    output.mkdir(parents=True, exist_ok=True)
    write_whole(path, json.dumps(now, indent=1).encode() + b"\n")


def _train(
    lesson: Lesson,
    shape: Shape,
    settings: Settings,
    folder: Path,
    device: str,
    start: Transformer | None = None,
    resume: bool = False,
    progress: Any = None,
) -> Trained:
    return train(
        shape,
        lesson.standardisation,
        lesson.draw,
        settings,
        folder,
        weights=lesson.weights,
        labels=lesson.labels,
        validation=(lesson.validation.values, lesson.validation.errors),
        start=start,
        device=device,
        resume=resume,
        progress=None if progress is None else _report(progress),
    )


def _device(name: str) -> str:
    import torch

    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return local_device(name)


def _report(progress: Any) -> Callable[[int, int, Mapping[str, float]], None]:
    def report(step: int, steps: int, metrics: Mapping[str, float]) -> None:
        progress(step, steps, f"loss {metrics['loss']:.3f}")

    return report


def _duration(seconds: float) -> str:
    """About how long, in the two units that say it."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, hours = round(seconds / 60), round(seconds / 3600)
    if hours >= 24:
        return f"{hours // 24:,} d {hours % 24} h"
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min"


def _write(
    job: TrainingJob,
    output: Path,
    trained: Trained,
    lesson: Lesson,
    facts: Mapping[str, Any],
    parent: Bundle | None,
) -> Bundle:
    vocabulary = lesson.vocabulary
    known = () if parent is None else parent.requestable
    requestable = [
        name
        for name, count in zip(vocabulary.names, trained.asked, strict=True)
        if count or name in known
    ]
    check = lesson.test.values[:CHECK_STARS].astype(np.float64)
    check[:, vocabulary.columns(vocabulary.named("label"))] = np.nan
    return write_bundle(
        output / job.bundle,
        name=job.bundle,
        description=job.description,
        network=trained.network.to("cpu"),
        vocabulary=vocabulary,
        standardisation=lesson.standardisation,
        domain=lesson.domain,
        training=facts,
        check_values=check,
        check_labels=[name for name in CHECKED if name in requestable],
        requestable=requestable,
    )
