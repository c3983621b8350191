"""What a training learns from: simulated stars, or real ones of a dataset's folder.

Either becomes a :class:`Lesson`, all that the recipe needs to know of its stars.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from catalogproc import __version__
from catalogproc.datasets.dataset import dataset_facts, load_dataset
from catalogproc.datasets.holdout import Held, real_held, simulated_held
from catalogproc.datasets.star_table import Draw, Table, describe, mixture
from catalogproc.errors import JobError
from catalogproc.job import TrainingJob
from catalogproc.network.bundle import Bundle, Domain, Standardisation
from catalogproc.simulation.simulator import Simulator
from catalogproc.training.options import Options
from catalogproc.training.real_data import RealRows, real_rows
from catalogproc.training.vocabulary_extension import extended_scales, extended_vocabulary
from catalogproc.vocabulary import Vocabulary, load_vocabulary

CREDIT = (
    "PARSEC isochrones (Bressan et al. 2012), ATLAS9 atmospheres (Castelli & Kurucz 2004), "
    "the Gaia DR3 instrument and errors (ESA/Gaia/DPAC)"
)

SIMULATED = """\
It was trained on simulated stars alone and has seen no real label. Its answers for real stars
carry whatever separates the simulation from the sky: model atmospheres, isochrones, the
instrument. Its errors are the network's own, not calibrated on real stars. It knows giants
(0 < logg < 3.8, 3500 K < Teff < 8000 K); what it says of other stars means nothing. Nothing
should be published from it."""

MIXED = """\
Its labels are those of simulated stars; of real ones it has seen spectra without labels, and the
photometry of red giants with asteroseismic masses, as said above. Its answers for real stars
carry whatever separates the simulation from the sky: model atmospheres, isochrones, the
instrument. Its errors hold for simulated stars (below), and are not calibrated on real ones. It
knows giants (0 < logg < 3.8, 3500 K < Teff < 8000 K); what it says of other stars means nothing,
and the catalog flags them. Use it to find giants, to rank them and to compare them with each
other; before an absolute scale of masses or ages is published from it, hold it against labels of
your own."""

REAL = """\
It was trained on real stars and answers as their labels do: APOGEE's scale of Teff, log g and
[M/H], DistMass's masses and ages. DistMass's ages are MIST isochrones read at mass and [M/H] for
giants (log g < 3.5), and its masses mean nothing for [M/H] < -0.5: nor do those of this model,
and the catalog flags such stars. What it says of stars unlike those it was trained on means
nothing; the catalog flags these too."""


@dataclass(frozen=True)
class Simulation(Options):
    """The simulated stars of a training, table ``simulation`` of its job.

    seed
        Of all stars; training, statistics and test stars follow from it, all different.
    stars
        How many stars are drawn once and trained on; 0 draws new ones every step.
    statistics_stars, test_stars, calibration_stars
        How many are drawn to fit the standardisation, to judge the model, and to say how far
        its answers may be off.
    label_weight
        How often a label is asked for one time that a coefficient or a colour is.
    """

    TABLE = "simulation"

    seed: int = 1
    stars: int = 0
    statistics_stars: int = 50_000
    test_stars: int = 10_000
    calibration_stars: int = 40_000
    label_weight: float = 8.0

    def seed_of(self, purpose: str) -> int:
        """A seed for one purpose, independent of those for the others."""
        words = [self.seed, *purpose.encode()]
        return int(np.random.SeedSequence(words).generate_state(1)[0])


@dataclass(frozen=True)
class RealStars(Options):
    """The stars of a dataset in a training, table ``data`` of its job.

    seed, validation
        Which stars of the training part, and what share of them, are not trained on but say
        when to stop: by source_id.
    label_weight
        How often a label is asked for one time that a coefficient or a colour is.
    mask_irrelevant
        Leave out coefficients past the number of relevant bases, as a run does.
    replay, replay_stars
        Share of each step's stars that are simulated instead, out of so many: where the model
        to go on from knows tokens that the dataset has none of, they keep these in its mind.
    """

    TABLE = "data"

    seed: int = 1
    validation: float = 0.1
    label_weight: float = 1.0
    mask_irrelevant: bool = True
    replay: float = 0.0
    replay_stars: int = 50_000

    def __post_init__(self) -> None:
        for name, limit in (("validation", 0.0), ("replay", -1e-9)):
            if not limit < getattr(self, name) < 1:
                raise JobError("a share", wanted="from 0 to below 1", found=getattr(self, name),
                               where=f"[data], {name}")  # fmt: skip


@dataclass(frozen=True, eq=False)
class Lesson:
    """The stars of a training.

    Attributes
    ----------
    stars
        How many there are; 0 where there are always new ones.
    draw
        Gives those of a step.
    weights
        (V,), how likely each token is asked beside the others.
    validation, test
        Stars that are not trained on: those that say when to stop, those that judge.
    facts
        What the bundle says of them, its fingerprint among it.
    use
        What a model that learned it may be used for, for its card.
    held
        Makes stars that are not trained on either: they say how far answers may be off.
    trained_on
        Identifiers of the real stars that are trained on; None where there are none.
    """

    vocabulary: Vocabulary
    stars: int
    draw: Draw
    weights: NDArray[np.float64]
    standardisation: Standardisation
    domain: Domain
    validation: Table
    test: Table
    facts: Mapping[str, Any]
    use: str
    held: Callable[[], Held]
    trained_on: NDArray[np.int64] | None = None

    @property
    def labels(self) -> NDArray[np.bool_]:
        """Which tokens (V,) are labels."""
        return _labels(self.vocabulary)


def simulated(
    job: TrainingJob, base: Bundle | None, device: str, spectra: Sequence[Path] = ()
) -> Lesson:
    """Simulated giants, by the job's table ``simulation``, and the real stars of ``real``.

    ``spectra`` are the files of real spectra that the job asks for. Raises JobError where it
    asks for some and there are none, or the other way round.
    """
    simulation = Simulation.from_dict(job.simulation)
    simulator = Simulator(device)
    vocabulary = _vocabulary(base)
    beside = real_rows(RealRows.from_dict(job.real), spectra, vocabulary)

    def table(purpose: str, n: int) -> Table:
        return _simulated(simulator, vocabulary, n, simulation.seed_of(purpose))

    draw: Draw = (
        table("training", simulation.stars).draw
        if simulation.stars
        else lambda seed, n: simulator.draw(n, seed).tokens(vocabulary)
    )
    if beside.parts:
        left = 1.0 - sum(share for _, share in beside.parts)
        draw = mixture([(draw, left), *beside.parts])
    statistics = table("statistics", simulation.statistics_stars)
    test = table("test", simulation.test_stars)
    scales = _scales(statistics, vocabulary, base)
    facts = {
        "data": f"simulated giants, catalogproc {__version__}",
        "credit": CREDIT,
        "simulation_seed": simulation.seed,
        **beside.facts,
    }
    weights = _weights(vocabulary, simulation.label_weight)

    def held() -> Held:
        seed = simulation.seed_of("calibration")
        return simulated_held(simulator, vocabulary, simulation.calibration_stars, seed)

    return Lesson(
        vocabulary, simulation.stars, draw, weights, *scales, test, test, facts,
        MIXED if beside.parts else SIMULATED, held, beside.ids,
    )  # fmt: skip


def real(job: TrainingJob, folder: Path, base: Bundle | None, device: str) -> Lesson:
    """The stars of a dataset, by the job's table ``data``.

    Raises
    ------
    InputError
        No dataset, or one that was changed.
    JobError
        The model to go on from would forget tokens, which the dataset has none of.
    """
    options, about = RealStars.from_dict(job.data), dataset_facts(folder)
    vocabulary = _vocabulary(base)
    stars, test = load_dataset(folder, vocabulary, mask_irrelevant=options.mask_irrelevant)
    training, validation = stars.split(options.validation, options.seed)
    if not len(training.ids) or not len(validation.ids):
        raise JobError(
            "too few stars to train on and to validate with",
            found=f"{len(stars.ids)} rows", where=folder,
        )  # fmt: skip
    facts = {
        "data": f"{about['made from']}, {len(np.unique(training.ids)):,} stars",
        "credit": about["credit"],
        "dataset_sha256": about["sha256"],
        "validation_stars": len(np.unique(validation.ids)),
        "test_stars": len(np.unique(test.ids)),
    }
    draw: Draw = training.draw
    if options.replay:
        simulator = Simulator(device)
        replayed = _simulated(simulator, vocabulary, options.replay_stars, options.seed)
        draw = mixture([(training.draw, 1 - options.replay), (replayed.draw, options.replay)])
        facts["replayed"] = f"{options.replay:.0%} of the stars are simulated; {CREDIT}"
    elif base is not None:
        _refuse_forgetting(base, training)
    scales = _scales(training, vocabulary, base)
    weights = _weights(vocabulary, options.label_weight)
    return Lesson(
        vocabulary, len(training.ids), draw, weights, *scales, validation, test, facts, REAL,
        lambda: real_held(validation, vocabulary, options.seed),
        np.unique(training.ids),
    )  # fmt: skip


def _refuse_forgetting(base: Bundle, training: Table) -> None:
    known = np.isfinite(training.values).any(axis=0)
    lost = [name for name in base.requestable if not known[base.vocabulary.column(name)]]
    if lost:
        raise JobError(
            "the model would forget what these stars do not show",
            found=", ".join(lost),
            todo="set replay in the job's table data, so that simulated stars repeat it",
        )


def _vocabulary(base: Bundle | None) -> Vocabulary:
    shipped = load_vocabulary()
    return shipped if base is None else extended_vocabulary(base.vocabulary, shipped)


def _simulated(simulator: Simulator, vocabulary: Vocabulary, n: int, seed: int) -> Table:
    values, errors = (x.cpu().numpy() for x in simulator.draw(n, seed).tokens(vocabulary))
    return Table(np.arange(n), values, errors)


def _scales(
    table: Table, vocabulary: Vocabulary, base: Bundle | None
) -> tuple[Standardisation, Domain]:
    fitted = describe(table.values, _labels(vocabulary))
    return fitted if base is None else extended_scales(base, *fitted)


def _labels(vocabulary: Vocabulary) -> NDArray[np.bool_]:
    return np.array([token.kind == "label" for token in vocabulary.tokens])


def _weights(vocabulary: Vocabulary, label_weight: float) -> NDArray[np.float64]:
    """How likely each token is to be asked: labels more often than what is measured."""
    return np.where(_labels(vocabulary), label_weight, 1.0)
