"""The yardstick: gradient-boosted trees on the same inputs, one regressor a label.

XGBoost (Chen & Guestrin 2016), as Leung & Bovy (2024) and Zhang, Bu et al. (2026) compare
themselves with. It reads what the network reads, absent tokens as missing values, but each
regressor knows one set of inputs and one label, and says nothing of its error.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from catalogproc.errors import JobError

Floats = NDArray[np.floating]


@dataclass(frozen=True)
class TreeSettings:
    """How the trees are grown.

    ``trees`` a label; the rest are XGBoost's ``learning_rate``, ``max_depth``,
    ``min_child_weight``, ``subsample`` and ``colsample_bytree``. ``threads`` 0 is all cores;
    their number changes the last digits of an answer.
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
            raise JobError("a regressor needs trees", wanted="1 or more", found=self.trees)


KEPLER_TREES = TreeSettings(
    trees=2000, rate=0.02, depth=3, child_weight=1.0, columns=1.0, threads=1
)
"""For a table of a thousand stars, where deep trees would learn it by heart."""


@dataclass(frozen=True, eq=False)
class Baseline:
    """Fitted regressors, one a label; answers in the labels' units.

    ``center`` and ``scale`` (K,) of the labels: trees are grown on (y - center) / scale.
    """

    labels: tuple[str, ...]
    columns: NDArray[np.int64]
    center: NDArray[np.float64]
    scale: NDArray[np.float64]
    regressors: tuple[Any, ...] = field(repr=False)

    def predict(self, values: Floats) -> NDArray[np.float32]:
        """Answers (N, K) for dense tokens (N, V); NaN is an absent token."""
        import xgboost

        inputs = xgboost.DMatrix(values[:, self.columns])
        answers = [regressor.predict(inputs) for regressor in self.regressors]
        z = np.stack(answers, axis=1) if answers else np.empty((len(values), 0))
        return np.asarray(z * self.scale + self.center, dtype=np.float32)


def fit_baseline(
    values: Floats,
    truth: Floats,
    labels: Sequence[str],
    columns: NDArray[np.integer],
    settings: TreeSettings,
    progress: Callable[[int, int, str], None] | None = None,
) -> Baseline:
    """Grow one regressor a label.

    Parameters
    ----------
    values
        Dense tokens (N, V) that are given, NaN where absent; ``columns`` of them are read.
    truth
        (N, K): the labels, in their units; a star does not count for a label that it lacks.
    progress
        Told (trees grown, trees in all, label).

    Raises
    ------
    JobError
        No star has some label.
    """
    import xgboost

    center, scale = np.zeros(len(labels)), np.ones(len(labels))
    total, regressors = settings.trees * len(labels), []
    inputs = np.ascontiguousarray(values[:, columns], dtype=np.float32)
    for k, label in enumerate(labels):
        y = truth[:, k].astype(np.float64)
        known = np.isfinite(y)
        if not known.any():
            raise JobError("no star to learn a label from", where=label)
        center[k], scale[k] = np.median(y[known]), max(float(y[known].std()), 1e-12)
        data = xgboost.QuantileDMatrix(
            inputs[known], (y[known] - center[k]) / scale[k], nthread=settings.threads or None
        )
        callbacks = [_callback(progress, k * settings.trees, total, label)] if progress else []
        regressors.append(
            xgboost.train(_parameters(settings), data, settings.trees, callbacks=callbacks)
        )
    return Baseline(tuple(labels), np.asarray(columns), center, scale, tuple(regressors))


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
