"""An experiment of the paper, its outcome, and checks with verdicts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from catalogproc.paper.context import ExperimentContext, Floats, Real

AT_MOST, AT_LEAST = "at most", "at least"
THRESHOLD = "threshold set here"


@dataclass(frozen=True)
class Check:
    """One number of an experiment, and its reference.

    Attributes
    ----------
    name, value, unit
        The number.
    reference, source
        A published number, one of another method, or a threshold; where it is from.
    criterion
        AT_MOST or AT_LEAST the reference; empty where nothing is tested.
    """

    name: str
    value: Real
    unit: str = ""
    reference: Real = float("nan")
    source: str = ""
    criterion: str = ""

    @property
    def passed(self) -> bool | None:
        """The verdict; None where nothing is tested, or a number is unknown."""
        if not self.criterion or not (np.isfinite(self.value) and np.isfinite(self.reference)):
            return None
        sign = 1 if self.criterion == AT_MOST else -1
        return bool(sign * self.value <= sign * self.reference)


def at_most(name: str, value: Real, reference: Real, unit: str = "", source: str = "") -> Check:
    """Return a check that a number is not larger than its reference.

    Parameters
    ----------
    name, value, unit
        The number.
    reference, source
        The reference; a threshold by default.
    """
    return Check(name, float(value), unit, float(reference), source or THRESHOLD, AT_MOST)


def at_least(name: str, value: Real, reference: Real, unit: str = "", source: str = "") -> Check:
    """Return a check that a number is not smaller than its reference.

    Parameters
    ----------
    name, value, unit
        The number.
    reference, source
        The reference; a threshold by default.
    """
    return Check(name, float(value), unit, float(reference), source or THRESHOLD, AT_LEAST)


@dataclass(frozen=True, eq=False)
class Outcome:
    """The result of an experiment.

    Attributes
    ----------
    checks
        Its numbers.
    draw
        Draws the figure on a matplotlib figure.
    curves
        Columns (R,) of one table of what the figure shows, where that is useful.
    stars
        Which stars it is of, with their number; empty for synthetic stars.
    """

    checks: tuple[Check, ...]
    draw: Callable[[Any], None]
    curves: Mapping[str, Floats] = field(default_factory=dict)
    stars: str = ""

    @property
    def passed(self) -> tuple[Check, ...]:
        """Checks that passed."""
        return tuple(check for check in self.checks if check.passed is True)

    @property
    def failed(self) -> tuple[Check, ...]:
        """Checks that failed."""
        return tuple(check for check in self.checks if check.passed is False)


@dataclass(frozen=True)
class Experiment:
    """A figure of Zhang, Bu et al. (2026).

    Attributes
    ----------
    figure, title
        Number and title.
    claim
        What is done, and what the paper found.
    run
        The experiment.
    size
        Size of the figure in inches.
    """

    figure: int
    title: str
    claim: str
    run: Callable[[ExperimentContext], Outcome]
    size: tuple[float, float]


def finite_median(values: Floats) -> float:
    """Return the median of the finite values; NaN where there are none.

    Parameters
    ----------
    values
        Any numbers.
    """
    good = values[np.isfinite(values)]
    return float(np.median(good)) if len(good) else float("nan")


def robust_scatter(values: Floats) -> float:
    """Return 1.4826 times the median absolute deviation of the finite values; NaN without any.

    Parameters
    ----------
    values
        Any numbers.
    """
    good = values[np.isfinite(values)]
    if not len(good):
        return float("nan")
    return float(1.4826 * np.median(np.abs(good - np.median(good))))


def rank_correlation(x: Floats, y: Floats) -> float:
    """Return Spearman's rank correlation of the finite pairs; NaN of fewer than three.

    Parameters
    ----------
    x, y
        Numbers (N,).
    """
    from scipy.stats import spearmanr

    good = np.isfinite(x) & np.isfinite(y)
    return float(spearmanr(x[good], y[good]).statistic) if good.sum() > 2 else float("nan")
