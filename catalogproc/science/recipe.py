"""From a training job to a bundle with its card: simulated stars in, a judged model out."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from catalogproc import __version__
from catalogproc.errors import BundleError, JobError
from catalogproc.job import TrainingJob
from catalogproc.network.bundle import Bundle, Domain, Standardisation, load_bundle, write_bundle
from catalogproc.network.predictor import Predictor
from catalogproc.network.sampling import Draw, Table, describe
from catalogproc.network.settings import Settings
from catalogproc.network.training import train
from catalogproc.network.transformer import Shape, Transformer
from catalogproc.science.evaluate import ATMOSPHERE_AND_AGE, Score, evaluate, markdown
from catalogproc.science.simulate import Simulator
from catalogproc.vocabulary import Vocabulary, load_vocabulary

Floats = NDArray[np.float32]

CHECKED = ("teff", "logg", "m_h", "mass", "log_age", "logebv", "g_fakemag")
CHECK_STARS = 4
CURVE = "learning_curve.csv"
CREDIT = (
    "PARSEC isochrones (Bressan et al. 2012), ATLAS9 atmospheres (Castelli & Kurucz 2004), "
    "the Gaia DR3 instrument and errors (ESA/Gaia/DPAC)"
)
Reading = Callable[[int, int], None]


@dataclass(frozen=True)
class Simulation:
    """The simulated stars of a training, table ``simulation`` of its job.

    seed
        Of all stars; training, statistics and test stars follow from it, all different.
    stars
        How many stars are drawn once and trained on; 0 draws new ones every step.
    statistics_stars, test_stars
        How many are drawn to fit the standardisation, and to judge the model.
    label_weight
        How often a label is asked for one time that a coefficient or a colour is.
    """

    seed: int = 1
    stars: int = 0
    statistics_stars: int = 50_000
    test_stars: int = 10_000
    label_weight: float = 8.0

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Simulation:
        """Raises JobError for a field that simulations do not have."""
        known = [item.name for item in fields(cls)]
        unknown = sorted(set(content) - set(known))
        if unknown:
            raise JobError(
                "unknown field", wanted=", ".join(known), found=unknown, where="[simulation]"
            )
        return cls(**content)

    def seed_of(self, purpose: str) -> int:
        """A seed for one purpose, independent of those for the others."""
        words = [self.seed, *purpose.encode()]
        return int(np.random.SeedSequence(words).generate_state(1)[0])


def train_bundle(
    job: TrainingJob,
    output: Path,
    *,
    resume: bool = False,
    device: str = "auto",
    progress: Any = None,
) -> Bundle:
    """Train by a job, judge the result on stars it did not see, and write its bundle.

    ``output`` gets checkpoints and the learning curve, and ``output/<bundle>`` the bundle:
    bundle.toml, weights.safetensors, CARD.md, learning_curve.csv, scores.json.

    Raises
    ------
    JobError
        A field of the job that is unknown or makes no sense.
    ResumeError
        The folder holds another training, or one that ``resume`` was not given for.
    """
    simulation = Simulation.from_dict(job.simulation)
    settings = Settings.from_dict(job.training)
    vocabulary = load_vocabulary()
    shape = Shape.from_dict({"tokens": len(vocabulary), **job.network})
    if (output / job.bundle).exists():
        raise BundleError("the folder holds a bundle already", where=output / job.bundle)
    stars = _Stars(Simulator(_device(device)), vocabulary, simulation)
    standardisation, domain = _statistics(stars)
    test = stars.table("test", simulation.test_stars)
    trained = train(
        shape,
        standardisation,
        stars.draw(),
        settings,
        output,
        weights=_weights(vocabulary, simulation.label_weight),
        labels=stars.labels,
        validation=(test.values, test.errors),
        device=_device(device),
        resume=resume,
        progress=None if progress is None else _report(progress, settings.batch),
    )
    facts = {
        "data": f"simulated giants, catalogproc {__version__}",
        "credit": CREDIT,
        "job": job.name,
        "job_hash": job.hash,
        "seed": settings.seed,
        "simulation_seed": simulation.seed,
        "steps": settings.steps,
        "stars": simulation.stars or settings.steps * settings.batch,
        "final_loss": float(trained.history[-1]["loss"]),
    }
    bundle = _write(job, output, trained.network, vocabulary, standardisation, domain, facts, test)
    shutil.copy(output / CURVE, bundle.path / CURVE)
    write_card(bundle, job, test)
    return load_bundle(bundle.path)


def write_card(bundle: Bundle, job: TrainingJob, test: Table) -> dict[str, list[Score]]:
    """Judge a bundle on test stars and write CARD.md and scores.json into its folder."""
    vocabulary = bundle.vocabulary
    inputs = test.values.copy()
    inputs[:, vocabulary.columns(vocabulary.named("label"))] = np.nan
    scores = evaluate(Predictor(bundle), inputs, test.values, ATMOSPHERE_AND_AGE, "bcdef")
    as_json = {name: [vars(row) for row in rows] for name, rows in scores.items()}
    (bundle.path / "scores.json").write_text(json.dumps(as_json, indent=1) + "\n")
    (bundle.path / "CARD.md").write_text(_card(bundle, job, scores), encoding="utf-8")
    return scores


class _Stars:
    """Simulated stars as tokens, each purpose with its own."""

    def __init__(
        self, simulator: Simulator, vocabulary: Vocabulary, simulation: Simulation
    ) -> None:
        self._simulator, self._vocabulary, self.simulation = simulator, vocabulary, simulation

    def table(self, purpose: str, n: int) -> Table:
        stars = self._simulator.draw(n, self.simulation.seed_of(purpose))
        values, errors = (x.cpu().numpy() for x in stars.tokens(self._vocabulary))
        return Table(np.arange(n), values, errors)

    def draw(self) -> Draw:
        """New stars for every step, or from a table drawn once."""
        if self.simulation.stars:
            return self.table("training", self.simulation.stars).draw
        return lambda seed, n: self._simulator.draw(n, seed).tokens(self._vocabulary)

    @property
    def labels(self) -> NDArray[np.bool_]:
        return np.array([token.kind == "label" for token in self._vocabulary.tokens])


def _statistics(stars: _Stars) -> tuple[Standardisation, Domain]:
    table = stars.table("statistics", stars.simulation.statistics_stars)
    return describe(table.values, stars.labels)


def _weights(vocabulary: Vocabulary, label_weight: float) -> NDArray[np.float64]:
    """How likely each token is to be asked: labels more often than what is measured."""
    return np.array([label_weight if t.kind == "label" else 1.0 for t in vocabulary.tokens])


def _device(name: str) -> str:
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return name


def _report(progress: Any, batch: int) -> Callable[[int, int, Mapping[str, float]], None]:
    def report(step: int, steps: int, metrics: Mapping[str, float]) -> None:
        progress(step, steps, f"loss {metrics['loss']:.3f}")

    return report


def _write(
    job: TrainingJob,
    output: Path,
    network: Transformer,
    vocabulary: Vocabulary,
    standardisation: Standardisation,
    domain: Domain,
    facts: Mapping[str, Any],
    test: Table,
) -> Bundle:
    check = test.values[:CHECK_STARS].astype(np.float64)
    check[:, vocabulary.columns(vocabulary.named("label"))] = np.nan
    return write_bundle(
        output / job.bundle,
        name=job.bundle,
        description=job.description,
        network=network.to("cpu"),
        vocabulary=vocabulary,
        standardisation=standardisation,
        domain=domain,
        training=facts,
        check_values=check,
        check_labels=CHECKED,
    )


def _card(bundle: Bundle, job: TrainingJob, scores: dict[str, list[Score]]) -> str:
    training = bundle.training
    return f"""# {bundle.name}

{bundle.description}

| | |
|---|---|
| trained on | {training["data"]}: {training["stars"]:,} stars, {training["steps"]:,} steps |
| made of | {training["credit"]} |
| by | `catalogproc train --job {job.name} --output DIR` (job {job.hash[:8]}), {date.today()} |
| network | {bundle.shape.to_dict()} |
| hash | {bundle.hash} |

## What it may be used for, and what not

It was trained on simulated stars alone and has seen no real label. Its answers for real stars
carry whatever separates the simulation from the sky: model atmospheres, isochrones, the
instrument. Its errors are the network's own, not calibrated on real stars. It knows giants
(0 < logg < 3.8, 3500 K < Teff < 8000 K); what it says of other stars means nothing. Nothing
should be published from it.

## How it does on {scores["b"][0].stars:,} simulated giants that it did not see

Scatter is 1.4826 times the median absolute deviation of predicted minus true, in the label's
unit (K, dex, dex, solar masses, dex); bias its median; z = (predicted - true) / sigma.

{markdown(scores)}
"""
