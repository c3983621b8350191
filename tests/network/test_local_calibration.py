"""Local calibration: coverage at each place of the latent space, larger errors off the stars."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from scipy.spatial.distance import cdist
from support.bundles import tiny_bundle

from catalogproc.evaluation.latent_cells import latent_cells
from catalogproc.network.bundle import Bundle, load_bundle
from catalogproc.network.bundle_writer import rewrite_bundle
from catalogproc.network.local_calibration import CLOSENESS, SHARE, LocalTerm, Places, growth
from catalogproc.network.predictor import Predictor
from catalogproc.network.star_tokens import StarTokens
from catalogproc.network.uncertainty_calibration import (
    LabelCalibration,
    Latent,
    UncertaintyCalibration,
)
from catalogproc.training.fit_calibration import LabelPredictions, fit_label_calibration
from catalogproc.training.local_fit import fit_places

N = 12_000
PRESENT, COEFFICIENTS = np.ones((N, 1), dtype=bool), np.ones(1, dtype=bool)


def stars(seed: int) -> tuple[np.ndarray, LabelPredictions]:
    """Places in three dimensions, and a sigma that is wrong by a factor that depends on them."""
    random = np.random.default_rng(seed)
    at = random.normal(size=(N, 3))
    sigma = np.exp(0.5 * np.sin(2.0 * at[:, 0]) * np.cos(at[:, 1]))
    truth = sigma * random.normal(size=N)
    zero, one = np.zeros(N), np.exp(random.normal(0.0, 0.01, N))
    return at, LabelPredictions(zero, one, zero, truth, zero, np.arange(N))


@pytest.fixture(scope="module")
def places() -> Places:
    found = fit_places(stars(1)[0], PRESENT, COEFFICIENTS, np.arange(N))
    assert found is not None
    return found


def test_a_star_that_is_read_twice_counts_once(places: Places) -> None:
    at, known = stars(1)
    twice = LabelPredictions(*(np.concatenate([x, x]) for x in vars(known).values()))
    near = places.closeness(at, PRESENT)
    once, again = (
        fit_label_calibration(predictions, {CLOSENESS: closeness})
        for predictions, closeness in ((known, near), (twice, np.concatenate([near, near])))
    )
    assert once is not None
    assert again is not None
    numbers = [
        next(term for term in found.terms if isinstance(term, LocalTerm)).stars
        for found in (once, again)
    ]
    np.testing.assert_allclose(numbers[0], numbers[1])
    assert numbers[0].sum() == pytest.approx(N)
    doubled = np.concatenate([at, at]), np.ones((2 * N, 1), dtype=bool)
    found = fit_places(*doubled, COEFFICIENTS, np.concatenate([known.ids, known.ids]))
    assert found is not None
    assert abs(len(found.centres) - len(places.centres)) < 0.05 * len(places.centres)


def test_coverage_holds_in_cells_where_that_of_a_global_calibration_does_not(
    places: Places,
) -> None:
    at, known = stars(1)
    there, others = stars(2)
    cells = (there[:, 0] > np.array([[-1.0], [0.0], [1.0]])).sum(axis=0)
    cells = 3 * cells + (there[:, 1] > np.array([[-0.5], [0.5]])).sum(axis=0)
    worst = {}
    for name, context in (("global", {}), ("local", {CLOSENESS: places.closeness(at, PRESENT)})):
        fitted = fit_label_calibration(known, context)
        assert fitted is not None
        nearness = {CLOSENESS: places.closeness(there, PRESENT)}
        inside = np.abs(others.truth) < fitted.sigma(others.sigma, nearness)
        assert inside.mean() == pytest.approx(SHARE, abs=0.03)
        shares = [inside[cells == cell].mean() for cell in range(12)]
        worst[name] = max(abs(share - SHARE) for share in shares)
    assert worst["global"] > 0.12
    assert worst["local"] < 0.05


def test_sigma_grows_where_calibration_stars_are_few(places: Places) -> None:
    at, known = stars(1)
    fitted = fit_label_calibration(known, {CLOSENESS: places.closeness(at, PRESENT)})
    assert fitted is not None
    along = np.stack([np.zeros(50), np.zeros(50), np.linspace(0.0, 12.0, 50)], axis=1)
    near = places.closeness(along, PRESENT[:50])
    sigma = fitted.sigma(np.ones(50), {CLOSENESS: near})
    # At the centre thousands are near, and sigma is about that of the stars there; far from all
    # it is that of a single residual.
    assert sigma[0] == pytest.approx(1.0, rel=0.3)
    assert sigma[-1] / sigma[0] == pytest.approx(1.84, rel=0.2)
    few = LocalTerm(np.zeros(len(places.widths)), np.full(len(places.widths), 75.0))
    assert (np.diff(few(near)[along[:, 2] > 3.0]) >= 0).all()
    assert few(near)[0] < 0.01


def test_growth_is_that_of_a_sigma_measured_on_few_stars() -> None:
    random = np.random.default_rng(3)
    for n in (1, 3, 10, 100):
        measured = np.sqrt(np.mean(random.normal(size=(100_000, n)) ** 2, axis=1))
        inside = np.abs(random.normal(size=100_000)) < measured * np.exp(growth(n))
        assert inside.mean() == pytest.approx(SHARE, abs=0.006), n
    assert growth(1e6) == pytest.approx(0.0, abs=1e-5)
    n = np.geomspace(1.0, 1e7, 1000)
    exact = np.log(stats.t.ppf(0.5 + 0.5 * SHARE, n))
    np.testing.assert_allclose(growth(n), exact, rtol=0, atol=1e-11)
    assert growth(0.0) == growth(1.0) == pytest.approx(np.log(1.84), abs=0.01)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A network with five places, of which the label teff depends."""
    plain = tiny_bundle(tmp_path_factory.mktemp("plain"))
    width, size = plain.shape.width, len(plain.vocabulary)
    random = np.random.default_rng(5)
    coefficients = np.array([token.kind == "coefficient" for token in plain.vocabulary.tokens])
    known = np.ones(size)
    known[plain.vocabulary.column("mass")] = 0.0
    places = Places(
        random.normal(size=(width, 4)), random.normal(size=(5, 4)), np.full(5, 3.0), known,
        coefficients,
    )  # fmt: skip
    latent = Latent(
        random.normal(size=width), 0.1 * random.normal(size=(size, width)), np.eye(width),
        0.01 * random.normal(size=size), 5.0, places,
    )  # fmt: skip
    terms = (LocalTerm(random.normal(size=5), np.full(5, 40.0)),)
    calibration = UncertaintyCalibration({"teff": LabelCalibration(terms)}, latent)
    folder = tmp_path_factory.mktemp("made") / "local"
    return rewrite_bundle(plain, folder, calibration=calibration)


def test_a_bundle_keeps_its_places_and_its_predictions_have_their_closeness(
    bundle: Bundle,
) -> None:
    """By scipy's distances in float64; a star without a spectrum is at no place."""
    again = load_bundle(str(bundle.path))
    random = np.random.default_rng(6)
    size = len(bundle.vocabulary)
    values = bundle.standardisation.center + random.normal(size=(30, size))
    values[random.random((30, size)) < 0.3] = np.nan
    values[:, bundle.vocabulary.column("mass")] = np.nan
    coefficients = np.array([token.kind == "coefficient" for token in bundle.vocabulary.tokens])
    values[0, coefficients] = np.nan
    values[1, bundle.vocabulary.column("mass")] = 1.0
    tokens = StarTokens(values, np.full_like(values, np.nan))
    predictor = Predictor(again)
    found = predictor.predict(tokens, ["teff", "logg"]).closeness
    assert found is not None
    assert np.isnan(found[:2]).all()
    latent = again.calibration.latent
    assert latent is not None
    assert latent.places is not None
    present = np.isfinite(values)
    residuals = latent.residual(predictor.summaries(tokens).astype(np.float64), present)
    at = residuals @ latent.places.projection
    wanted = np.exp(-(cdist(at, latent.places.centres) ** 2) / (2 * latent.places.widths**2))
    np.testing.assert_allclose(found[2:], wanted[2:], rtol=2e-3, atol=1e-6)
    np.testing.assert_allclose(
        latent.places.closeness(residuals, present)[2:], wanted[2:], rtol=1e-6, atol=1e-12
    )
    sigma = again.calibration.by_label["teff"].sigma(np.full(30, 50.0), {CLOSENESS: found})
    assert sigma[:2] == pytest.approx(50.0)
    assert (np.abs(sigma[2:] / 50.0 - 1.0) > 1e-3).all()


class Summaries:
    """A predictor of given summaries, without a latent Gaussian."""

    bundle = type("bundle", (), {"calibration": UncertaintyCalibration()})

    def __init__(self, found: np.ndarray) -> None:
        self.found = found

    def summaries(self, tokens: StarTokens) -> np.ndarray:
        return self.found


def test_cells_are_equally_large_and_follow_what_a_network_sees_as_alike() -> None:
    random = np.random.default_rng(7)
    group = np.arange(1_200) % 3
    summaries = random.normal(size=(1_200, 8)) + 12.0 * np.eye(8)[group]
    tokens = StarTokens(np.zeros((1_200, 1)), np.zeros((1_200, 1)))
    cells = latent_cells(Summaries(summaries), tokens, 12)
    assert (np.bincount(cells) == 100).all()
    # Three groups in twelve cells: nine tenths of the cells are of one group alone.
    shares = [np.bincount(group[cells == cell], minlength=3).max() / 100 for cell in range(12)]
    assert np.mean(np.array(shares) > 0.95) > 0.6
