"""The test part of a dataset as a model sees it, and what it finds there.

The model's values, uncertainties and flags are those of the catalog that a run would write
(dataset_catalog.py), from 63 tokens: 30 coefficients a band and three colours.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from catalogproc.datasets.benchmark_stars import GIANT, Benchmark
from catalogproc.datasets.dataset import TEST, dataset_columns, dataset_facts
from catalogproc.datasets.dataset_parts import dataset_part, giants
from catalogproc.datasets.folds import TEST_FOLD
from catalogproc.datasets.probability_scores import ProbabilityScores
from catalogproc.datasets.probability_scores import scores as probability_scores
from catalogproc.datasets.seismic import ATMOSPHERE
from catalogproc.evaluation.benchmark import tree_predictions
from catalogproc.evaluation.dataset_catalog import Question, dataset_catalog
from catalogproc.evaluation.distribution_gain import DistributionGain, distribution_gain
from catalogproc.evaluation.known_populations import KnownPopulation, known_populations
from catalogproc.evaluation.latent_cells import latent_cells
from catalogproc.evaluation.mass_age_selections import EDGES, SelectedStars, selected_stars
from catalogproc.evaluation.metrics import Predictions, select_inputs
from catalogproc.evaluation.panel_scores import MODEL, TREES
from catalogproc.evaluation.quantities import label_of
from catalogproc.evaluation.real_giants_result import (
    CELL,
    GOOD,
    GOOD_TREES,
    WITH_PARALLAX,
    BinCoverage,
    GoodShare,
    OneBandScore,
    QuantityScores,
    TaughtShare,
)
from catalogproc.evaluation.scores import Score, by_decile, score
from catalogproc.evaluation.seismic_scores import (
    SOURCES,
    MethodValues,
    SeismicScore,
    measured,
    of_teacher,
    seismic_scores,
    teacher_values,
)
from catalogproc.evaluation.xgboost_baseline import Trees
from catalogproc.flags import load_flags, load_input_flags
from catalogproc.inference.catalog_columns import LABEL_COLUMNS
from catalogproc.network.bundle import Bundle
from catalogproc.network.predictor import Predictor
from catalogproc.network.teacher_domain import INPUTS as DOMAIN_LABELS
from catalogproc.vocabulary import BANDS

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]
Progress = Callable[[int, int, str], None]

QUANTITIES = ("teff", "logg", "m_h", "alpha_m", "mass", "log_age", "ebv")

BINNED_BY = ("phot_g_mean_mag", "logg", "m_h", "ebv")
"""Columns of the catalog, by which users select."""
CLUMP = "rc_prob"
"""The label that is a probability."""

BIN_STARS = 600
"""Smallest number of stars in a bin: its coverage is uncertain by 1.9 points."""

CELLS, CELL_STARS = 12, 400
"""Largest number of cells of the latent space, and smallest number of stars in one: its coverage is
uncertain by 2.3 points."""

PARALLAX_SN = 10.0
"""Smallest parallax over error of the giants that tell what a parallax as an input gains."""

SCATTER_SEED = 20_261_128
"""Seed of the scatter of true values about the teacher's."""

FAINT = (15.0, 16.0, 17.0, 17.65)
"""Edges in G of the bins of giants that are moved beyond the labelled ones, by added noise."""


@dataclass(frozen=True, eq=False)
class RealTestPart:
    """N stars of a test part, and their catalogs.

    ``plain`` is without the parallax, ``faint`` with noise added, and ``of_band`` from the
    coefficients of one band. ``giant``, ``seen`` and ``spectrum`` (N,) say which are evaluated as
    giants, which the model may have been trained on, and which have a spectrum.
    """

    folder: Path
    stars: Benchmark
    plain: pa.Table
    with_parallax: pa.Table
    faint: pa.Table
    of_band: Mapping[str, pa.Table]
    giant: Mask
    seen: Mask
    spectrum: Mask

    @classmethod
    def read(
        cls, bundle: Bundle, folder: Path, device: str, begins: Callable[[str], None]
    ) -> RealTestPart:
        """Predict the stars; ``begins`` is called with the name of each part of the work."""
        stars = dataset_part(folder, TEST, bundle.vocabulary)
        path = folder / f"{TEST}.parquet"
        begins("catalog")
        plain = dataset_catalog(bundle, path, Question(), device)
        begins("catalog with parallaxes")
        with_parallax = dataset_catalog(bundle, path, Question(parallax=True), device)
        begins("catalog of fainter stars")
        faint = dataset_catalog(bundle, path, Question(faint=(FAINT[0], FAINT[-1])), device)
        begins("catalogs of one band")
        of_band = {band: dataset_catalog(bundle, path, Question(only=band), device)
                   for band in BANDS}  # fmt: skip
        seen = bundle.calibration.in_training(stars.ids) | _of_other_folds(bundle, folder)
        giant = np.isin(stars.ids, giants(stars).ids)
        coefficients = [t.number - 1 for t in bundle.vocabulary.tokens if t.kind == "coefficient"]
        spectrum = np.asarray(np.isfinite(stars.values[:, coefficients]).any(axis=1))
        return cls(
            folder, stars, plain, with_parallax, faint, of_band, giant & ~seen, seen, spectrum
        )

    @property
    def unseen(self) -> Mask:
        """Stars with a spectrum that the model was not trained on (N,)."""
        return self.spectrum & ~self.seen

    def trees(self, training: Benchmark, trees: Trees, report: Progress) -> Predictions:
        """Return the predictions (N, K) of XGBoost, NaN for stars that are no giants."""
        read = [
            select_inputs("b", some.tree_inputs, some.labels, some.vocabulary).values
            for some in (training, self.stars.rows(self.giant))
        ]
        known = np.asarray(np.isfinite(training.truth).any(axis=0))
        column = training.vocabulary.column
        names = [name for name in QUANTITIES if known[column(label_of(name))]]
        found = tree_predictions(replace(training, values=read[0]), read[1], names, trees, report)
        mean = np.full((len(self.stars), len(found.labels)), np.nan, dtype=np.float32)
        mean[self.giant] = found.mean
        return Predictions(found.labels, mean)

    def predicted(self, catalog: pa.Table, label: str) -> tuple[Floats, Floats]:
        """Return a label (N,) and its uncertainty in a catalog, NaN where it is not predicted."""
        name = LABEL_COLUMNS[label]
        value, error = (
            np.asarray(catalog[column].to_numpy(), dtype=np.float64)
            for column in (name, f"e_{name}")
        )
        return value, error

    def truth(self, label: str, rows: Mask) -> tuple[Floats, Floats]:
        """Return true values (N,) and their errors, NaN outside of ``rows``."""
        column = self.stars.vocabulary.column(label)
        true = np.where(rows, self.stars.truth[:, column], np.nan)
        return true.astype(np.float64), self.stars.truth_errors[:, column].astype(np.float64)

    def scores(self, by_trees: Predictions) -> Iterator[QuantityScores]:
        """Yield the scores of the giants."""
        for quantity in self.quantities:
            label = label_of(quantity)
            true, error = self.truth(label, self.giant)
            values: dict[str, tuple[Floats, Floats | None]] = {
                MODEL: self.predicted(self.plain, label)
            }
            good = self.plain["good_params"].to_numpy()
            values[GOOD] = (np.where(good, values[MODEL][0], np.nan), values[MODEL][1])
            if label in by_trees.labels:
                mean = by_trees.mean[:, by_trees.labels.index(label)].astype(np.float64)
                values[TREES] = (mean, None)
                values[GOOD_TREES] = (np.where(good, mean, np.nan), None)
            scores = {
                method: score(quantity, mean, true, sigma, error)
                for method, (mean, sigma) in values.items()
            }
            deciles = {
                method: by_decile(quantity, mean, true, sigma, error)
                for method, (mean, sigma) in values.items()
                if method in (MODEL, TREES)
            }
            if scores[MODEL].stars:
                yield QuantityScores(quantity, scores, deciles)

    def bins(self) -> Iterator[BinCoverage]:
        """Yield the coverage in bins of equally many giants."""
        for column in BINNED_BY:
            x = np.asarray(self.plain[column].to_numpy(), dtype=np.float64)
            for quantity in self.quantities:
                label = label_of(quantity)
                true, _ = self.truth(label, self.giant & np.isfinite(x))
                known = np.isfinite(true) & np.isfinite(self.predicted(self.plain, label)[0])
                count = int(known.sum()) // BIN_STARS
                if count:
                    edges = np.quantile(x[known], np.linspace(0, 1, count + 1))
                    yield from self._in_bins(self.plain, quantity, column, edges)

    def in_cells(self, predictor: Predictor) -> Iterator[BinCoverage]:
        """Yield the coverage in cells of the latent space of equally many giants."""
        rows = np.flatnonzero(self.giant & self.spectrum)
        count = min(CELLS, len(rows) // CELL_STARS)
        if not count:
            return
        cells = np.full(len(self.stars), -1)
        cells[rows] = latent_cells(predictor, self.stars.rows(rows).inputs, count)
        for quantity in self.quantities:
            for number in range(count):
                found = self._score(self.plain, quantity, cells == number)
                yield BinCoverage(quantity, CELL, number + 1, count, found)

    def distribution_gains(self, predictor: Predictor) -> Iterator[DistributionGain]:
        """Yield what mixtures tell more than Gaussians about the giants' masses and ages."""
        some = self.stars.rows(np.flatnonzero(self.giant))
        inputs = select_inputs("b", some.inputs, some.labels, some.vocabulary)
        labels = [name for name in SOURCES if name in self.quantities]
        for label, mixture in predictor.predict(inputs, labels).mixtures.items():
            error = np.where(of_teacher(self.folder, label), 0.0, self.truth(label, self.giant)[1])
            true = self._scattered(label)
            yield distribution_gain(label, mixture, true[self.giant], error[self.giant])

    def faint_bins(self) -> Iterator[BinCoverage]:
        """Yield the coverage of giants with added noise, in bins of G."""
        for quantity in self.quantities:
            yield from self._in_bins(self.faint, quantity, BINNED_BY[0], np.array(FAINT))

    def one_band(self) -> Iterator[OneBandScore]:
        """Yield the scores of the giants by one band and the colours."""
        for band, catalog in self.of_band.items():
            for quantity in self.quantities:
                yield OneBandScore(band, quantity, self._score(catalog, quantity))

    def selected(self) -> Iterator[SelectedStars]:
        """Yield the errors of mass and log age of selected giants, along the true values."""
        for label in (name for name in EDGES if name in self.quantities):
            yield from selected_stars(label, self.plain, self._scattered(label))

    def populations(self, bundle: Bundle) -> tuple[KnownPopulation, ...]:
        """Return the age distributions of samples of the giants, found and true."""
        if "log_age" not in self.quantities:
            return ()
        return known_populations(self.plain, self._scattered("log_age"), bundle)

    def red_clump(self) -> dict[str, ProbabilityScores]:
        """Return the scores of ``rc_prob``, by what the true stage of the giants is from."""
        if CLUMP not in self.stars.vocabulary:
            return {}
        probability = np.asarray(self.plain[CLUMP].to_numpy(), dtype=np.float64)
        true, _ = self.truth(CLUMP, self.giant)
        known = np.isfinite(true) & np.isfinite(probability)
        by_source = {
            "asteroseismology": measured(self.folder, CLUMP),
            "trees on APOGEE's labels": of_teacher(self.folder, CLUMP),
        }
        return {
            source: probability_scores((true[rows] > 0.5).astype(np.float64), probability[rows])
            for source, rows in ((name, known & which) for name, which in by_source.items())
            if rows.any()
        }

    def _scattered(self, label: str) -> Floats:
        """Return true masses or log ages (N,); the teacher's are drawn within their scatter."""
        true, error = self.truth(label, self.giant)
        error = np.where(of_teacher(self.folder, label), error, 0.0)
        noise = np.random.default_rng(SCATTER_SEED).standard_normal(len(true))
        return true + error * noise

    def taught(self, bundle: Bundle) -> TaughtShare | None:
        """Return how many giants are in the teacher's domain, by predicted and by true labels."""
        domain = bundle.calibration.teacher_domain
        if domain is None:
            return None
        true = np.stack([self.truth(name, self.giant)[0] for name in DOMAIN_LABELS], axis=1)
        known = np.isfinite(true).all(axis=1)
        bit = load_input_flags().mask("TEACHER_DOMAIN")
        flagged = (self.plain["input_flags"].to_numpy()[known] & bit) != 0
        same = flagged == domain.covers(true[known])
        return TaughtShare(int(known.sum()), int(flagged.sum()), int(same.sum()))

    @property
    def quantities(self) -> tuple[str, ...]:
        """Those of QUANTITIES that the vocabulary has."""
        return tuple(name for name in QUANTITIES if label_of(name) in self.stars.vocabulary)

    def _in_bins(
        self, catalog: pa.Table, quantity: str, column: str, edges: Floats
    ) -> Iterator[BinCoverage]:
        """Yield the coverage of the giants in bins; the last one has its upper edge."""
        x = np.asarray(catalog[column].to_numpy(), dtype=np.float64)
        place = np.searchsorted(edges, x, side="right") - 1
        place[x == edges[-1]] = len(edges) - 2
        for number, (low, high) in enumerate(pairwise(edges)):
            found = self._score(catalog, quantity, place == number)
            yield BinCoverage(quantity, column, float(low), float(high), found)

    def _score(self, catalog: pa.Table, quantity: str, rows: Mask | bool = True) -> Score:
        """Return the score of a quantity in a catalog, of some of the giants."""
        label = label_of(quantity)
        true, error = self.truth(label, self.giant & rows)
        mean, sigma = self.predicted(catalog, label)
        return score(quantity, mean, true, sigma, error)

    def good(self) -> Iterator[GoodShare]:
        """Yield how many stars pass good_params."""
        giant, not_giant = self.stars.extra[GIANT] > 0, load_flags().mask("NOT_GIANT")
        known = np.isfinite(self.stars.extra["parallax_over_error"])
        for kind, of_kind in (("giants", giant), ("other stars", ~giant)):
            of_kind = of_kind & self.unseen
            for words, catalog, rows in (
                ("without parallax", self.plain, of_kind),
                ("with a parallax, which is read", self.with_parallax, of_kind & known),
                ("the same stars without it", self.plain, of_kind & known),
            ):
                good = catalog["good_params"].to_numpy()[rows]
                flagged = (catalog["quality_flags"].to_numpy()[rows] & not_giant) != 0
                yield GoodShare(
                    f"{kind}, {words}", len(good), int(good.sum()), int((good & ~flagged).sum()),
                    kind == "giants",
                )  # fmt: skip

    def parallax_gain(self) -> dict[str, Score]:
        """Return the scores of log g without and with the parallax, of the same giants."""
        near = self.stars.extra["parallax_over_error"] > PARALLAX_SN
        return {
            method: self._score(catalog, "logg", near)
            for method, catalog in ((MODEL, self.plain), (WITH_PARALLAX, self.with_parallax))
        }

    def seismic(self, label: str, by_trees: Predictions) -> list[SeismicScore]:
        """Return the scores of all methods for stars with seismic values."""
        rows = measured(self.folder, label) & self.unseen
        true, error = self.truth(label, rows)
        column = self.stars.vocabulary.columns
        values = [
            MethodValues(MODEL, *self.predicted(self.plain, label)),
            MethodValues(WITH_PARALLAX, *self.predicted(self.with_parallax, label)),
        ]
        if label in by_trees.labels:
            k = by_trees.labels.index(label)
            values.append(MethodValues(TREES, by_trees.mean[:, k].astype(np.float64)))
        if set(ATMOSPHERE) <= set(self.stars.vocabulary.names):
            atmosphere = self.stars.truth[:, column(ATMOSPHERE)].astype(np.float64)
            teacher = teacher_values(self.folder, label, atmosphere)
            covered = np.isfinite(teacher.mean)
            values += [
                teacher,
                MethodValues(
                    f"{MODEL}, stars that the teacher covers",
                    np.where(covered, values[0].mean, np.nan),
                    values[0].sigma,
                ),
            ]
        return seismic_scores(label, values, true, error)


def _of_other_folds(bundle: Bundle, folder: Path) -> Mask:
    """Which test stars (N,) are of training folds, while another dataset trained the model.

    A dataset may have all seismic stars in its test part. A model that was trained on another
    dataset may have been trained, chosen or calibrated with those of them that are of other folds.
    """
    fold = dataset_columns(folder, TEST, ["fold"], repeats=False)["fold"].astype(np.float64)
    same = bundle.training.get("dataset_sha256") == dataset_facts(folder)["sha256"]
    return np.asarray(np.isfinite(fold) & (fold != TEST_FOLD) & (not same))
