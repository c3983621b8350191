"""Baseline: gradient-boosted trees on the same inputs, one regressor a label.

XGBoost (Chen & Guestrin 2016) is the baseline of Leung & Bovy (2024) and Zhang, Bu et al. (2026).
It reads the network's tokens, absent ones as missing values. A regressor serves one input set
and one label, and gives no uncertainty.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from catalogproc.errors import JobError
from catalogproc.io.atomic import write_atomic

Floats = NDArray[np.floating]


@dataclass(frozen=True)
class TreeSettings:
    """How the trees are grown.

    Attributes
    ----------
    trees
        Number of trees a label.
    rate, depth, child_weight, rows, columns
        XGBoost's ``learning_rate``, ``max_depth``, ``min_child_weight``, ``subsample`` and
        ``colsample_bytree``.
    seed
        Random seed.
    threads
        0 is all cores; the number changes the last digits of a prediction.
    """

    trees: int = 2000
    rate: float = 0.05
    depth: int = 7
    child_weight: float = 5.0
    rows: float = 0.7
    columns: float = 0.5
    seed: int = 1
    threads: int = 0

    def __post_init__(self) -> None:
        if self.trees < 1:
            raise JobError(
                "a regressor needs at least one tree", wanted="1 or more", found=self.trees
            )


REAL_TREES = TreeSettings(trees=2000, rate=0.03, depth=6)
"""For real giants with APOGEE's labels."""

KEPLER_TREES = TreeSettings(
    trees=2000, rate=0.02, depth=3, child_weight=1.0, columns=1.0, threads=1
)
"""For a table of a thousand stars, which deep trees would overfit."""


@dataclass(frozen=True, eq=False)
class TreeData:
    """Labelled stars to fit regressors to.

    Attributes
    ----------
    values
        Dense tokens (N, V), NaN where absent.
    truth
        Labels (N, K) in their units; a star with NaN is left out for that label.
    labels
        Names of the K labels.
    columns
        Columns of ``values`` that are read (D,).
    """

    values: Floats
    truth: Floats
    labels: Sequence[str]
    columns: NDArray[np.integer]


@dataclass(frozen=True, eq=False)
class Baseline:
    """Fitted regressors, one a label.

    Attributes
    ----------
    labels, columns
        As in :class:`TreeData`.
    center, scale
        Of the labels (K,): trees are grown on (y - center) / scale.
    """

    labels: tuple[str, ...]
    columns: NDArray[np.int64]
    center: NDArray[np.float64]
    scale: NDArray[np.float64]
    regressors: tuple[Any, ...] = field(repr=False)

    def predict(self, values: Floats) -> NDArray[np.float32]:
        """Return the labels (N, K) in their units.

        Parameters
        ----------
        values
            Dense tokens (N, V), NaN where absent.
        """
        import xgboost

        inputs = xgboost.DMatrix(values[:, self.columns])
        predicted = [regressor.predict(inputs) for regressor in self.regressors]
        z = np.stack(predicted, axis=1) if predicted else np.empty((len(values), 0))
        return np.asarray(z * self.scale + self.center, dtype=np.float32)


def fit_baseline(
    data: TreeData,
    settings: TreeSettings,
    progress: Callable[[int, int, str], None] | None = None,
) -> Baseline:
    """Grow one regressor a label.

    Parameters
    ----------
    data
        Stars, their tokens and labels.
    settings
        How the trees are grown.
    progress
        Called with (trees grown, all trees, label).

    Raises
    ------
    JobError
        A label is NaN for every star.
    """
    import xgboost

    size = len(data.labels)
    center, scale = np.zeros(size), np.ones(size)
    total, regressors = settings.trees * size, []
    inputs = np.ascontiguousarray(data.values[:, data.columns], dtype=np.float32)
    for k, label in enumerate(data.labels):
        y = data.truth[:, k].astype(np.float64)
        known = np.isfinite(y)
        if not known.any():
            raise JobError("no star has a label to train on", where=label)
        center[k], scale[k] = np.median(y[known]), max(float(y[known].std()), 1e-12)
        matrix = xgboost.QuantileDMatrix(
            inputs[known], (y[known] - center[k]) / scale[k], nthread=settings.threads or None
        )
        callbacks = [_callback(progress, k * settings.trees, total, label)] if progress else []
        regressors.append(
            xgboost.train(_parameters(settings), matrix, settings.trees, callbacks=callbacks)
        )
    return Baseline(tuple(data.labels), np.asarray(data.columns), center, scale, tuple(regressors))


@dataclass(frozen=True)
class Trees:
    """XGBoost that remembers its predictions.

    Attributes
    ----------
    settings
        How the trees are grown.
    cache
        Folder of predictions: those of the same trees for the same stars are read from it. None
        keeps nothing.
    """

    settings: TreeSettings
    cache: Path | None = None

    @classmethod
    def preset(cls, quick: bool, real: bool, cache: Path | None = None) -> Trees:
        """Return trees for an evaluation.

        Parameters
        ----------
        quick
            Fewer trees.
        real
            Whether the stars are real.
        cache
            Folder of predictions.
        """
        if quick:
            return cls(TreeSettings(trees=200, rate=0.1), cache)
        return cls(REAL_TREES if real else TreeSettings(), cache)

    def predict(
        self,
        data: TreeData,
        inputs: Floats,
        progress: Callable[[int, int, str], None] | None = None,
    ) -> NDArray[np.float32]:
        """Return the labels (N, K) of stars by trees that are fitted to others.

        Parameters
        ----------
        data
            The stars to fit.
        inputs
            Dense tokens (N, V) of the stars to predict.
        progress
            As for :func:`fit_baseline`.

        Raises
        ------
        JobError
            A label is NaN for every star of the fit.
        """
        found = np.empty((len(inputs), len(data.labels)), dtype=np.float32)
        for k, label in enumerate(data.labels):
            one = TreeData(data.values, data.truth[:, [k]], (label,), data.columns)
            path = self._path(one, inputs)
            if path is not None and path.is_file():
                found[:, k] = np.load(path, allow_pickle=False)
                continue
            inner = _shifted(progress, k, len(data.labels)) if progress else None
            found[:, k] = fit_baseline(one, self.settings, inner).predict(inputs)[:, 0]
            if path is not None:
                content = io.BytesIO()
                np.save(content, found[:, k], allow_pickle=False)
                write_atomic(path, content.getvalue())
        return found

    def _path(self, data: TreeData, inputs: Floats) -> Path | None:
        """The file of predictions of one label, named after all that they depend on."""
        if self.cache is None:
            return None
        digest = hashlib.sha256()
        for part in _determinants(data, inputs, self.settings):
            digest.update(part)
        return self.cache / f"{data.labels[0]}-{digest.hexdigest()[:16]}.npy"


def _determinants(data: TreeData, inputs: Floats, settings: TreeSettings) -> Iterator[bytes]:
    """What predictions of trees depend on; the number of threads changes the last digits only."""
    import xgboost

    yield f"{xgboost.__version__} {asdict(settings) | {'threads': 0}}".encode()
    known = np.isfinite(data.truth[:, 0])
    tokens = (part[:, data.columns] for part in (data.values[known], inputs))
    for array in (data.columns.astype(np.int64), data.truth[known], *tokens):
        yield str(array.shape).encode()
        yield np.ascontiguousarray(array).tobytes()


def _shifted(
    progress: Callable[[int, int, str], None], place: int, count: int
) -> Callable[[int, int, str], None]:
    """Return the progress of one fit as a part of ``count`` fits."""
    return lambda done, total, note: progress(place * total + done, count * total, note)


def _parameters(settings: TreeSettings) -> dict[str, Any]:
    return {
        "objective": "reg:squarederror",
        "tree_method": "hist",
        "learning_rate": settings.rate,
        "max_depth": settings.depth,
        "min_child_weight": settings.child_weight,
        "subsample": settings.rows,
        "colsample_bytree": settings.columns,
        "seed": settings.seed,
        "nthread": settings.threads,
        "base_score": 0.0,
        "verbosity": 0,
    }


def _callback(progress: Callable[[int, int, str], None], done: int, total: int, label: str) -> Any:
    import xgboost

    class Report(xgboost.callback.TrainingCallback):
        def after_iteration(self, model: Any, epoch: int, evals_log: Any) -> bool:
            progress(done + epoch + 1, total, f"trees for {label}")
            return False

    return Report()
