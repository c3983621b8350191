"""Fit the bridge of a release (bridge.py) to stars that are in both releases.

The map is a ridge regression of canonical coefficients on the other release's coefficients, both
over the flux, with weights by the noise. Pairs are held out in five parts: they decide on the
ridge and on terms of colour and brightness, and give the error floor.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from catalogproc.errors import ReleaseError, plural
from catalogproc.features import canonical, canonical_signal
from catalogproc.features.bridge import CLIP, TERMS, BridgeMap, error_level, term_values
from catalogproc.features.canonical_tables import columns, measured
from catalogproc.vocabulary import BANDS

Float = NDArray[np.float64]

FEWEST = 200
"""Fewer pairs do not determine a map."""
PARTS = 5
"""Number of parts in which pairs are held out."""
RIDGES = (1.0, 10.0, 100.0, 1000.0)
"""In units of the noise of a typical pair. A large one follows less of the noise."""
TERM_RIDGES = (100.0, 1000.0, 10000.0)
NEAR = 1.1
"""The smallest ridge is taken for which the residuals are within this factor of the best."""
GAIN = 0.99
"""A term is kept where it brings the residuals of held-out pairs below this share."""
OUTLIER = 5.0
"""Pairs are left out whose squared residuals are so many times the median: variables, say."""
BRIGHTEST = 0.3
"""Weights do not grow below this share of the median noise, so that no few stars decide alone."""
SHORT = 12
"""Stars with a signal shorter than this, both bands together, have the flag FEW_TOKENS."""
LEAST = np.linspace(0.2, 1.0, 33)
"""Candidates for the smallest scatter of noise over its errors."""
NEIGHBOURS = 21
"""Smallest number of stars of the same errors over the flux."""


@dataclass(frozen=True)
class Pairs:
    """N stars in both releases.

    Attributes
    ----------
    coefficients, errors
        By band: of the other release (N, m), electrons per second.
    values, value_errors
        By band: canonical coefficients and their errors (N, n), by the release that is known.
    """

    coefficients: Mapping[str, Float]
    errors: Mapping[str, Float]
    values: Mapping[str, Float]
    value_errors: Mapping[str, Float]

    def __len__(self) -> int:
        return len(self.values["bp"])

    def rows(self, which: NDArray[np.bool_] | slice) -> Pairs:
        """Return some of the pairs.

        Parameters
        ----------
        which
            Mask (N,) or slice.
        """
        parts = vars(self).values()
        return Pairs(*({band: x[which] for band, x in part.items()} for part in parts))


@dataclass(frozen=True)
class _Problem:
    """Pairs of one kind of star as matrices over the flux: x (N, m) to y (N, n)."""

    x: Float
    y: Float
    weight: Float
    sigma: Float  # of y less its prediction, (N, n)
    used: NDArray[np.bool_]
    flux: Float  # (N, 1)

    @classmethod
    def of(cls, pairs: Pairs, name: str, template: Float) -> _Problem:
        bands = BANDS if name == "both" else (name,)
        x, y, e_y = (
            np.concatenate([part[band] for band in bands], axis=1)
            for part in (pairs.coefficients, pairs.values, pairs.value_errors)
        )
        level = np.concatenate(
            [np.repeat(error_level(pairs.errors[band])[:, None], pairs.values[band].shape[1], 1)
             for band in bands], axis=1
        )  # fmt: skip
        flux = sum(np.abs(pairs.values[band][:, [0]]) for band in bands)
        noise = np.sqrt(np.mean(np.square(level / flux), axis=1))
        weight = 1.0 / (noise**2 + (BRIGHTEST * np.median(noise)) ** 2)
        sigma = np.hypot(level * template, e_y) / flux
        return cls(x / flux, y / flux, weight / weight.mean(), sigma, measured()[columns(name)],
                   np.asarray(flux))  # fmt: skip

    def residual(self, found: Float) -> Float:
        """Return the mean squared residual over its expectation, of each pair (N,)."""
        squares = np.square((found - self.y) / self.sigma)[:, self.used]
        return np.asarray(squares.mean(axis=1))


@dataclass(frozen=True)
class FittedBridge:
    """The maps of a bridge, by kind of star.

    Attributes
    ----------
    maps
        By kind: both, bp, rp.
    residuals
        By kind: mean squared residual of held-out pairs over its expectation.
    lines
        What was found, for the user.
    """

    maps: Mapping[str, BridgeMap]
    residuals: Mapping[str, float]
    lines: tuple[str, ...]


def fit_bridge(pairs: Pairs) -> FittedBridge:
    """Fit the maps of a bridge.

    Parameters
    ----------
    pairs
        Stars with both bands in both releases.

    Raises
    ------
    ReleaseError
        Too few pairs.
    """
    if len(pairs) < FEWEST:
        raise ReleaseError(
            "too few stars in both releases", wanted=f"{FEWEST} with both bands", found=len(pairs)
        )
    maps, found, lines = {}, {}, [plural(len(pairs), "pair")]
    for name in ("both", *BANDS):
        own = _as_kind(pairs, name)
        template = _template(own, name)
        held_out, _ = _cross_fit(_Problem.of(own, name, template), RIDGES)
        squares = _Problem.of(own, name, template).residual(held_out)
        kept = squares < OUTLIER * np.median(squares)
        maps[name], found[name], words = _fit_kind(own.rows(kept), name, template)
        lines.append(
            f"{name}: {words}, squared residuals of held-out pairs {found[name]:.2f}, "
            f"{plural(int((~kept).sum()), 'pair')} left out"
        )
    return FittedBridge(maps, found, tuple(lines))


def residuals(maps: Mapping[str, BridgeMap], pairs: Pairs) -> dict[str, Float]:
    """Return canonical coefficients less their prediction, over the error of the difference.

    Parameters
    ----------
    maps
        A bridge.
    pairs
        N stars, not those of the fit.

    Returns
    -------
    dict
        By band (N, n); the errors include the floor.
    """
    joined = np.concatenate([pairs.coefficients[band] for band in BANDS], axis=1)
    values = maps["both"].values(joined)
    errors = maps["both"].errors("both", pairs.errors, values)
    return {
        band: (pairs.values[band] - values[:, columns(band)])
        / np.hypot(errors[:, columns(band)], pairs.value_errors[band])
        for band in BANDS
    }


def _as_kind(pairs: Pairs, name: str) -> Pairs:
    """Return the pairs with the canonical coefficients of a band alone, where one is asked for."""
    if name == "both":
        return pairs
    none = {band: np.full_like(x, np.nan) for band, x in pairs.values.items()}
    # Canonical coefficients are coefficients of the release whose basis they have.
    made = canonical.from_coefficients(
        none | {name: pairs.values[name]}, none | {name: pairs.value_errors[name]}
    )
    return replace(pairs, values=none | {name: made.values[name]},
                   value_errors=none | {name: made.errors[name]})  # fmt: skip


def _template(pairs: Pairs, name: str) -> Float:
    """Return the errors of canonical coefficients over the level of published ones (n,).

    Of the release that is known: its noise has the same structure, on another level.
    """
    parts = []
    for band in BANDS if name == "both" else (name,):
        own = pairs.value_errors[band]
        level = error_level(own[:, measured()[columns(band)]])[:, None]
        parts.append(np.exp(np.mean(np.log(own / level), axis=0)))
    return np.concatenate(parts)


def _fit_kind(pairs: Pairs, name: str, template: Float) -> tuple[BridgeMap, float, str]:
    """Return the map of a kind of star, the squared residuals of held-out pairs, and words."""
    problem = _Problem.of(pairs, name, template)
    held_out, ridge = _cross_fit(problem, RIDGES)
    added: dict[str, tuple[float, Float]] = {}
    wide = problem
    for term in TERMS if name == "both" else ():
        quantity = term_values(held_out * problem.flux)[term]
        spread = np.array([np.nanmean(quantity), np.nanstd(quantity)])
        z = np.nan_to_num(np.clip((quantity - spread[0]) / spread[1], -CLIP, CLIP))
        tried = [_term(problem, wide, z, ridge, own) for own in TERM_RIDGES]
        best = min(tried, key=lambda one: float(problem.residual(one[1]).mean()))
        if problem.residual(best[1]).mean() < GAIN * problem.residual(held_out).mean():
            wide, held_out, scale = best
            added[term] = scale, spread
    matrix, *parts = np.split(_ridge(wide, ridge), 1 + len(added), axis=1)
    terms = {
        term: scale * part for (term, (scale, _)), part in zip(added.items(), parts, strict=True)
    }
    ranges = {term: spread for term, (_, spread) in added.items()}
    floor = _floor(problem, name, held_out)
    found = BridgeMap(matrix, terms, ranges, template, floor, {})
    errors = found.errors(name, pairs.errors, held_out * problem.flux)
    found = replace(found, noise=_noise(pairs, name, held_out * problem.flux, errors))
    words = ", ".join([f"ridge {ridge:g}", *(f"term of {term}" for term in terms)])
    return found, float(problem.residual(held_out).mean()), words


def _term(
    problem: _Problem, wide: _Problem, z: Float, ridge: float, own: float
) -> tuple[_Problem, Float, float]:
    """Return the problem with a term of z that has a ridge of its own, and held-out predictions."""
    scale = float(np.sqrt(ridge / own))  # of its columns, which all have the ridge of the others
    more = replace(wide, x=np.concatenate([wide.x, scale * z[:, None] * problem.x], axis=1))
    return more, _cross_fit(more, (ridge,))[0], scale


def _cross_fit(problem: _Problem, ridges: tuple[float, ...]) -> tuple[Float, float]:
    """Return predictions (N, n) of each pair by a fit without it, and the ridge of the best."""
    parts = np.arange(len(problem.x)) % PARTS
    found = np.empty((len(ridges), *problem.y.shape))
    for number, ridge in enumerate(ridges):
        for part in range(PARTS):
            rows = parts == part
            found[number, rows] = problem.x[rows] @ _ridge(_rows(problem, ~rows), ridge).T
    squares = np.array([problem.residual(one).mean() for one in found])
    best = int(np.argmax(squares <= NEAR * squares.min()))
    return found[best], ridges[best]


def _rows(problem: _Problem, rows: NDArray[np.bool_]) -> _Problem:
    return replace(
        problem, x=problem.x[rows], y=problem.y[rows], weight=problem.weight[rows],
        sigma=problem.sigma[rows], flux=problem.flux[rows],
    )  # fmt: skip


def _ridge(problem: _Problem, ridge: float) -> Float:
    """Return the matrix (n, m) of the regression of y on x."""
    x = problem.x
    # In units of the noise: of canonical coefficients, whose level the errors of x have too.
    scale = np.sqrt(np.average(np.square(problem.sigma[:, problem.used]).mean(axis=1),
                               weights=problem.weight))  # fmt: skip
    weighted = (x / scale * problem.weight[:, None]).T
    values, vectors = np.linalg.eigh(weighted @ x / scale)
    inverse = (vectors / (np.maximum(values, 0.0) + ridge)) @ vectors.T
    return np.asarray((inverse @ (weighted @ problem.y)).T / scale)


def _floor(problem: _Problem, name: str, held_out: Float) -> Float:
    """Return the residuals of held-out pairs past their errors, over the band's first one (n,)."""
    excess = np.square(held_out - problem.y) - np.square(problem.sigma)
    # Noise decides on the weight: the floor shows in bright stars.
    weight = 1.0 / np.square(problem.sigma).mean(axis=1) ** 2
    mean = np.average(excess, axis=0, weights=weight)
    found, start = np.sqrt(np.maximum(mean, 0.0)), columns(name).start
    for band in BANDS if name == "both" else (name,):
        part = slice(columns(band).start - start, columns(band).stop - start)
        found[part] /= np.average(np.abs(held_out[:, part.start]), weights=weight)
    return np.asarray(found)


def _noise(pairs: Pairs, name: str, values: Float, errors: Float) -> dict[str, float]:
    """Return the smallest scatter of noise over its errors, by band.

    With it as many stars have a short signal as among those stars of the release that is known
    whose errors over the flux are the same.
    """
    bands, start = BANDS if name == "both" else (name,), columns(name).start
    own = {b: slice(columns(b).start - start, columns(b).stop - start) for b in bands}
    number = np.sum(
        [
            canonical_signal.relevant_number(b, pairs.values[b], pairs.value_errors[b])
            for b in bands
        ],
        axis=0,
    )
    known = _relative_level({b: (pairs.values[b], pairs.value_errors[b]) for b in bands})
    level = _relative_level({b: (values[:, own[b]], errors[:, own[b]]) for b in bands})
    order, width = np.argsort(known), max(NEIGHBOURS, len(known) // 20)
    window = np.ones(width) / width
    at = np.convolve(known[order], window, "valid")
    wanted = np.convolve((number < SHORT)[order], window, "valid")
    inside = (level >= at[0]) & (level <= at[-1])
    if not inside.any():
        return dict.fromkeys(bands, 1.0)
    shares = []
    for least in LEAST:
        short = np.zeros(len(values), dtype=np.int64)
        for band in bands:
            value, error = values[:, own[band]], errors[:, own[band]]
            noise = canonical_signal.followed_noise(band, value, error, least)
            short += canonical_signal.relevant_number(band, value, error * noise[:, None])
        shares.append(np.mean(short[inside] < SHORT))
    goal = np.mean(np.interp(level[inside], at, wanted))
    found = float(np.interp(goal, np.maximum.accumulate(shares), LEAST))
    return dict.fromkeys(bands, found)


def _relative_level(bands: Mapping[str, tuple[Float, Float]]) -> Float:
    """Return the natural log of errors over the flux (N,), the mean of the bands."""
    found = [
        np.log(error_level(errors[:, measured()[columns(band)]]) / np.abs(values[:, 0]))
        for band, (values, errors) in bands.items()
    ]
    return np.asarray(np.mean(found, axis=0))
