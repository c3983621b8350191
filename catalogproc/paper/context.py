"""The context of an experiment: model, test stars, and their spectra, observed or predicted."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from catalogproc.datasets.benchmark_stars import Benchmark
from catalogproc.evaluation.benchmark import tree_predictions
from catalogproc.evaluation.metrics import (
    ATMOSPHERE_AND_AGE,
    INPUT_SETS,
    Predictions,
    predict,
    select_inputs,
)
from catalogproc.evaluation.quantities import label_of
from catalogproc.evaluation.xgboost_baseline import Trees
from catalogproc.features.extinction import LN_EBV_FLOOR
from catalogproc.network.predictor import Predictor
from catalogproc.network.star_tokens import StarTokens
from catalogproc.spectra import generated as generation
from catalogproc.vocabulary import BANDS, Vocabulary

if TYPE_CHECKING:
    from catalogproc.simulation.simulator import Simulator

Floats = NDArray[np.floating]
Flags = NDArray[np.bool_]
Real = float | np.floating[Any]

ATMOSPHERE = ("teff", "logg", "m_h")
LABELS = (*ATMOSPHERE, "logebv", "mass", "log_age")
"""Labels from which Zhang, Bu et al. (2026, section 4.2.2) generate spectra."""

NO_DUST = LN_EBV_FLOOR
"""ln E(B-V) of a star without dust, as in Zhang, Bu et al. (2026)."""

G_SUN = 4.67
"""M_G of the Sun (Casagrande & VandenBerg 2018)."""


@dataclass(frozen=True, eq=False)
class Spectra:
    """Sampled spectra (N, L) over the G flux, and their errors, in 1e-18 W m-2 nm-1 per e-/s."""

    wavelengths: Floats
    flux: Floats
    error: Floats

    def within(self, low: float, high: float) -> Spectra:
        """Return the part between two wavelengths.

        Parameters
        ----------
        low, high
            Wavelengths in nm.
        """
        at = (self.wavelengths >= low) & (self.wavelengths <= high)
        return Spectra(self.wavelengths[at], self.flux[:, at], self.error[:, at])

    def rmse(self, other: Spectra) -> Floats:
        """Return the root mean square difference (N,) in per cent of the mean flux of ``other``.

        Parameters
        ----------
        other
            Spectra of the same stars at the same wavelengths.
        """
        square = np.mean((self.flux - other.flux) ** 2, axis=1)
        return np.asarray(100.0 * np.sqrt(square) / np.abs(other.flux.mean(axis=1)))


FLUX_UNIT = 1e-18


def sample_spectra(values: Mapping[str, Floats], errors: Mapping[str, Floats]) -> Spectra:
    """Return spectra sampled from coefficients, as GaiaXPy does.

    Absent coefficients are zero, as in GaiaXPy's truncation; errors are taken as independent.

    Parameters
    ----------
    values, errors
        Coefficients over the G flux and their errors (N, n), by band.
    """
    coefficients, coefficient_errors = (
        {band: np.nan_to_num(part[band].astype(np.float64)) for band in BANDS}
        for part in (values, errors)
    )
    level = np.full(len(values[BANDS[0]]), np.nan)
    made = generation.Spectra(coefficients, coefficient_errors, level).sampled()
    return Spectra(made.wavelength, made.flux / FLUX_UNIT, made.error / FLUX_UNIT)


@dataclass(frozen=True, eq=False)
class ExperimentContext:
    """A model, test stars, and stars that XGBoost may be fitted to.

    Attributes
    ----------
    load_training
        Returns the training stars; called once, when they are needed.
    trees
        XGBoost.
    n_spectra
        Number of stars whose spectra are generated.
    """

    predictor: Predictor
    stars: Benchmark
    load_training: Callable[[], Benchmark]
    trees: Trees
    n_spectra: int = 2000

    @property
    def vocabulary(self) -> Vocabulary:
        """The model's vocabulary."""
        return self.predictor.bundle.vocabulary

    @cached_property
    def training(self) -> Benchmark:
        """The training stars; none of them is a test star."""
        return self.load_training()

    @cached_property
    def simulator(self) -> Simulator:
        """The simulator."""
        from catalogproc.simulation.simulator import Simulator

        return Simulator()

    @cached_property
    def spectra_sample(self) -> Benchmark:
        """The test stars whose spectra are generated: the first ones that have a spectrum."""
        coefficients = self.stars.values[:, self.columns("coefficient")]
        with_spectrum = np.isfinite(coefficients).any(axis=1)
        return self.stars.rows(np.flatnonzero(with_spectrum)[: self.n_spectra])

    def columns(self, *kinds: str) -> NDArray[np.int64]:
        """Return the columns of all tokens of some kinds.

        Parameters
        ----------
        kinds
            Kinds of tokens, such as "coefficient".
        """
        return self.vocabulary.columns([t.name for t in self.vocabulary.tokens if t.kind in kinds])

    def inputs(self, stars: Benchmark, names: Sequence[str]) -> StarTokens:
        """Return some tokens of stars: true where known, else observed.

        Parameters
        ----------
        stars
            The stars.
        names
            Names of the tokens; those that the vocabulary lacks are left out.
        """
        shown = np.zeros(len(self.vocabulary), dtype=bool)
        shown[self.vocabulary.columns([name for name in names if name in self.vocabulary])] = True
        return stars.labels.filled_from(stars.inputs).only(shown)

    def synthetic_inputs(self, **tokens: Any) -> StarTokens:
        """Return tokens of synthetic stars, without error.

        Parameters
        ----------
        tokens
            Numbers or arrays (N,) by name.
        """
        size = max(np.size(value) for value in tokens.values())
        given = np.full((size, len(self.vocabulary)), np.nan)
        for name, value in tokens.items():
            given[:, self.vocabulary.column(name)] = value
        return StarTokens.exact(given)

    def predict(self, inputs: StarTokens, names: Sequence[str]) -> Predictions:
        """Return the model's predictions, of those labels that it was trained to predict.

        Parameters
        ----------
        inputs
            Tokens of N stars.
        names
            Labels or quantities.
        """
        able = self.predictor.bundle.requestable
        return predict(self.predictor, inputs, [name for name in names if label_of(name) in able])

    def predict_one(self, inputs: StarTokens, name: str) -> tuple[Floats, Floats]:
        """Return mean and sigma (N,) of one token.

        Parameters
        ----------
        inputs
            Tokens of N stars.
        name
            Name of the token.
        """
        prediction = self.predictor.predict(inputs, (name,))
        mean, sigma = prediction.mean[:, 0], prediction.sigma[:, 0]
        return mean.astype(np.float64), sigma.astype(np.float64)

    def predicted_spectra(self, inputs: StarTokens, bands: Sequence[str] = BANDS) -> Spectra:
        """Return the model's spectra; bands that are not predicted are those of the inputs.

        Parameters
        ----------
        inputs
            Tokens of N stars.
        bands
            Bands to predict.
        """
        made = generation.generate_spectra(self.predictor, inputs)
        given = {
            band: inputs.values[:, self.vocabulary.coefficient_columns(band)] for band in BANDS
        }
        return sample_spectra(
            given | {band: made.coefficients[band] for band in bands},
            {band: np.zeros_like(values) for band, values in given.items()}
            | {band: made.errors[band] for band in bands},
        )

    @property
    def measured(self) -> str:
        """What spectra and colours of the test stars are: observed, or simulated."""
        return "observed" if self.stars.real else "simulated"

    def observed_spectra(self, stars: Benchmark) -> Spectra:
        """Return the observed spectra of stars.

        Parameters
        ----------
        stars
            The stars.
        """
        at = {band: self.vocabulary.coefficient_columns(band) for band in BANDS}
        return sample_spectra(
            {band: stars.values[:, columns] for band, columns in at.items()},
            {band: stars.errors[:, columns] for band, columns in at.items()},
        )

    @cached_property
    def panel_predictions(self) -> dict[str, Predictions]:
        """Predictions by panel of figures 4 and 5: a is XGBoost on the inputs of b."""
        stars, training, vocabulary = self.stars, self.training, self.vocabulary
        inputs = {
            key: select_inputs(key, stars.inputs, stars.labels, vocabulary) for key in INPUT_SETS
        }
        fitted, read = (
            select_inputs("b", some.tree_inputs, some.labels, vocabulary).values
            for some in (training, stars)
        )
        known = np.asarray(np.isfinite(training.truth).any(axis=0))
        names = [name for name in ATMOSPHERE_AND_AGE if known[vocabulary.column(name)]]
        requested = (*ATMOSPHERE_AND_AGE, "ebv", "dist")
        by_trees = tree_predictions(replace(training, values=fitted), read, names, self.trees)
        return {"a": by_trees} | {
            key: self.predict(given, requested) for key, given in inputs.items()
        }

    @cached_property
    def spectra_from_labels(self) -> tuple[Spectra, Spectra]:
        """Spectra of the spectra sample: predicted from the labels, and observed."""
        sample = self.spectra_sample
        return self.predicted_spectra(self.inputs(sample, LABELS)), self.observed_spectra(sample)

    def simulated_spectra(self, **star: Any) -> tuple[Spectra, Floats]:
        """Return the simulator's noiseless spectra, and M_G (N,), of synthetic stars at 10 pc.

        Parameters
        ----------
        star
            ``teff, logg, m_h, log_l, ebv`` (SFD scale, mag) and ``r_v``: numbers or arrays (N,).
        """
        import torch

        from catalogproc.features.extinction import TRUE_PER_SFD
        from catalogproc.release import load_release

        size = max(np.size(value) for value in star.values())
        names = ("m_h", "teff", "logg", "log_l", "ebv", "r_v")
        columns = [np.broadcast_to(star[name], size).astype(np.float32) for name in names]
        m_h, teff, logg, log_l, ebv, r_v = (torch.from_numpy(column.copy()) for column in columns)
        coefficients, gaia, _ = self.simulator.spectra(
            m_h, teff, logg, log_l, torch.full((size,), 0.01), TRUE_PER_SFD * ebv, r_v
        )
        flux = 10 ** (0.4 * (load_release().magnitude("G").zero_point - gaia[:, :1].double()))
        both = (coefficients.double() / flux).numpy()
        bands = dict(zip(BANDS, np.split(both, [self.simulator.instrument.n_bp], axis=1),
                         strict=True))  # fmt: skip
        zeros = {band: np.zeros_like(values) for band, values in bands.items()}
        return sample_spectra(bands, zeros), gaia[:, 0].double().numpy()


def absolute_g(pseudo_luminosity: Floats) -> Floats:
    """Return M_G (N,) in mag, with the extinction; NaN where it is undefined.

    Parameters
    ----------
    pseudo_luminosity
        10^(0.2 M_G + 2) (N,).
    """
    good = np.where(pseudo_luminosity > 0, pseudo_luminosity, np.nan)
    return np.asarray(5.0 * (np.log10(good) - 2.0))


def giant_branch_teff(logg: Floats) -> Floats:
    """Return Teff in K (N,) of the giant branch of Zhang, Bu et al. (2026) at solar [M/H].

    Parameters
    ----------
    logg
        log g in dex (N,).
    """
    return np.asarray(5200.0 - 441.0 * (3.65 - logg))
