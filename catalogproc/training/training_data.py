"""Training data: simulated stars with or without real ones, or the real stars of a dataset."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from catalogproc import __version__
from catalogproc.datasets.dataset import (
    basis_of,
    dataset_facts,
)
from catalogproc.datasets.holdout import Holdout, simulated_holdout
from catalogproc.datasets.star_table import StarSampler, StarTable, mixture
from catalogproc.errors import JobError, plural
from catalogproc.network.bundle import Bundle, Domain
from catalogproc.network.shape import Shape
from catalogproc.network.teacher_domain import TeacherDomain
from catalogproc.release import Release, load_release
from catalogproc.simulation.simulator import CORRECTED, Simulator
from catalogproc.training.config import JobTable, TrainSpec
from catalogproc.training.dataset_stars import DatasetOptions, read_stars
from catalogproc.training.real_data import RealOptions, load_real_stars
from catalogproc.training.teacher_domain_fit import fit_teacher_domain
from catalogproc.training.token_sampling import TrainingStars
from catalogproc.training.trained_tokens import TrainedTokens, label_tokens
from catalogproc.training.vocabulary_extension import extended_vocabulary
from catalogproc.vocabulary import Vocabulary, load_vocabulary

CREDIT = (
    "PARSEC isochrones (Bressan et al. 2012), ATLAS9 atmospheres (Castelli & Kurucz 2004), "
    f"the {load_release().title} instrument and errors (ESA/Gaia/DPAC)"
)

LATENT_STARS = 12_000
"""Simulated stars in the latent statistics of a model of real stars."""

SIMULATED_USE = """\
It was trained on simulated stars only, without any real label. Its predictions for real stars
include every difference between the simulation and reality: model atmospheres, isochrones, the
instrument. Its uncertainties are the network's own and not calibrated on real stars. It is valid
for giants (0 < logg < 3.8, 3500 K < Teff < 8000 K); predictions for other stars are meaningless.
Nothing should be published from it."""

MIXED_USE = """\
Its labels are those of simulated stars; the real stars of its training are spectra without labels
and the photometry of red giants with asteroseismic masses, as listed above. Its predictions for
real stars include every difference between the simulation and reality: model atmospheres,
isochrones, the instrument. Its uncertainties are calibrated on simulated stars (below) and not on
real ones. It is valid for giants (0 < logg < 3.8, 3500 K < Teff < 8000 K); predictions for other
stars are meaningless, and the catalog flags them. Use it to find giants, to rank and to compare
them; before an absolute scale of masses or ages is published from it, validate it against labels
of your own."""

REAL_USE = """\
It was trained on real stars, and its predictions are on the scales of their labels: APOGEE's for
Teff, log g and [M/H], DistMass's for masses and ages. DistMass's ages are MIST isochrones read at
mass and [M/H] for giants (log g < 3.5); its masses are invalid for [M/H] < -0.5, and so are those
of this model: the catalog flags such stars. Predictions for stars unlike the training stars are
meaningless; the catalog flags these too."""


@dataclass(frozen=True)
class SimulationOptions(JobTable):
    """Simulated stars of a training, table ``simulation`` of its job.

    Attributes
    ----------
    seed
        Seed of all stars; training, statistics, test and calibration stars are different ones.
    stars
        Number of stars to simulate once and train on; 0 simulates new ones in every step.
    statistics_stars, test_stars, calibration_stars
        Numbers of stars for the standardisation, the evaluation and the calibration.
    label_weight
        Probability of requesting a label relative to a coefficient or a colour.
    corrected
        Whether simulated spectra are corrected by real ones, and giants spread evenly.
    """

    TABLE = "simulation"

    seed: int = 1
    stars: int = 0
    statistics_stars: int = 50_000
    test_stars: int = 10_000
    calibration_stars: int = 40_000
    label_weight: float = 8.0
    corrected: bool = False

    def seed_of(self, purpose: str) -> int:
        """Return a seed for one purpose, independent of those for others.

        Parameters
        ----------
        purpose
            Any text.
        """
        entropy = [self.seed, *purpose.encode()]
        return int(np.random.SeedSequence(entropy).generate_state(1)[0])


@dataclass(frozen=True, eq=False)
class TrainingData:
    """Everything that a training needs to know of its stars.

    Attributes
    ----------
    vocabulary
        Defines the V tokens.
    shape
        Shape of the network to train.
    stars
        Training and validation stars.
    star_count
        Number of training stars; 0 where every step has new ones.
    domain
        Range of each token.
    test
        Stars that are not trained on, for the evaluation.
    facts
        Facts that the bundle records, with the fingerprint of the data.
    intended_use
        What a model trained on these stars may be used for, for its card.
    make_holdout, make_prior_stars
        Make further stars that are not trained on, for the calibration and for the training prior.
    trained_on
        Sorted identifiers of the real stars that are trained on; None without any.
    teacher_domain
        Where training stars have a mass; None where all stars are simulated, which have one.
    """

    vocabulary: Vocabulary
    shape: Shape
    stars: TrainingStars
    star_count: int
    domain: Domain
    test: StarTable
    facts: Mapping[str, Any]
    intended_use: str
    make_holdout: Callable[[], Holdout]
    make_prior_stars: Callable[[], Holdout]
    trained_on: NDArray[np.int64] | None = None
    teacher_domain: TeacherDomain | None = None

    @property
    def labels(self) -> NDArray[np.bool_]:
        """Which tokens (V,) are labels."""
        return label_tokens(self.vocabulary)


def load_training_data(spec: TrainSpec, base: Bundle | None, device: str) -> TrainingData:
    """Return the training data that a job asks for.

    Parameters
    ----------
    spec
        The job, its dataset and its files of real spectra.
    base
        The model to fine-tune, if any.
    device
        Where stars are simulated.

    Raises
    ------
    InputError
        No dataset, or one that was changed.
    JobError
        The job and the given files disagree; or the base model would forget tokens that the
        dataset lacks.
    """
    if spec.data is None:
        return _simulated_data(spec, base, device)
    return _dataset_data(spec, spec.data, base, device)


def _simulated_data(spec: TrainSpec, base: Bundle | None, device: str) -> TrainingData:
    """Return simulated giants, mixed with the real stars of the job's table ``real``."""
    options = SimulationOptions.from_dict(spec.job.simulation)
    simulator = Simulator(device, options.corrected)
    vocabulary = _vocabulary(base, spec.job.basis, spec.release)
    real = load_real_stars(RealOptions.from_dict(spec.job.real), spec.spectra, vocabulary)

    def table(purpose: str, n: int) -> StarTable:
        return _simulated_table(simulator, vocabulary, n, options.seed_of(purpose))

    sampler: StarSampler = (
        table("training", options.stars).sample
        if options.stars
        else lambda seed, n: simulator.draw(n, seed).tokens(vocabulary)
    )
    if real.samplers:
        simulated_share = 1.0 - sum(share for _, share in real.samplers)
        sampler = mixture([(sampler, simulated_share), *real.samplers])
    test = table("test", options.test_stars)
    statistics = table("statistics", options.statistics_stars)
    tokens = TrainedTokens(spec, base, vocabulary, options.label_weight)
    stars, domain = tokens.stars(sampler, statistics, test)

    def make_holdout() -> Holdout:
        seed = options.seed_of("calibration")
        return simulated_holdout(simulator, vocabulary, options.calibration_stars, seed)

    def make_prior_stars() -> Holdout:
        n, seed = options.calibration_stars, options.seed_of("prior")
        return simulated_holdout(simulator, vocabulary, n, seed, alike=True)

    return TrainingData(
        vocabulary=vocabulary,
        shape=tokens.shape,
        stars=stars,
        star_count=options.stars,
        domain=domain,
        test=test,
        facts={
            "data": f"simulated giants, catalogproc {__version__}",
            "credit": CREDIT,
            "simulation_seed": options.seed,
            CORRECTED: options.corrected,
            **real.facts,
        },
        intended_use=MIXED_USE if real.samplers else SIMULATED_USE,
        make_holdout=make_holdout,
        make_prior_stars=make_prior_stars,
        trained_on=real.ids,
    )


def _dataset_data(spec: TrainSpec, folder: Path, base: Bundle | None, device: str) -> TrainingData:
    """Return the real stars of a dataset, by the job's table ``data``."""
    options, about = DatasetOptions.from_dict(spec.job.data), dataset_facts(folder)
    vocabulary = _vocabulary(base, spec.job.basis or basis_of(about), spec.release)
    stars = read_stars(folder, vocabulary, options, spec.job.augmentation)
    ids = np.unique(stars.training.ids)
    facts = {
        "data": f"{about['made from']}, {plural(len(ids), 'star')}",
        "credit": about["credit"],
        "dataset_sha256": about["sha256"],
        "validation_stars": len(np.unique(stars.validation.ids)),
        "test_stars": len(np.unique(stars.test.ids)),
    }
    sampler, make_holdout = stars.sampler(), stars.holdout
    real = load_real_stars(RealOptions.from_dict(spec.job.real), spec.spectra, vocabulary)
    if real.samplers:
        share = 1.0 - sum(share for _, share in real.samplers)
        sampler = mixture([(sampler, share), *real.samplers])
        facts |= real.facts
    if options.replay:
        simulator = Simulator(device, options.corrected)
        simulated = _simulated_table(simulator, vocabulary, options.replay_stars, options.seed)
        sampler = mixture([(sampler, 1 - options.replay), (simulated.sample, options.replay)])
        facts[CORRECTED] = options.corrected
        facts["replayed"] = f"{options.replay:.0%} of the stars are simulated; {CREDIT}"

        def make_holdout() -> Holdout:
            # Few real stars have a parallax: the latent statistics need simulated ones.
            others = simulated_holdout(simulator, vocabulary, LATENT_STARS, options.seed + 1)
            return stars.holdout().joined(others.latent_only())

    elif base is not None:
        _refuse_forgetting(base, stars.training)
    tokens = TrainedTokens(spec, base, vocabulary, options.label_weight)
    training_stars, domain = tokens.stars(sampler, stars.training, stars.validation)
    return TrainingData(
        vocabulary=vocabulary,
        shape=tokens.shape,
        stars=training_stars,
        star_count=len(stars.training.ids),
        domain=domain,
        test=stars.test,
        facts=facts,
        intended_use=about.get("intended use", REAL_USE),
        make_holdout=make_holdout,
        make_prior_stars=stars.prior_stars,
        trained_on=ids,
        teacher_domain=fit_teacher_domain(stars.training, vocabulary),
    )


def _refuse_forgetting(base: Bundle, training: StarTable) -> None:
    """Raise JobError where the base model predicts tokens that no training star has."""
    known = np.isfinite(training.values).any(axis=0)
    lost = [name for name in base.requestable if not known[base.vocabulary.column(name)]]
    if lost:
        raise JobError(
            "the model would forget tokens that the dataset lacks",
            found=", ".join(lost),
            advice="set replay in the job's table data, so that simulated stars have them",
        )


def _vocabulary(base: Bundle | None, basis: str, release: Release | None) -> Vocabulary:
    """Return the shipped vocabulary, or that of the base model with the new tokens.

    ``basis`` is that of the coefficients; "" for that of the base model, or the archive's. The
    release is that of the spectra; the base model, if there is one, is for it.
    """
    if base is None:
        return load_vocabulary(release=release, basis=basis or "archive")
    own = base.vocabulary
    return extended_vocabulary(own, load_vocabulary(release=base.release, basis=basis or own.basis))


def _simulated_table(simulator: Simulator, vocabulary: Vocabulary, n: int, seed: int) -> StarTable:
    """Return simulated giants as tokens."""
    values, errors = (x.cpu().numpy() for x in simulator.draw(n, seed).tokens(vocabulary))
    return StarTable(np.arange(n), values, errors)
