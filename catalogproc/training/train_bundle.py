"""From a training job to an evaluated bundle with its model card."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from catalogproc.errors import BundleError, JobError, ResumeError
from catalogproc.io.atomic import write_atomic
from catalogproc.network.bundle import Bundle, load_bundle
from catalogproc.network.bundle_writer import BundleContent, rewrite_bundle, write_bundle
from catalogproc.network.predictor import Predictor
from catalogproc.network.shape import Shape
from catalogproc.network.transformer import Transformer
from catalogproc.training.checkpoint import CURVE, read_curve
from catalogproc.training.config import Settings, TrainSpec
from catalogproc.training.distributed import is_first, local_device
from catalogproc.training.fit_calibration import fit_uncertainties
from catalogproc.training.inherited_tokens import inherited, left_behind
from catalogproc.training.model_card import write_card
from catalogproc.training.prior_sample import prior_sample
from catalogproc.training.time_estimate import estimate_time
from catalogproc.training.trainer import Trained, Trainer
from catalogproc.training.training_data import TrainingData, load_training_data
from catalogproc.training.vocabulary_extension import extended_network
from catalogproc.training.weight_precision import (
    PRECISION_STARS,
    SHARE_OF_STARS,
    check_products,
    choose_dtype,
)

CHECKED = ("teff", "logg", "m_h", "mass", "log_age", "logebv", "g_fakemag")
"""Labels that the self-check of a bundle predicts."""

CHECK_STARS = 4
"""Stars of the self-check."""

RECIPE = "training.json"
"""Written beside the checkpoint: what is trained, and on which stars."""

THREADS = 8
"""Largest number of threads that draw stars for a GPU; one draws some 50,000 stars a second."""

EPOCHS = {
    "epochs": "steps",
    "restart_epochs": "restart_steps",
    "warm_epochs": "warm_steps",
    "patience_epochs": "patience_steps",
    "checkpoint_epochs": "checkpoint_steps",
}
"""Settings that a job may give in epochs, and those in steps that they are converted to."""


def train_bundle(
    spec: TrainSpec, progress: Any = None, announce: Callable[[str], None] | None = None
) -> Bundle | None:
    """Train a model, evaluate it on stars that it was not trained on, and write its bundle.

    The output folder gets checkpoints and the learning curve, and its subfolder of the bundle's
    name bundle.toml, weights.safetensors, CARD.md, learning_curve.csv and scores.json.

    Parameters
    ----------
    spec
        What the user asks for.
    progress
        Called with steps done, number of steps, and a note on the loss.
    announce
        Called with the estimated time before the training starts.

    Returns
    -------
    The bundle; None in all but the first of several processes.

    Raises
    ------
    JobError
        The job is invalid, or disagrees with the given files; tokens would be forgotten.
    InputError
        The folder of the dataset holds none, or one that was changed.
    BundleError, ResumeError
        The output folder holds a bundle, or a training that is not to be resumed.
    """
    _refuse_dataset(spec)
    if spec.bundle_folder.exists():
        raise BundleError("the folder holds a bundle already", where=spec.bundle_folder)
    device = _device(spec.device)
    base = None if spec.base is None else load_bundle(spec.base)
    if base is not None:
        base = inherited(base, spec.release, spec.job.basis)
    data = load_training_data(spec, base, device)
    settings = settings_for(spec.job.training, data.star_count)
    _check_recipe(spec, data, base)
    trainer = make_trainer(data, base, settings, device)
    if announce is not None:
        estimate = estimate_time(trainer, data.star_count)
        announce(replace(estimate, done=_steps_done(spec)).text())
        if lost := left_behind(base):
            announce(f"{len(lost)} coefficients of the model mean something else in "
                     f"{data.vocabulary.data_release.title}, and are trained anew")  # fmt: skip
    trained = trainer.fit(spec.output, resume=spec.resume, progress=_loss_note(progress))
    if not trained.is_first:
        return None
    bundle = finish_bundle(write_trained(spec, data, base, trained), data)
    shutil.copy(spec.output / CURVE, bundle.path / CURVE)
    write_card(bundle, spec.job, data.test, data.intended_use, spec.spectra)
    return load_bundle(bundle.path)


def settings_for(training: Mapping[str, Any], stars: int) -> Settings:
    """Return the settings of a job, with those of EPOCHS converted to steps.

    An epoch has as many steps as sample each star once on average: the number of stars over the
    batch size, rounded down as in Leung & Bovy's code. The learning curve then has one line per
    epoch.

    Parameters
    ----------
    training
        Table ``training`` of a job.
    stars
        Number of training stars, 0 where every step has new ones.

    Raises
    ------
    JobError
        An unknown field, a field given twice, or epochs without a number of stars.
    """
    content = dict(training)
    given = [name for name in EPOCHS if name in content]
    if not given:
        return Settings.from_dict(content)
    if not stars:
        raise JobError(
            "epochs are undefined where every step has new stars", wanted="steps",
            found=", ".join(given),
        )  # fmt: skip
    batch = Settings.from_dict({name: content[name] for name in content if name == "batch"}).batch
    epoch = max(1, stars // batch)
    for name in given:
        epochs = content.pop(name)
        if EPOCHS[name] in content:
            raise JobError("given in steps and in epochs", found=f"{name} and {EPOCHS[name]}")
        if not isinstance(epochs, int) or isinstance(epochs, bool):
            raise Settings.invalid(name, repr(epochs), "wrong type", "a whole number")
        content[EPOCHS[name]] = epochs * epoch
    content.setdefault("report_steps", epoch)
    return Settings.from_dict(content)


def _refuse_dataset(spec: TrainSpec) -> None:
    """Raise JobError for a dataset that the job does not use, or one that is missing."""
    job = spec.job
    if (spec.data is not None) != bool(job.data):
        raise JobError(
            "the job trains on real stars, and needs a dataset" if job.data
            else "the job trains on simulated stars, and takes no dataset",
            wanted="--data DIR, made by catalogproc dataset" if job.data
            else "a job with a table data, such as train-apogee",
            found="none" if spec.data is None else spec.data, where=job.name,
        )  # fmt: skip


def _check_recipe(spec: TrainSpec, data: TrainingData, base: Bundle | None) -> None:
    """Record what is trained on which stars; refuse to resume another training."""
    recipe = {
        "dataset": data.facts.get("dataset_sha256", ""),
        "from": "" if base is None else base.hash,
        "data": dict(spec.job.data),
        "simulation": dict(spec.job.simulation),
        "real": dict(spec.job.real),
        "errors": dict(spec.job.errors),
        "augmentation": dict(spec.job.augmentation),
        "spectra": data.facts.get("real_spectra_sha256", ""),
        "release": "" if spec.release is None else spec.release.hash,
    }
    path = spec.output / RECIPE
    if not is_first():
        return
    if spec.resume and path.is_file():
        saved = json.loads(path.read_text(encoding="utf-8"))
        for name, value in recipe.items():
            if saved.get(name, type(value)()) != value:
                raise ResumeError(
                    "the checkpoint is of another training",
                    wanted=f"{name} = {saved.get(name)}", found=f"{name} = {value}",
                    where=spec.output,
                )  # fmt: skip
        return
    if path.is_file():
        return  # Trainer.fit refuses the checkpoint beside it.
    write_atomic(path, json.dumps(recipe, indent=1).encode() + b"\n")


def make_trainer(
    data: TrainingData, base: Bundle | None, settings: Settings, device: str
) -> Trainer:
    """Return the trainer of a new network, or of one to fine-tune.

    Parameters
    ----------
    data
        The stars, and the shape of the network.
    base
        The model to fine-tune, if any.
    settings, device
        Settings of the optimisation, and the device.
    """
    initial: Shape | Transformer = data.shape
    if base is not None:
        initial = extended_network(base, data.shape, settings.seed)
    # A GPU would wait for real stars, which are drawn and moved on the processor.
    threads = (
        min(THREADS, os.cpu_count() or 1) if device.startswith("cuda") and data.star_count else 0
    )
    return Trainer(initial, data.stars, settings, device, threads)


def write_trained(
    spec: TrainSpec, data: TrainingData, base: Bundle | None, trained: Trained
) -> Bundle:
    """Write the bundle of a training, without calibration and training prior.

    Parameters
    ----------
    spec, data
        What was asked for, and the stars.
    base
        The model that was fine-tuned, if any.
    trained
        The network.
    """
    vocabulary = data.vocabulary
    known = () if base is None else base.requestable
    requestable = [
        name
        for name, count in zip(vocabulary.names, trained.request_counts, strict=True)
        if count or name in known
    ]
    # Stars of the evaluation are not even read before it.
    validation = data.test if data.stars.validation is None else data.stars.validation
    check = validation.tokens.rows(slice(CHECK_STARS)).only(~data.labels)
    content = BundleContent(
        name=spec.job.bundle,
        description=spec.job.description,
        network=trained.network.to("cpu"),
        vocabulary=vocabulary,
        standardisation=data.stars.standardisation,
        domain=data.domain,
        training=_facts(spec, data, base, trained),
        check_tokens=check,
        check_labels=[name for name in CHECKED if name in requestable],
        requestable=requestable,
        error_scaling=data.stars.errors.scaling if data.stars.errors else None,
    )
    return write_bundle(spec.bundle_folder, content)


def _facts(
    spec: TrainSpec, data: TrainingData, base: Bundle | None, trained: Trained
) -> dict[str, Any]:
    """Return the facts of a training that its bundle records."""
    settings = settings_for(spec.job.training, data.star_count)
    facts = dict(data.facts) | {
        "job": spec.job.name,
        "job_hash": spec.job.hash,
        "seed": settings.seed,
        "steps": int(trained.history[-1]["step"]),
        "stars": data.star_count or settings.steps * settings.batch,
        "final_loss": float(trained.history[-1]["loss"]),
    }
    if base is not None:
        facts["from"] = f"{base.name} ({base.hash})"
        facts["from_data"] = str(base.training.get("data", ""))
        if lost := left_behind(base):
            facts["not_inherited"] = f"{len(lost)} coefficients of {base.name}: trained anew"
    return facts


def finish_bundle(bundle: Bundle, data: TrainingData) -> Bundle:
    """Store the shortest sufficient weights, calibrate uncertainties, and add the prior.

    Parameters
    ----------
    bundle
        Of :func:`write_trained`; it is replaced.
    data
        The stars of the training.
    """
    labels = tuple(name for name in CHECKED if name in bundle.requestable)
    holdout = data.make_holdout()
    inputs = holdout.inputs.rows(slice(PRECISION_STARS)).only(~data.labels)
    dtype, change = choose_dtype(bundle, inputs, labels)
    facts = dict(bundle.training) | {"weights": dtype}
    if change:
        facts["weights_change"] = (
            f"{SHARE_OF_STARS:.1%} of predictions change by less than {change:.2g} sigma"
        )
    bundle = rewrite_bundle(bundle, bundle.path, dtype=dtype, training=facts)
    predictor = Predictor(bundle)
    calibration = replace(
        fit_uncertainties(predictor, holdout),
        trained_on=data.trained_on,
        teacher_domain=data.teacher_domain,
    )
    calibrated = Predictor(replace(bundle, calibration=calibration))
    prior = prior_sample(calibrated, data.make_prior_stars())
    bundle = rewrite_bundle(bundle, bundle.path, dtype=dtype, calibration=calibration, prior=prior)
    check = check_products(bundle, inputs)
    return rewrite_bundle(bundle, bundle.path, dtype=dtype, precision_check=check)


def _steps_done(spec: TrainSpec) -> int:
    """Return the number of steps of the training to resume."""
    curve = read_curve(spec.output) if spec.resume else ()
    return int(curve[-1]["step"]) if curve else 0


def _device(name: str) -> str:
    """Return the device of this process."""
    import torch

    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return local_device(name)


def _loss_note(progress: Any) -> Callable[[int, int, Mapping[str, float]], None] | None:
    """Return a callback that passes the loss on as text."""
    if progress is None:
        return None

    def report(step: int, steps: int, metrics: Mapping[str, float]) -> None:
        progress(step, steps, f"loss {metrics['loss']:.3f}")

    return report
