"""The distribution of ages, masses or metallicities of a sample, without the training prior.

A histogram of predicted ages is the true distribution smeared by the posteriors and drawn towards
the training prior. Here the fractions f of the sample in bins k of the true value are those that
make the predictions of all its stars most likely:

    sum over cells c of  n_c ln( sum over k of  f_k p(c | k) )

A cell c is a range of predicted value and predicted uncertainty, n_c the number of stars of the
sample in it. p(c | k) is the share of the training prior's stars of bin k whose predictions are in
the cell (schemas/prior.toml): the joint distribution of true and predicted values divided by the
prior of the bin. Dividing each star's posterior by the prior instead needs posteriors that are
exact: one that is off by a per cent moves the fractions by ten.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from catalogproc.contract import load_contract
from catalogproc.errors import BundleError, ContractError, JobError, did_you_mean, plural
from catalogproc.export.where import parse

if TYPE_CHECKING:
    from catalogproc.network.bundle import Bundle

Floats = NDArray[np.float64]

QUANTITIES = {"age": "log_age", "log_age": "log_age", "mass": "mass", "m_h": "m_h"}
"""Labels by quantity; edges of ``age`` are in Gyr."""

VALUE_CELLS, WIDTH_CELLS, PER_WIDTH = 30, (2, 4), 5_000
"""Cells in the predicted value and in its uncertainty, equally full if all bins weigh alike. Those
in the uncertainty are between two numbers, one for so many stars of the prior: with more, too few
of these are in each, and errors are larger than stated."""

SPARSE = 0.02
"""Stars of each bin that are added to each cell: no star of a bin may be impossible."""

DRAWS = 100
"""Draws of the sample's and of the prior's numbers, by which the errors are measured."""

STEPS, CHANGE = 5_000, 1e-7
"""Most steps of the expectation maximisation, and the change of a fraction at which it ends."""

FEWEST = 30
"""Smallest number of stars of the prior in a bin."""


@dataclass(frozen=True, eq=False)
class Population:
    """Fractions of a sample in K bins of a true quantity.

    Attributes
    ----------
    quantity, edges
        The quantity, and the K + 1 edges of the bins, of age in Gyr.
    fractions, errors
        (K,) fractions, and their 68 % errors, from the numbers of stars of the sample and of the
        prior.
    covariance
        (K, K) of the fractions, which are strongly anticorrelated between neighbours.
    prior, histogram
        (K,) fractions of the training prior, and of the sample's predicted values.
    stars, prior_stars
        Numbers of stars used.
    unlike
        Share of the sample in cells that have fewer than five stars of the prior: what is said of
        these rests on nothing.
    """

    quantity: str
    edges: Floats
    fractions: Floats
    errors: Floats
    covariance: Floats
    prior: Floats
    histogram: Floats
    stars: int
    prior_stars: int
    unlike: float

    def lines(self) -> list[str]:
        """Return the result for the user."""
        rows = zip(
            pairwise(self.edges.tolist()), self.fractions, self.errors, self.histogram, self.prior,
            strict=True,
        )  # fmt: skip
        return [
            f"{plural(self.stars, 'star')}, by {plural(self.prior_stars, 'star')} of the training "
            f"prior; {self.unlike:.1%} are unlike these",
            *(
                f"{self.quantity} {low:g} to {high:g}: {f:.3f} +- {e:.3f} "
                f"(predicted values {h:.3f}, prior {p:.3f})"
                for (low, high), f, e, h, p in rows
            ),
        ]


def population(
    stars: Any,
    edges: Sequence[float],
    quantity: str = "age",
    *,
    model: str | Path = "default",
    where: str | None = None,
    seed: int = 0,
) -> Population:
    """Return the fractions of a sample in bins of true age, mass or metallicity.

    The training prior of the model is divided out, so that the result depends on it within a bin
    alone. The sample may be selected in any way that does not depend on the
    predictions of the quantity; what it is selected on, such as log g or the magnitude, is given as
    ``where`` too, so that the prior's stars are selected alike.

    Parameters
    ----------
    stars
        A table of N stars with the columns ``log_age`` and ``e_log_age`` (or of mass or m_h) of a
        catalog: an Arrow table, a pandas DataFrame, or a catalog of
        :func:`catalogproc.open_catalog`.
    edges
        K + 1 edges of the bins, ascending; the sample has no stars outside of them. Of age in Gyr.
    quantity
        ``age``, ``log_age``, ``mass`` or ``m_h``.
    model
        The model that made the catalog: a bundle that has a training prior.
    where
        Condition on the stars and on the prior's, of columns of the contract prior:
        ``"logg < 2.5 and phot_g_mean_mag < 15"``.
    seed
        Seed of the errors' draws.

    Raises
    ------
    BundleError
        The model has no training prior.
    JobError
        Edges that are no bins, an unknown quantity, or bins with too few stars of the prior.
    ContractError
        A column is missing.

    Examples
    --------
    >>> import catalogproc
    >>> stars = catalogproc.open_catalog("output/demo")
    >>> found = catalogproc.population(stars.to_arrow(where="good_mass_age"), [0, 3, 8, 14])
    >>> len(found.fractions), float(found.fractions.sum().round(6))
    (3, 1.0)
    """
    from catalogproc.network.bundle import load_bundle

    if quantity not in QUANTITIES:
        raise JobError("no such quantity", wanted=" | ".join(QUANTITIES), found=quantity,
                       advice=did_you_mean(quantity, QUANTITIES))  # fmt: skip
    bins = np.asarray(edges, dtype=np.float64)
    if bins.ndim != 1 or len(bins) < 3 or not (np.diff(bins) > 0).all():
        raise JobError("these are no bins", wanted="three or more ascending edges", found=edges)
    label, limits = QUANTITIES[quantity], bins
    if quantity == "age":
        with np.errstate(divide="ignore"):
            limits = np.log10(np.maximum(bins, 0.0)) + 9.0
    sample = _selected(_as_arrow(stars), where, label, "the table of stars")
    prior = _selected(_prior_of(load_bundle(model)), where, label, "the training prior")
    problem = _Problem.of(sample, prior, label, limits)
    return problem.solved(quantity, bins, seed)


def _as_arrow(stars: Any) -> pa.Table:
    return stars if isinstance(stars, pa.Table) else pa.table(stars)


def _prior_of(bundle: Bundle) -> pa.Table:
    prior = bundle.prior()
    if prior is None:
        raise BundleError(
            "the model has no training prior",
            wanted="a bundle with prior.parquet", where=bundle.path,
            advice="make it with `catalogproc calibrate`",
        )  # fmt: skip
    return prior


def _selected(table: pa.Table, where: str | None, label: str, name: str) -> pa.Table:
    """Return the rows that a condition selects and that have a prediction."""
    needed = [label, f"e_{label}"]
    condition = None if where is None else parse(where, load_contract("prior"))
    needed += condition.columns if condition is not None else ()
    if missing := [column for column in needed if column not in table.column_names]:
        raise ContractError(f"{name} lacks columns", wanted=needed, found=f"no {missing}")
    if condition is not None:
        table = table.filter(condition.expression)
    known = pc.and_(pc.is_finite(table[label]), pc.is_finite(table[f"e_{label}"]))
    return table.filter(pc.fill_null(known, False))


@dataclass(frozen=True, eq=False)
class _Problem:
    """Numbers of the sample's stars by cell (C,), of the prior's by cell and bin (C, K), and the
    fractions of predicted values in the bins (K,)."""

    sample: Floats
    prior: Floats
    histogram: Floats

    @classmethod
    def of(cls, sample: pa.Table, prior: pa.Table, label: str, limits: Floats) -> _Problem:
        truth = _numbers(prior, f"true_{label}")
        bins = np.searchsorted(limits, truth, side="right") - 1
        count = len(limits) - 1
        inside = np.isfinite(truth) & (bins >= 0) & (bins < count)
        of_bin = np.bincount(bins[inside], minlength=count)
        if of_bin.min() < FEWEST:
            raise JobError(
                "the training prior has too few stars in a bin",
                wanted=f"{FEWEST} or more in each", found=of_bin.tolist(),
                advice="make the bins wider, or the condition weaker",
            )  # fmt: skip
        columns = [_numbers(prior, name)[inside] for name in (label, f"e_{label}")]
        weights = 1.0 / of_bin[bins[inside]]
        widths = int(np.clip(len(weights) // PER_WIDTH, *WIDTH_CELLS))
        edges = [
            _quantiles(values, weights, parts)
            for values, parts in zip(columns, (VALUE_CELLS, widths), strict=True)
        ]
        size = (len(edges[0]) + 1) * (len(edges[1]) + 1)

        def cells(values: Floats, widths: Floats) -> NDArray[np.int64]:
            by_width = np.searchsorted(edges[1], widths) * (len(edges[0]) + 1)
            return np.asarray(by_width + np.searchsorted(edges[0], values))

        joint = np.zeros((size, count))
        np.add.at(joint, (cells(*columns), bins[inside]), 1.0)
        predicted = [_numbers(sample, name) for name in (label, f"e_{label}")]
        numbers = np.bincount(cells(*predicted), minlength=size).astype(np.float64)
        place = np.clip(np.searchsorted(limits, predicted[0], side="right") - 1, 0, count - 1)
        histogram = np.bincount(place, minlength=count) / max(1, len(place))
        return cls(numbers, joint, histogram)

    def solved(self, quantity: str, edges: Floats, seed: int) -> Population:
        if not self.sample.sum():
            raise JobError("no star with a prediction is left", wanted="one or more", found=0)
        random = np.random.default_rng(seed)
        fractions = _maximised(self.sample, _shares(self.prior + SPARSE))
        draws = np.array([
            _maximised(
                random.poisson(self.sample).astype(np.float64),
                _shares(random.gamma(self.prior + SPARSE)),
            )
            for _ in range(DRAWS)
        ])  # fmt: skip
        covariance = np.cov(draws.T)
        few = self.prior.sum(axis=1) < 5
        return Population(
            quantity=quantity,
            edges=edges,
            fractions=fractions,
            errors=np.sqrt(np.diag(covariance)),
            covariance=covariance,
            prior=self.prior.sum(axis=0) / self.prior.sum(),
            histogram=self.histogram,
            stars=int(self.sample.sum()),
            prior_stars=int(self.prior.sum()),
            unlike=float(self.sample[few].sum() / self.sample.sum()),
        )


def _numbers(table: pa.Table, name: str) -> Floats:
    return np.asarray(table[name].to_numpy(), dtype=np.float64)


def _quantiles(values: Floats, weights: Floats, parts: int) -> Floats:
    """Return the inner edges of parts of equal weight, without repeated ones."""
    order = np.argsort(values)
    total = np.cumsum(weights[order])
    places = np.searchsorted(total / total[-1], np.arange(1, parts) / parts)
    return np.unique(values[order][places])


def _shares(joint: Floats) -> Floats:
    """Return p(cell | bin) (C, K)."""
    return np.asarray(joint / joint.sum(axis=0))


def _maximised(numbers: Floats, shares: Floats) -> Floats:
    """Return the most likely fractions (K,), by expectation maximisation."""
    fractions = np.full(shares.shape[1], 1.0 / shares.shape[1])
    occupied = numbers > 0
    numbers, shares = numbers[occupied] / numbers.sum(), shares[occupied]
    for _ in range(STEPS):
        found = fractions * (shares.T @ (numbers / (shares @ fractions)))
        if np.abs(found - fractions).max() < CHANGE:
            return np.asarray(found)
        fractions = found
    return fractions
