"""Whether a model's errors hold, and whether its flags tell giants from others: on simulated stars.

Both go through what a run does, and are told for simulated stars whatever a model is judged on
besides, as only of these everything is known.
"""

from __future__ import annotations

from pathlib import Path

from catalogproc.datasets.holdout import simulated_held
from catalogproc.evaluation import coverage, ood_detection
from catalogproc.io.atomic import write_whole
from catalogproc.job import load_job
from catalogproc.network.bundle import Bundle
from catalogproc.network.predictor import Predictor
from catalogproc.simulation.simulator import Simulator

SEED = 20_261_031
STARS, OF_A_KIND = 40_000, 2_000
QUICK_STARS, QUICK_OF_A_KIND = 8_000, 300
"""Stars whose errors are checked, and of each kind of object; and where it must be quick."""

STRANGERS = "outsiders.md"


def write_trust(bundle: Bundle, folder: Path, quick: bool = False) -> tuple[str, list[Path]]:
    """What to print, and the files: calibration.md, .csv and .png; outsiders.md."""
    stars, kinds = (QUICK_STARS, QUICK_OF_A_KIND) if quick else (STARS, OF_A_KIND)
    held = simulated_held(Simulator(), bundle.vocabulary, stars, SEED)
    errors = coverage.measure(Predictor(bundle), held, load_job("gaia-dr3-giants"))
    others = ood_detection.markdown(ood_detection.outsiders(bundle, kinds, SEED + 1))
    write_whole(folder / STRANGERS, others.encode())
    paths = [*coverage.write_coverage(errors, folder), folder / STRANGERS]
    return f"{coverage.text(errors)}\n\n{others}", paths
