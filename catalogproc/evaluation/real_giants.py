"""Evaluation of a model on the real giants of a dataset's test part, next to XGBoost.

The model's values, uncertainties and flags are those of the catalog that a run would write
(dataset_catalog.py), from 63 tokens: 30 coefficients a band and three colours. XGBoost is fitted to
the giants of the training part, on the same 63 quantities.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from catalogproc.datasets.test_sets import Simulated, training_stars
from catalogproc.evaluation.panel_scores import TREES
from catalogproc.evaluation.real_giants_result import RealGiants
from catalogproc.evaluation.real_test_part import RealTestPart
from catalogproc.evaluation.seismic_scores import SOURCES
from catalogproc.evaluation.xgboost_baseline import Trees
from catalogproc.network.bundle import Bundle
from catalogproc.network.predictor import Predictor

Progress = Callable[[int, int, str], None]


def evaluate_giants(
    bundle: Bundle, folder: Path, trees: Trees, device: str, progress: Progress | None = None
) -> RealGiants:
    """Evaluate a model on the test part of a dataset that marks giants.

    Parameters
    ----------
    bundle
        The model.
    folder
        The dataset.
    trees
        XGBoost.
    device
        Device of the model.
    progress
        Called with (steps done, all steps, note).
    """
    steps = _Steps(progress)
    part = RealTestPart.read(bundle, folder, device, steps.next)
    steps.next(TREES)
    training = training_stars(folder, Simulated(0, 0), bundle.vocabulary)
    by_trees = part.trees(training, trees, steps.within)
    steps.next("asteroseismology")
    seismic = {label: part.seismic(label, by_trees) for label in SOURCES}
    steps.next("")
    predictor = Predictor(bundle, device)
    return RealGiants(
        model=bundle.name,
        hash=bundle.hash,
        dataset=folder.name,
        stars=len(part.stars),
        giants=int(part.giant.sum()),
        seen=int(part.seen.sum()),
        tree_stars=len(training),
        scores=tuple(part.scores(by_trees)),
        bins=tuple(part.bins()),
        cells=tuple(part.in_cells(predictor)),
        gains=tuple(part.distribution_gains(predictor)),
        faint=tuple(part.faint_bins()),
        one_band=tuple(part.one_band()),
        good=tuple(part.good()),
        selected=tuple(part.selected()),
        taught=part.taught(bundle),
        populations=part.populations(bundle),
        parallax=part.parallax_gain(),
        red_clump=part.red_clump(),
        seismic=seismic,
    )


class _Steps:
    """Progress over the parts of the work, of which the trees are the longest."""

    ENDS = (0, 40, 80, 120, 160, 900, 1000)

    def __init__(self, report: Progress | None) -> None:
        self._report, self._done = report, -1

    def next(self, note: str) -> None:
        """Report that a part begins."""
        self._done += 1
        self._say(self.ENDS[self._done], note)

    def within(self, done: int, total: int, note: str) -> None:
        """Report the progress inside of the part."""
        first, end = self.ENDS[self._done : self._done + 2]
        self._say(first + (end - first) * done // max(total, 1), note)

    def _say(self, done: int, note: str) -> None:
        if self._report is not None:
            self._report(done, self.ENDS[-1], note)
