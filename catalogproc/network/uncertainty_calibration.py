"""What a bundle knows of how far its answers can be trusted.

Found on stars that the network was not trained on (science/lessons/calibration.py), stored in the
bundle, and only read at inference.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from catalogproc.errors import BundleError
from catalogproc.network.statistics import own

LATENT = "latent.safetensors"

# Standard normal quantiles, where nothing else is known.
LEVELS = (
    0.005, 0.025, 0.05, 0.1, 0.158655, 0.25, 0.4, 0.5,
    0.6, 0.75, 0.841345, 0.9, 0.95, 0.975, 0.995,
)  # fmt: skip
NORMAL = (
    -2.575829, -1.959964, -1.644854, -1.281552, -1.0, -0.67449, -0.253347, 0.0,
    0.253347, 0.67449, 1.0, 1.281552, 1.644854, 1.959964, 2.575829,
)  # fmt: skip

SIGMA = "sigma"
"""The term that every calibration has: ln of the stated sigma."""

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Term:
    """A share of ln(true sigma / stated sigma): linear between knots, constant beyond.

    ``name`` says of what: of :data:`SIGMA`, or of something that is known of a star besides.
    """

    name: str
    knots: Floats
    values: Floats

    def __post_init__(self) -> None:
        own(self, "knots", "values")
        steps = np.diff(self.knots)
        finite = np.isfinite(self.knots).all() and np.isfinite(self.values).all()
        fits = self.knots.ndim == 1 and self.knots.shape == self.values.shape and len(self.knots)
        if not (fits and finite and (steps > 0).all()):
            raise BundleError("a calibration's knots must rise, with a value each", where=self.name)
        if self.name == SIGMA and (np.diff(self.values) < -steps - 1e-9).any():
            raise BundleError("a larger stated sigma would be made a smaller one", where=self.name)

    def __call__(self, x: ArrayLike) -> Floats:
        """Its share (N,) for values x (N,); 0 where they are not known."""
        x = np.asarray(x, dtype=np.float64)
        share = np.interp(x, self.knots, self.values)
        return np.asarray(np.where(np.isnan(x), 0.0, share))


@dataclass(frozen=True, eq=False)
class Calibration:
    """How the sigma that the network states for one label becomes one that holds.

    The calibrated sigma is that within which 68.27 % of stars lie, and rises with the stated
    one. ``quantiles`` at ``levels`` are those of (true - mean) / calibrated sigma; or, where
    ``logarithmic``, of ln(true / mean) / (calibrated sigma / mean).
    """

    terms: tuple[Term, ...] = ()
    levels: Floats = field(default_factory=lambda: np.array(LEVELS))
    quantiles: Floats = field(default_factory=lambda: np.array(NORMAL))
    logarithmic: bool = False

    def __post_init__(self) -> None:
        own(self, "levels", "quantiles")
        rising = (np.diff(self.levels) > 0).all() and (np.diff(self.quantiles) >= 0).all()
        if self.levels.shape != self.quantiles.shape or not rising:
            raise BundleError("a calibration's quantiles must rise with their levels")

    def sigma(self, stated: ArrayLike, context: Mapping[str, ArrayLike]) -> Floats:
        """Calibrated sigma (N,) from the stated one (N,) and what else is known of the stars."""
        stated = np.asarray(stated, dtype=np.float64)
        log = np.log(np.where(stated > 0, stated, np.nan))
        given = {SIGMA: log, **context}
        return np.asarray(stated * np.exp(sum(
            (term(given[term.name]) for term in self.terms if term.name in given),
            start=np.zeros_like(stated),
        )))  # fmt: skip

    def percentile(self, mean: ArrayLike, sigma: ArrayLike, level: float) -> Floats:
        """The value (N,) below which the truth lies with a probability.

        ``sigma`` is calibrated. Where ``logarithmic``, NaN where the mean is not positive.
        """
        mean, sigma = np.asarray(mean, dtype=np.float64), np.asarray(sigma, dtype=np.float64)
        z = float(np.interp(level, self.levels, self.quantiles))
        if not self.logarithmic:
            return np.asarray(mean + z * sigma)
        positive = np.where(mean > 0, mean, np.nan)
        return np.asarray(positive * np.exp(z * sigma / positive))


@dataclass(frozen=True, eq=False)
class Latent:
    """Where training stars lie in what the encoder makes of them, as one Gaussian.

    The encoder's output, averaged over a star's tokens, is s (D,). What is expected of it is
    ``mean`` (D,), and the row of ``shifts`` (V, D) of each token that the star has: which
    tokens a star has moves it farther than what they say. The distance of a star is
    ``|factor (s - expected)|``, that of Mahalanobis, and ``limit`` is the one that 99 % of
    training stars do not exceed.
    """

    mean: Floats
    shifts: Floats
    factor: Floats
    limit: float

    def __post_init__(self) -> None:
        own(self, "mean", "shifts", "factor")
        width = len(self.mean)
        fits = self.shifts.shape[1:] == (width,) and self.factor.shape == (width, width)
        if not (fits and np.isfinite(self.factor).all() and np.isfinite(self.shifts).all()):
            raise BundleError("the parts of the latent Gaussian do not fit", found=width)

    def distance(self, summaries: Floats, present: NDArray[np.bool_]) -> Floats:
        """Of stars whose encoder output is (N, D), and that have tokens (N, V)."""
        off = summaries - self.mean - present @ self.shifts
        return np.asarray(np.linalg.norm(off @ self.factor.T, axis=1))


@dataclass(frozen=True, eq=False)
class Reliability:
    """All of it; whatever is not known is empty.

    ``calibration`` by label. ``margin`` is how far a coefficient of a star may lie outside the
    training stars' range, in widths of that range, before the star is no longer like them;
    ``chi2`` how badly coefficients may be predicted from each other; few training stars exceed
    either. ``trained_on`` are the sorted identifiers (M,), int64, of the real
    stars that the network was trained on.
    """

    calibration: Mapping[str, Calibration] = field(default_factory=dict)
    latent: Latent | None = None
    margin: float = 0.0
    chi2: float = 0.0
    trained_on: NDArray[np.int64] | None = None

    def seen(self, identifiers: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Whether the network was trained on stars (N,)."""
        if self.trained_on is None or not len(self.trained_on):
            return np.zeros(len(identifiers), dtype=bool)
        place = np.searchsorted(self.trained_on, identifiers)
        found = self.trained_on[np.minimum(place, len(self.trained_on) - 1)]
        return np.asarray(found == identifiers)

    def arrays(self) -> bytes | None:
        """What is too large for a text, as a safetensors file; None where there is nothing."""
        from safetensors.numpy import save

        arrays: dict[str, NDArray[Any]] = {}
        if self.latent is not None:
            arrays |= {"mean": self.latent.mean, "shifts": self.latent.shifts,
                       "factor": self.latent.factor,
                       "limit": np.array([self.latent.limit])}  # fmt: skip
        if self.trained_on is not None:
            arrays["trained_on"] = np.unique(self.trained_on).astype(np.int64)
        return save(arrays) if arrays else None

    def to_dict(self) -> dict[str, Any]:
        """The rest, for TOML, with the hash of :meth:`arrays`."""
        content: dict[str, Any] = {"margin": self.margin, "chi2": self.chi2}
        arrays = self.arrays()
        if arrays is not None:
            content["latent_sha256"] = hashlib.sha256(arrays).hexdigest()
        if self.calibration:
            content["calibration"] = {
                label: {
                    "logarithmic": item.logarithmic,
                    "levels": item.levels.tolist(),
                    "quantiles": item.quantiles.tolist(),
                    "term": [
                        {"name": t.name, "knots": t.knots.tolist(), "values": t.values.tolist()}
                        for t in item.terms
                    ],
                }
                for label, item in self.calibration.items()
            }
        return content

    @classmethod
    def from_dict(cls, content: Mapping[str, Any], folder: Path) -> Reliability:
        """Takes back :meth:`to_dict`. Raises BundleError where the file beside it was changed."""
        calibration = {
            label: Calibration(
                tuple(Term(t["name"], t["knots"], t["values"]) for t in item["term"]),
                item["levels"], item["quantiles"], item["logarithmic"],
            )
            for label, item in content.get("calibration", {}).items()
        }  # fmt: skip
        arrays = _arrays(folder / LATENT, content.get("latent_sha256"))
        latent = None
        if "mean" in arrays:
            limit = float(arrays["limit"][0])
            latent = Latent(arrays["mean"], arrays["shifts"], arrays["factor"], limit)
        return cls(
            calibration,
            latent,
            float(content.get("margin", 0.0)),
            float(content.get("chi2", 0.0)),
            arrays.get("trained_on"),
        )


def _arrays(path: Path, wanted: str | None) -> dict[str, NDArray[Any]]:
    from safetensors import SafetensorError
    from safetensors.numpy import load

    if wanted is None:
        return {}
    try:
        content = path.read_bytes()
        found = hashlib.sha256(content).hexdigest()
        if found == wanted:
            return dict(load(content))
    except (OSError, SafetensorError) as error:
        raise BundleError("a file of the bundle cannot be read", found=error) from None
    raise BundleError(
        f"{path.name} was changed after the bundle was written",
        wanted=wanted, found=found, where=path, todo="restore the bundle from its source",
    )  # fmt: skip
