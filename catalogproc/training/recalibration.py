"""Calibrate a finished model again, and measure its training prior again."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from catalogproc.datasets.holdout import simulated_holdout
from catalogproc.errors import BundleError
from catalogproc.io.atomic import write_atomic
from catalogproc.network.bundle import DECLARATION, WEIGHTS, Bundle
from catalogproc.network.bundle_writer import rewrite_bundle
from catalogproc.network.predictor import Predictor
from catalogproc.network.training_prior import PRIOR
from catalogproc.network.uncertainty_calibration import LATENT
from catalogproc.simulation.simulator import CORRECTED, simulator_as_trained
from catalogproc.training.fit_calibration import FEWEST, fit_uncertainties
from catalogproc.training.prior_sample import MOST, prior_sample
from catalogproc.training.training_data import load_training_data
from catalogproc.training.weight_precision import PRECISION_STARS, check_products

if TYPE_CHECKING:
    from catalogproc.datasets.holdout import Holdout
    from catalogproc.network.uncertainty_calibration import UncertaintyCalibration
    from catalogproc.training.config import TrainSpec

CARD = "CARD.md"


def recalibrate(bundle: Bundle, folder: Path, stars: int, seed: int) -> Bundle:
    """Write a copy of a bundle with uncertainties recalibrated on simulated giants.

    They are corrected by real spectra if those of the training were. The weights are unchanged and
    the other files are copied; the card has the new hash.

    Parameters
    ----------
    bundle
        The model.
    folder
        The folder to write.
    stars
        Number of stars to simulate.
    seed
        Their seed; it must differ from those of the training.

    Raises
    ------
    BundleError
        ``folder`` holds a bundle already; too few stars; or the model was trained on real stars,
        whose errors simulated stars cannot calibrate.
    """
    if "dataset_sha256" in bundle.training:
        raise BundleError(
            "a model trained on real stars is calibrated on real stars",
            wanted="a model trained on simulated stars", found=bundle.training["data"],
            where=bundle.name, advice="give the dataset and the job of its training",
        )  # fmt: skip
    _refuse_bundle(folder)
    simulator = simulator_as_trained(bundle.training)
    vocabulary = bundle.vocabulary
    holdout = simulated_holdout(simulator, vocabulary, stars, seed)
    prior = simulated_holdout(simulator, vocabulary, min(stars, MOST), seed + 1, alike=True)
    facts = {"calibration_stars": stars, "calibration_seed": seed}
    return _recalibrated(bundle, folder, (holdout, prior), bundle.calibration, facts)


def recalibrate_real(bundle: Bundle, folder: Path, spec: TrainSpec) -> Bundle:
    """Write a copy of a bundle, recalibrated on the validation stars of its dataset.

    Parameters
    ----------
    bundle
        The model.
    folder
        The folder to write.
    spec
        The job and the dataset of its training.

    Raises
    ------
    BundleError
        ``folder`` holds a bundle already, too few stars, or the dataset is not that of the
        training, so that the model may have seen the stars.
    """
    _refuse_bundle(folder)
    data = load_training_data(spec, bundle, "cpu")
    found, wanted = data.facts.get("dataset_sha256"), bundle.training.get("dataset_sha256")
    if found != wanted:
        raise BundleError(
            "the model was not trained on this dataset", wanted=wanted, found=found,
            where=spec.data,
        )  # fmt: skip
    known = replace(bundle.calibration, teacher_domain=data.teacher_domain)
    facts = {CORRECTED: data.facts[CORRECTED]} if CORRECTED in data.facts else {}
    return _recalibrated(
        bundle, folder, (data.make_holdout(), data.make_prior_stars()), known, facts
    )


def _refuse_bundle(folder: Path) -> None:
    if (folder / DECLARATION).exists():
        raise BundleError("the folder holds a bundle already", where=folder)


def _recalibrated(
    bundle: Bundle,
    folder: Path,
    stars: tuple[Holdout, Holdout],
    known: UncertaintyCalibration,
    facts: Mapping[str, Any],
) -> Bundle:
    """Calibrate on the first of the stars, and take the second for the training prior.

    What is known of the training stars stays.
    """
    holdout, prior = stars
    training = dict(bundle.training) | dict(facts)
    calibration = replace(
        fit_uncertainties(Predictor(bundle), holdout),
        trained_on=known.trained_on,
        teacher_domain=known.teacher_domain,
    )
    if not calibration.by_label:
        found = int(holdout.default_read.sum())
        raise BundleError("too few stars", wanted=f"about {4 * FEWEST:,} or more", found=found)
    dtype = str(bundle.training.get("weights", "float32"))
    copy = rewrite_bundle(
        bundle,
        folder,
        calibration=calibration,
        dtype=dtype,
        training=training,
        prior=prior_sample(Predictor(replace(bundle, calibration=calibration)), prior),
    )
    check = check_products(copy, holdout.inputs.rows(slice(PRECISION_STARS)))
    copy = rewrite_bundle(copy, folder, dtype=dtype, precision_check=check)
    for path in bundle.path.iterdir():
        if path.is_file() and path.name not in (DECLARATION, WEIGHTS, LATENT, PRIOR, CARD):
            shutil.copy(path, folder / path.name)
    if (bundle.path / CARD).is_file():
        card = (bundle.path / CARD).read_text(encoding="utf-8")
        write_atomic(folder / CARD, card.replace(bundle.hash, copy.hash).encode())
    return copy
