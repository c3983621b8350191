"""What an experiment is made of, and what it makes: numbers, a verdict, a picture."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from catalogproc.datasets.test_sets import Benchmark
from catalogproc.evaluation.benchmark import trees
from catalogproc.evaluation.metrics import (
    ATMOSPHERE_AND_AGE,
    INPUT_SETS,
    Answers,
    ask,
    given_by,
    token_of,
)
from catalogproc.evaluation.xgboost_baseline import TreeSettings
from catalogproc.features.extinction import LN_EBV_FLOOR
from catalogproc.network.predictor import Predictor
from catalogproc.spectra import generated as generation
from catalogproc.vocabulary import BANDS, Vocabulary

if TYPE_CHECKING:
    from catalogproc.simulation.simulator import Simulator

Floats = NDArray[np.floating]
Flags = NDArray[np.bool_]
Real = float | np.floating[Any]

ATMOSPHERE = ("teff", "logg", "m_h")
LABELS = (*ATMOSPHERE, "logebv", "mass", "log_age")
"""What the seed paper makes a spectrum from (section 4.2.2)."""

NO_DUST = LN_EBV_FLOOR
"""ln E(B-V) of a star without dust, as the seed paper asks for it."""

G_SUN = 4.67
"""M_G of the Sun (Casagrande & VandenBerg 2018)."""


@dataclass(frozen=True)
class Number:
    """One number of an experiment, and what it is held against.

    ``beside`` is ``whose`` number: published, another method's, or a limit. ``wanted`` says how
    ours must lie to it ("at most", "at least"), and is empty where nothing is decided.
    """

    what: str
    ours: Real
    unit: str = ""
    beside: Real = float("nan")
    whose: str = ""
    wanted: str = ""

    @property
    def holds(self) -> bool | None:
        """The verdict; None where there is none, or a number is not known."""
        if not self.wanted or not (np.isfinite(self.ours) and np.isfinite(self.beside)):
            return None
        sign = 1 if self.wanted == "at most" else -1
        return bool(sign * self.ours <= sign * self.beside)


def at_most(what: str, ours: Real, beside: Real, unit: str = "", whose: str = "") -> Number:
    """A number that must not be larger than another."""
    return Number(what, float(ours), unit, float(beside), whose or "limit set here", "at most")


def at_least(what: str, ours: Real, beside: Real, unit: str = "", whose: str = "") -> Number:
    """A number that must not be smaller than another."""
    return Number(what, float(ours), unit, float(beside), whose or "limit set here", "at least")


@dataclass(frozen=True, eq=False)
class Outcome:
    """What came out.

    ``draw`` draws it on a matplotlib figure; ``curves`` are what is drawn, as columns (R,) of
    one table, where a picture alone would hide them.
    """

    numbers: tuple[Number, ...]
    draw: Callable[[Any], None]
    curves: Mapping[str, Floats] = field(default_factory=dict)

    @property
    def holding(self) -> tuple[Number, ...]:
        return tuple(number for number in self.numbers if number.holds is True)

    @property
    def failing(self) -> tuple[Number, ...]:
        return tuple(number for number in self.numbers if number.holds is False)


@dataclass(frozen=True)
class Experiment:
    """A figure of the seed paper.

    ``claim`` says what is done and what the paper found; ``size`` is the picture's, in inches.
    """

    figure: int
    title: str
    claim: str
    run: Callable[[Setting], Outcome]
    size: tuple[float, float]


@dataclass(frozen=True, eq=False)
class Spectra:
    """Sampled spectra (N, L) over the G flux, and their errors, in 1e-18 W m-2 nm-1 per e-/s."""

    wavelengths: Floats
    flux: Floats
    error: Floats

    def within(self, low: float, high: float) -> Spectra:
        """Those of wavelengths from ``low`` to ``high`` nm."""
        at = (self.wavelengths >= low) & (self.wavelengths <= high)
        return Spectra(self.wavelengths[at], self.flux[:, at], self.error[:, at])

    def rmse(self, other: Spectra) -> Floats:
        """Root mean square difference over the mean flux of ``other`` (N,), in per cent."""
        square = np.mean((self.flux - other.flux) ** 2, axis=1)
        return np.asarray(100.0 * np.sqrt(square) / np.abs(other.flux.mean(axis=1)))


FLUX_UNIT = 1e-18


def sampled(values: Mapping[str, Floats], errors: Mapping[str, Floats]) -> Spectra:
    """Spectra of coefficients over the G flux and their errors (N, n) by band: GaiaXPy's sampling.

    Coefficients that are absent count as zero, as GaiaXPy's truncation has them; errors are
    taken as independent.
    """
    known = [
        {band: np.nan_to_num(part[band].astype(np.float64)) for band in BANDS}
        for part in (values, errors)
    ]
    level = np.full(len(values[BANDS[0]]), np.nan)
    made = generation.Spectra(known[0], known[1], level).sampled()
    return Spectra(made.wavelength, made.flux / FLUX_UNIT, made.error / FLUX_UNIT)


@dataclass(frozen=True, eq=False)
class Setting:
    """A model, the stars that it is tried on, and other stars that trees may be grown on.

    ``others`` gives the latter, and is asked once, where they are needed. ``spectra_stars`` is
    how many of the stars whole spectra are made of.
    """

    predictor: Predictor
    stars: Benchmark
    others: Callable[[], Benchmark]
    tree_settings: TreeSettings
    spectra_stars: int = 2000

    @property
    def vocabulary(self) -> Vocabulary:
        return self.predictor.bundle.vocabulary

    @cached_property
    def training(self) -> Benchmark:
        """The training part: nothing of it is judged."""
        return self.others()

    @cached_property
    def simulator(self) -> Simulator:
        from catalogproc.simulation.simulator import Simulator

        return Simulator()

    @cached_property
    def few(self) -> Benchmark:
        """The stars that whole spectra are made of: those that have any."""
        have = np.isfinite(self.stars.values[:, self.columns("coefficient")]).any(axis=1)
        return self.stars.rows(np.flatnonzero(have)[: self.spectra_stars])

    def columns(self, *kinds: str) -> NDArray[np.int64]:
        """Columns of all tokens of some kinds."""
        return self.vocabulary.columns([t.name for t in self.vocabulary.tokens if t.kind in kinds])

    def known(self, stars: Benchmark, names: Sequence[str]) -> Floats:
        """Dense tokens (N, V) of stars, these alone: the truth where it is known, else as seen."""
        given = np.full_like(stars.values, np.nan)
        at = self.vocabulary.columns([name for name in names if name in self.vocabulary])
        given[:, at] = np.where(np.isfinite(stars.truth), stars.truth, stars.values)[:, at]
        return given

    def table(self, **tokens: Any) -> Floats:
        """Dense tokens (N, V) of stars made up: numbers or arrays (N,) by name."""
        size = max(np.size(value) for value in tokens.values())
        given = np.full((size, len(self.vocabulary)), np.nan)
        for name, value in tokens.items():
            given[:, self.vocabulary.column(name)] = value
        return given

    def ask(self, given: Floats, names: Sequence[str]) -> Answers:
        """The model's answers for tokens (N, V): those that it was trained to give."""
        able = self.predictor.bundle.requestable
        return ask(self.predictor, given, [name for name in names if token_of(name) in able])

    def one(self, given: Floats, name: str) -> tuple[Floats, Floats]:
        """Mean and sigma (N,) of one token."""
        answer = self.predictor.predict(given, (name,))
        return answer.mean[:, 0].astype(np.float64), answer.sigma[:, 0].astype(np.float64)

    def spectra(self, given: Floats, bands: Sequence[str] = BANDS) -> Spectra:
        """The model's spectra of tokens (N, V): all coefficients of ``bands`` asked, others as
        given."""
        made = generation.generate_spectra(self.predictor, given.astype(np.float64))
        kept = {band: given[:, self.vocabulary.coefficient_columns(band)] for band in BANDS}
        return sampled(
            kept | {band: made.coefficients[band] for band in bands},
            {band: np.zeros_like(values) for band, values in kept.items()}
            | {band: made.errors[band] for band in bands},
        )

    def observed(self, stars: Benchmark) -> Spectra:
        """Their spectra as seen."""
        at = {band: self.vocabulary.coefficient_columns(band) for band in BANDS}
        return sampled(
            {band: stars.values[:, columns] for band, columns in at.items()},
            {band: stars.errors[:, columns] for band, columns in at.items()},
        )

    @cached_property
    def panels(self) -> dict[str, Answers]:
        """Answers by panel of figures 4 and 5: a from trees, grown on the training part with the
        inputs of b; the others from the model."""
        stars, training, vocabulary = self.stars, self.training, self.vocabulary
        given = {key: given_by(key, stars.values, stars.truth, vocabulary) for key in INPUT_SETS}
        seen = given_by("b", training.values, training.truth, vocabulary)
        known = np.asarray(np.isfinite(training.truth).any(axis=0))
        names = [name for name in ATMOSPHERE_AND_AGE if known[vocabulary.column(name)]]
        asked = (*ATMOSPHERE_AND_AGE, "ebv", "dist")
        return {
            "a": trees(seen, training.truth, given["b"], vocabulary, names, self.tree_settings)
        } | {key: self.ask(values, asked) for key, values in given.items()}

    @cached_property
    def from_labels(self) -> tuple[Spectra, Spectra]:
        """Of the few: the model's spectra from their labels, and the observed ones."""
        return self.spectra(self.known(self.few, LABELS)), self.observed(self.few)

    def noiseless(self, **star: Any) -> tuple[Spectra, Floats]:
        """The simulator's own spectra, and M_G (N,), of stars made up at 10 pc.

        ``teff, logg, m_h, log_l, ebv`` (SFD scale, mag) and ``r_v``: numbers or arrays (N,).
        """
        import torch

        from catalogproc.features.extinction import TRUE_PER_SFD
        from catalogproc.features.spectra import G_ZERO_POINT

        size = max(np.size(value) for value in star.values())
        names = ("m_h", "teff", "logg", "log_l", "ebv", "r_v")
        columns = [np.broadcast_to(star[name], size).astype(np.float32) for name in names]
        m_h, teff, logg, log_l, ebv, r_v = (torch.from_numpy(column.copy()) for column in columns)
        coefficients, gaia, _ = self.simulator.spectra(
            m_h, teff, logg, log_l, torch.full((size,), 0.01), TRUE_PER_SFD * ebv, r_v
        )
        flux = 10 ** (0.4 * (G_ZERO_POINT - gaia[:, :1].double()))
        both = (coefficients.double() / flux).numpy()
        bands = dict(zip(BANDS, np.split(both, [self.simulator.instrument.n_bp], axis=1),
                         strict=True))  # fmt: skip
        spectra = sampled(bands, {band: np.zeros_like(values) for band, values in bands.items()})
        return spectra, gaia[:, 0].double().numpy()


def absolute_g(pseudo_luminosity: Floats) -> Floats:
    """M_G behind the dust (N,), from the pseudo-luminosity 10^(0.2 M_G + 2); NaN where none."""
    good = np.where(pseudo_luminosity > 0, pseudo_luminosity, np.nan)
    return np.asarray(5.0 * (np.log10(good) - 2.0))


def middle(values: Floats) -> float:
    """The median of what is finite; NaN of nothing."""
    good = values[np.isfinite(values)]
    return float(np.median(good)) if len(good) else float("nan")


def robust(values: Floats) -> float:
    """1.4826 times the median absolute deviation of what is finite; NaN of nothing."""
    good = values[np.isfinite(values)]
    if not len(good):
        return float("nan")
    return float(1.4826 * np.median(np.abs(good - np.median(good))))


def giant_branch(logg: Floats) -> Floats:
    """Teff in K (N,) of the seed paper's giant branch, at solar [M/H]."""
    return np.asarray(5200.0 - 441.0 * (3.65 - logg))


def in_order(x: Floats, y: Floats) -> float:
    """Spearman's rank correlation of what is finite; NaN of fewer than three."""
    from scipy.stats import spearmanr

    good = np.isfinite(x) & np.isfinite(y)
    return float(spearmanr(x[good], y[good]).statistic) if good.sum() > 2 else float("nan")
