"""The uncertainty calibration of a bundle, and the limits of its out-of-distribution checks.

Measured on stars that the network was not trained on (training/fit_calibration.py), stored in
the bundle, and only read at inference.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from catalogproc.errors import BundleError
from catalogproc.io.hashes import sha256
from catalogproc.network.local_calibration import LocalTerm, Places
from catalogproc.network.statistics import freeze_arrays
from catalogproc.network.teacher_domain import TeacherDomain

LATENT = "latent.safetensors"
PLACES = "places."
TEACHER = "teacher."

T = TypeVar("T")
"""Beginning of the names of the arrays of :class:`Places` in this file."""

# Quantiles of the standard normal distribution, the default without a calibration.
LEVELS = (
    0.005, 0.025, 0.05, 0.1, 0.158655, 0.25, 0.4, 0.5,
    0.6, 0.75, 0.841345, 0.9, 0.95, 0.975, 0.995,
)  # fmt: skip
NORMAL = (
    -2.575829, -1.959964, -1.644854, -1.281552, -1.0, -0.67449, -0.253347, 0.0,
    0.253347, 0.67449, 1.0, 1.281552, 1.644854, 1.959964, 2.575829,
)  # fmt: skip

SIGMA = "sigma"
"""The term that every calibration has: ln of the network's sigma."""

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Term:
    """One additive term of ln(calibrated sigma / network's sigma).

    A function of the quantity ``name`` (:data:`SIGMA`, or a column of the catalog): linear
    between ``knots``, constant beyond.
    """

    name: str
    knots: Floats
    values: Floats

    def __post_init__(self) -> None:
        freeze_arrays(self, "knots", "values")
        steps = np.diff(self.knots)
        finite = np.isfinite(self.knots).all() and np.isfinite(self.values).all()
        fits = self.knots.ndim == 1 and self.knots.shape == self.values.shape and len(self.knots)
        if not (fits and finite and (steps > 0).all()):
            raise BundleError(
                "a calibration's knots must increase, with one value each", where=self.name
            )
        if self.name == SIGMA and (np.diff(self.values) < -steps - 1e-9).any():
            raise BundleError(
                "a larger network sigma would get a smaller calibrated one", where=self.name
            )

    def __call__(self, x: ArrayLike) -> Floats:
        """Return the term (N,) for values x (N,); 0 where x is NaN."""
        x = np.asarray(x, dtype=np.float64)
        term = np.interp(x, self.knots, self.values)
        return np.asarray(np.where(np.isnan(x), 0.0, term))


@dataclass(frozen=True, eq=False)
class LabelCalibration:
    """The calibration of the uncertainty of one label.

    68.27 % of stars lie within the calibrated sigma, which increases with the network's sigma.
    ``quantiles`` at ``levels`` are those of (true - mean) / calibrated sigma; if
    ``logarithmic``, of ln(true / mean) / (calibrated sigma / mean).
    """

    terms: tuple[Term | LocalTerm, ...] = ()
    levels: Floats = field(default_factory=lambda: np.array(LEVELS))
    quantiles: Floats = field(default_factory=lambda: np.array(NORMAL))
    logarithmic: bool = False

    def __post_init__(self) -> None:
        freeze_arrays(self, "levels", "quantiles")
        rising = (np.diff(self.levels) > 0).all() and (np.diff(self.quantiles) >= 0).all()
        if self.levels.shape != self.quantiles.shape or not rising:
            raise BundleError("a calibration's quantiles must increase with their levels")

    def sigma(self, network_sigma: ArrayLike, context: Mapping[str, ArrayLike]) -> Floats:
        """Return the calibrated sigma.

        Parameters
        ----------
        network_sigma
            The sigma that the network predicts (N,).
        context
            Other quantities of the stars, (N,) or (N, M), by name; terms of a quantity that is
            missing are left out. A star that is at no place of a local term keeps its sigma.

        Returns
        -------
        (N,), in the units of ``network_sigma``.
        """
        network_sigma = np.asarray(network_sigma, dtype=np.float64)
        log = np.log(np.where(network_sigma > 0, network_sigma, np.nan))
        known = {SIGMA: log, **context}
        parts = [term(known[term.name]) for term in self.terms if term.name in known]
        # NaN is a star at no place of a local term: unlike all calibration stars, not calibrated.
        factor = np.nan_to_num(sum(parts, start=np.zeros_like(network_sigma)), nan=0.0)
        return np.asarray(network_sigma * np.exp(factor))

    def percentile(self, mean: ArrayLike, sigma: ArrayLike, level: float) -> Floats:
        """Return the value below which the truth lies with a given probability.

        Parameters
        ----------
        mean, sigma
            Prediction and calibrated sigma (N,).
        level
            The probability, 0 to 1.

        Returns
        -------
        (N,); if ``logarithmic``, NaN where the mean is not positive.
        """
        mean, sigma = np.asarray(mean, dtype=np.float64), np.asarray(sigma, dtype=np.float64)
        z = float(np.interp(level, self.levels, self.quantiles))
        if not self.logarithmic:
            return np.asarray(mean + z * sigma)
        positive = np.where(mean > 0, mean, np.nan)
        return np.asarray(positive * np.exp(z * sigma / positive))


@dataclass(frozen=True, eq=False)
class Latent:
    """The distribution of the training stars in the encoder's output, as one Gaussian.

    s (D,) is the encoder's output averaged over a star's tokens. Its expectation is ``mean``
    (D,) plus the row of ``shifts`` (V, D) of each token that the star has, because s depends
    more on which tokens a star has than on their values. The distance of a star is the
    Mahalanobis distance ``|factor (s - expectation)|`` over its size for stars with the same
    tokens, whose natural log is the sum of ``log_sizes`` (V,) of these tokens: a parallax makes s
    scatter more. 99 % of the training stars are within ``limit``, and of those with one band within
    ``one_band_limit``, NaN where it was not measured. ``places`` are those of the local
    calibration, None without one.
    """

    mean: Floats
    shifts: Floats
    factor: Floats
    log_sizes: Floats
    limit: float
    places: Places | None = None
    one_band_limit: float = np.nan

    def __post_init__(self) -> None:
        freeze_arrays(self, "mean", "shifts", "factor", "log_sizes")
        width = len(self.mean)
        fits = self.shifts.shape[1:] == (width,) and self.factor.shape == (width, width)
        fits &= self.log_sizes.shape == self.shifts.shape[:1]
        if not (fits and np.isfinite(self.factor).all() and np.isfinite(self.shifts).all()):
            raise BundleError(
                "the arrays of the latent Gaussian do not fit each other", found=width
            )

    def distance(self, summaries: Floats, present: NDArray[np.bool_]) -> Floats:
        """Return the distance of stars from the training stars.

        Parameters
        ----------
        summaries
            Mean encoder output (N, D).
        present
            Which tokens each star has (N, V).

        Returns
        -------
        (N,).
        """
        return np.asarray(np.linalg.norm(self.residual(summaries, present) @ self.factor.T, axis=1))

    def limits(self, one_band: NDArray[np.bool_]) -> Floats:
        """Return the limit of the distance of each star (N,).

        Parameters
        ----------
        one_band
            Which stars have coefficients of one band alone (N,).
        """
        other = self.limit if np.isnan(self.one_band_limit) else self.one_band_limit
        return np.where(one_band, other, self.limit)

    def residual(self, summaries: Floats, present: NDArray[np.bool_]) -> Floats:
        """Return what is not expected of stars with their tokens, over its size (N, D).

        Parameters
        ----------
        summaries, present
            As for :meth:`distance`.
        """
        size = np.exp(present @ self.log_sizes)
        return np.asarray((summaries - self.mean - present @ self.shifts) / size[:, None])


@dataclass(frozen=True, eq=False)
class UncertaintyCalibration:
    """What a bundle stores of its uncertainties; what was not measured is empty.

    Attributes
    ----------
    by_label
        The calibration of each label's uncertainty.
    latent
        The training stars in the latent space.
    margin
        How far coefficients of the training stars lie outside of the stored range, in widths
        of the range (99.5 % of the stars are within it).
    chi2
        The reduced chi-square of coefficients predicted from the others that 99.8 % of the
        training stars do not exceed.
    trained_on
        Sorted source_ids (M,), int64, of the real stars in the training set.
    residual_covariance
        Covariance (n, n) of the residuals of these coefficients over their errors; None where
        it was not measured.
    teacher_domain
        Where training stars have a mass; None where all have one, or none.
    """

    by_label: Mapping[str, LabelCalibration] = field(default_factory=dict)
    latent: Latent | None = None
    margin: float = 0.0
    chi2: float = 0.0
    trained_on: NDArray[np.int64] | None = None
    residual_covariance: Floats | None = None
    teacher_domain: TeacherDomain | None = None

    def in_training(self, source_ids: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return whether stars belong to the training set.

        Parameters
        ----------
        source_ids
            (N,).

        Returns
        -------
        (N,).
        """
        if self.trained_on is None or not len(self.trained_on):
            return np.zeros(len(source_ids), dtype=bool)
        place = np.searchsorted(self.trained_on, source_ids)
        found = self.trained_on[np.minimum(place, len(self.trained_on) - 1)]
        return np.asarray(found == source_ids)

    def arrays(self) -> bytes | None:
        """Return the content of the safetensors file with the large arrays; None without any."""
        from safetensors.numpy import save

        arrays: dict[str, NDArray[Any]] = {}
        if self.latent is not None:
            limits = np.array([self.latent.limit, self.latent.one_band_limit])
            arrays |= {"mean": self.latent.mean, "shifts": self.latent.shifts,
                       "log_sizes": self.latent.log_sizes,
                       "factor": self.latent.factor, "limit": limits}  # fmt: skip
            if self.latent.places is not None:
                arrays |= {PLACES + name: x for name, x in vars(self.latent.places).items()}
        if self.teacher_domain is not None:
            domain = vars(self.teacher_domain)
            arrays |= {TEACHER + name: x for name, x in domain.items()}
        if self.residual_covariance is not None:
            arrays["residual_covariance"] = self.residual_covariance
        if self.trained_on is not None:
            arrays["trained_on"] = np.unique(self.trained_on).astype(np.int64)
        return save(arrays) if arrays else None

    def to_dict(self) -> dict[str, Any]:
        """Return the small values for TOML, with the hash of :meth:`arrays`."""
        content: dict[str, Any] = {"margin": self.margin, "chi2": self.chi2}
        arrays = self.arrays()
        if arrays is not None:
            content["latent_sha256"] = sha256(arrays)
        if self.by_label:
            content["calibration"] = {
                label: {
                    "logarithmic": item.logarithmic,
                    "levels": item.levels.tolist(),
                    "quantiles": item.quantiles.tolist(),
                    "term": [_term_to_dict(term) for term in item.terms],
                }
                for label, item in self.by_label.items()
            }
        return content

    @classmethod
    def from_dict(cls, content: Mapping[str, Any], folder: Path) -> UncertaintyCalibration:
        """Return the calibration of what :meth:`to_dict` wrote.

        Parameters
        ----------
        content
            The table of bundle.toml.
        folder
            The bundle's folder, which holds the file of :meth:`arrays`.

        Raises
        ------
        BundleError
            The file of arrays is missing, or does not have its hash.
        """
        by_label = {
            label: LabelCalibration(
                tuple(_term_from_dict(term) for term in item["term"]),
                item["levels"], item["quantiles"], item["logarithmic"],
            )
            for label, item in content.get("calibration", {}).items()
        }  # fmt: skip
        arrays = _arrays(folder / LATENT, content.get("latent_sha256"))
        latent = None
        if "mean" in arrays:
            limit, *other = (float(limit) for limit in arrays["limit"])
            sizes = arrays.get("log_sizes", np.zeros(len(arrays["shifts"])))
            places = _stored(Places, PLACES, arrays)
            latent = Latent(
                arrays["mean"], arrays["shifts"], arrays["factor"], sizes, limit, places,
                other[0] if other else np.nan,
            )  # fmt: skip
        return cls(
            by_label,
            latent,
            float(content.get("margin", 0.0)),
            float(content.get("chi2", 0.0)),
            arrays.get("trained_on"),
            arrays.get("residual_covariance"),
            _stored(TeacherDomain, TEACHER, arrays),
        )


def _term_to_dict(term: Term | LocalTerm) -> dict[str, Any]:
    other = {"stars": term.stars} if isinstance(term, LocalTerm) else {"knots": term.knots}
    lists = {name: x.tolist() for name, x in (other | {"values": term.values}).items()}
    return {"name": term.name, **lists}


def _term_from_dict(term: Mapping[str, Any]) -> Term | LocalTerm:
    if term["name"] == LocalTerm.name:
        return LocalTerm(term["values"], term["stars"])
    return Term(term["name"], term["knots"], term["values"])


def _stored(kind: type[T], prefix: str, arrays: Mapping[str, NDArray[Any]]) -> T | None:
    """Return an object of arrays whose names have a prefix; None where there are none."""
    found = {name.removeprefix(prefix): x for name, x in arrays.items() if name.startswith(prefix)}
    return kind(**found) if found else None


def _arrays(path: Path, wanted: str | None) -> dict[str, NDArray[Any]]:
    from safetensors import SafetensorError
    from safetensors.numpy import load

    if wanted is None:
        return {}
    try:
        content = path.read_bytes()
        found = sha256(content)
        if found == wanted:
            return dict(load(content))
    except (OSError, SafetensorError) as error:
        raise BundleError("a file of the bundle cannot be read", found=error) from None
    raise BundleError(
        f"{path.name} was changed after the bundle was written",
        wanted=wanted, found=found, where=path, advice="restore the bundle from its source",
    )  # fmt: skip
