"""The experiments in the order of the figures of Zhang, Bu et al. (2026); run them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from catalogproc.datasets.benchmark_stars import Benchmark
from catalogproc.datasets.test_sets import Simulated, training_stars
from catalogproc.errors import (
    BundleError,
    ContractError,
    InputError,
    JobError,
    did_you_mean,
    plural,
)
from catalogproc.evaluation.metrics import resolve_device
from catalogproc.evaluation.xgboost_baseline import Trees
from catalogproc.network.bundle import Bundle
from catalogproc.network.predictor import Predictor
from catalogproc.paper import (
    extinction_curve,
    isochrones,
    kiel_maps,
    reconstruction,
    scatter_panels,
)
from catalogproc.paper.context import ExperimentContext
from catalogproc.paper.experiment import Experiment
from catalogproc.paper.results_page import ExperimentResult

Progress = Callable[[int, int, str], None]

EXPERIMENTS = tuple(
    Experiment(*row)
    for row in (
        (4, "Teff, log g and [M/H] from six input sets",
         "Predicted against true: a, XGBoost on the inputs of b; b to f, the model, from 63 "
         "tokens, 13, 64 random ones, noisy ones, and these with the true labels. The paper: "
         "better than XGBoost, robust against fewer and random tokens, large sigmas from noisy "
         "ones, identity where the true labels are inputs.",
         scatter_panels.atmospheres, (10.6, 5.4)),
        (5, "Mass and age from six input sets",
         "The same for mass and age. The orange medians are flatter than the identity: "
         "a prediction is the mean of the stars that look alike, so that heavy stars are "
         "predicted too light and old ones too young (regression to the mean), the more the "
         "less the inputs say.",
         scatter_panels.mass_and_age, (10.6, 3.9)),
        (6, "Kiel diagram, reddening, distances",
         "From the tokens of b: the giant branch and the red clump, with the gradient in [M/H]; "
         "E(B-V); distances from the pseudo-luminosity.",
         scatter_panels.kiel_reddening_distance, (11, 3.3)),
        (7, "Spectra along isochrones",
         "Spectra from consistent labels on PARSEC's giant branch. The paper: more luminous with "
         "mass, deeper lines with [M/H].", isochrones.along_isochrones, (12, 4.2)),
        (8, "Spectra from labels",
         "Spectra of the test stars, observed or simulated, and spectra predicted from Teff, "
         "log g, [M/H], E(B-V), mass and age, for stars at percentiles of RMSE (root mean square "
         "difference over the mean flux). The paper: good up to the 75th percentile.",
         reconstruction.spectra_from_labels, (10, 4.6)),
        (9, "Residuals by wavelength",
         "The same stars. The paper: a median near zero, wider below 450 nm.",
         reconstruction.residuals_by_wavelength, (7, 3.4)),
        (10, "RMSE against distance and parallax",
         "The paper: larger with distance, smaller with parallax S/N. Distant stars are faint and "
         "behind more dust: the correlations of RMSE with both are given too.",
         reconstruction.rmse_by_distance, (8, 3.4)),
        (11, "RMSE over the labels",
         "Median RMSE in cells of Teff, log g and [M/H]. The paper: uniform, larger at the edges.",
         reconstruction.rmse_over_labels, (11, 3.3)),
        (12, "One band from the other",
         "BP from the significant coefficients of RP, and RP from those of BP; below and above "
         "640 nm. The paper, from 52 coefficients: good for three quarters of the stars, often "
         "better than from labels.",
         reconstruction.band_inpainting, (10, 4.6)),
        (13, "Teff and luminosity over log g and [M/H]",
         "From log g and [M/H] alone, where giants are (the paper: log g 0 to 5); the luminosity "
         "is without dust. The paper: the giant branch, cooler with [M/H].",
         kiel_maps.temperature_and_luminosity, (11, 3.4)),
        (14, "Mass and age with and without Teff",
         "Over log g and [M/H]; Teff is the model's prediction there. The paper: the same means, "
         "smaller sigmas, heavier stars at the red clump.",
         kiel_maps.with_and_without_teff, (12, 5)),
        (15, "Age against [M/H]",
         "From log g and [M/H] alone, with the 1-sigma band. The paper: about 12 Gyr for "
         "metal-poor stars, 4 to 5 Gyr at solar [M/H].", kiel_maps.age_and_metallicity, (6.5, 3.8)),
        (16, "The extinction curve",
         "R(λ) = -2.5 log10(F/F0) / (0.884 E), of giants of log g 1 to 2.4 behind E = 0.4, 0.8 "
         "and 1.2 mag (SFD scale) and without dust. Spectra are over G and have no absolute "
         "level: A_G is Gaia's relation for giants; A_G from the model's luminosities is given "
         "too. The paper: agrees with Fitzpatrick 1999, R_V 3.1.",
         extinction_curve.extinction_figure, (10, 3.8)),
        (17, "Attention with and without dust",
         "Attention of the decoder's last block when a coefficient is requested. Attention is not "
         "an explanation of a prediction. The paper: it moves from Teff to E(B-V) when there is "
         "dust; that to mass and age does not change.",
         extinction_curve.attention_figure, (10, 5)),
        (18, "Colours from XP",
         "BP-RP and J-K from 32 coefficients a band. The paper: small scatter for both colours.",
         scatter_panels.colours, (8, 3.8)),
        (19, "RP0 from more and more inputs",
         "From labels; with J-H and J-K; with BP-RP too; next to XGBoost, fitted to the training "
         "stars. The paper: scatter falls by 4, then to that of XGBoost.",
         scatter_panels.rp0_by_inputs, (12, 3.2)),
    )
)  # fmt: skip

TRAINING_SEED = 90_210
"""Random seed of the simulated stars that XGBoost is fitted to, as in BenchmarkConfig."""

FIGURES = tuple(experiment.figure for experiment in EXPERIMENTS)


@dataclass(frozen=True)
class Scale:
    """Size of the experiments.

    Attributes
    ----------
    trees, tree_stars
        XGBoost, and the largest number of stars that it is fitted to.
    n_spectra
        Number of stars whose spectra are generated.
    """

    trees: Trees
    tree_stars: int
    n_spectra: int

    @classmethod
    def preset(cls, quick: bool, trees: Trees | None = None) -> Scale:
        """Return the full size, minutes on two cores, or a quick one.

        Parameters
        ----------
        quick
            Whether to return the quick one.
        trees
            XGBoost; by default as for simulated stars.
        """
        trees = trees or Trees.preset(quick, real=False)
        return cls(trees, 5_000, 1000) if quick else cls(trees, 50_000, 4000)


def select_experiments(figures: str) -> tuple[Experiment, ...]:
    """Return experiments by the numbers of their figures.

    Parameters
    ----------
    figures
        Such as "7,16"; "all" or "none".

    Raises
    ------
    JobError
        A number is not that of a figure.
    """
    if figures == "all":
        return EXPERIMENTS
    if figures == "none":
        return ()
    wanted = {word.strip() for word in figures.split(",")} - {""}
    known = {str(figure) for figure in FIGURES}
    if not wanted or wanted - known:
        raise JobError(
            "no such figure in Zhang, Bu et al. (2026)",
            wanted=f"all, none, or some of {', '.join(map(str, FIGURES))}",
            found=figures, where="--figures",
            advice=did_you_mean(figures.strip(), ("all", "none", *known)),
        )  # fmt: skip
    return tuple(item for item in EXPERIMENTS if str(item.figure) in wanted)


def exclude_training_stars(bundle: Bundle, stars: Benchmark) -> Benchmark:
    """Return the stars without the real ones in the model's training set; the name states it.

    Parameters
    ----------
    bundle
        The model.
    stars
        Test stars.

    Raises
    ------
    InputError
        No star is left.
    """
    trained_on = bundle.calibration.in_training(stars.ids)
    if not stars.real or not trained_on.any():
        return stars
    unseen = stars.rows(~trained_on)
    if not len(unseen):
        raise InputError(
            "the model was trained on all of the test stars",
            found=plural(len(stars), "star"), where=stars.name,
            advice="name other stars with --data",
        )  # fmt: skip
    return replace(unseen, name=f"{len(unseen):,} of {stars.name} (not in the training set)")


def make_context(
    bundle: Bundle, stars: Benchmark, data: Path | None, scale: Scale, device: str = "cpu"
) -> ExperimentContext:
    """Return the context of experiments on stars with known labels.

    Parameters
    ----------
    bundle
        The model.
    stars
        Test stars.
    data
        Folder of the test stars: XGBoost is fitted to its training part, where it has one;
        otherwise, and with None, to simulated stars.
    scale
        Size of the experiments.
    device
        Device of the model.
    """

    def load_training() -> Benchmark:
        wanted = Simulated.as_trained(scale.tree_stars, TRAINING_SEED, bundle.training)
        training = training_stars(data, wanted, bundle.vocabulary)
        return training.rows(slice(scale.tree_stars))

    predictor = Predictor(bundle, resolve_device(device))
    return ExperimentContext(predictor, stars, load_training, scale.trees, scale.n_spectra)


def run_experiments(
    experiments: Sequence[Experiment],
    context: ExperimentContext,
    progress: Progress | None = None,
) -> list[ExperimentResult]:
    """Run experiments.

    An experiment that needs what the model was not trained to predict, or what its vocabulary
    lacks, is skipped, with the reason.

    Parameters
    ----------
    experiments
        Which.
    context
        Model and stars.
    progress
        Called with (experiments done, all experiments, title).
    """
    results = []
    for done, experiment in enumerate(experiments):
        if progress is not None:
            progress(done, len(experiments), f"figure {experiment.figure}: {experiment.title}")
        try:
            results.append(ExperimentResult(experiment, experiment.run(context)))
        except (BundleError, ContractError) as error:
            results.append(ExperimentResult(experiment, None, error.message))
    if progress is not None:
        progress(len(experiments), len(experiments), "")
    return results
