"""Predicted distributions of several Gaussians: network, derivatives, percentiles, likelihood."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import optimize, stats
from support.reference_network import reference_prediction

from catalogproc.errors import JobError
from catalogproc.network.bundle import Domain, Standardisation, load_bundle
from catalogproc.network.bundle_writer import BundleContent, write_bundle
from catalogproc.network.components import Components, joined
from catalogproc.network.error_propagation import differentiate
from catalogproc.network.jacobian import ReversePass
from catalogproc.network.mixture import Mixture
from catalogproc.network.packed_tokens import PackedTokens
from catalogproc.network.predictor import Predictor
from catalogproc.network.shape import Shape
from catalogproc.network.star_tokens import StarTokens
from catalogproc.network.transformer import Transformer
from catalogproc.vocabulary import load_vocabulary

VOCABULARY = load_vocabulary()
V = len(VOCABULARY)
LABELS = ("teff", "mass", "log_age", "m_h")
MIXED = tuple(int(n) + 1 for n in VOCABULARY.columns(["mass", "log_age"]))
REQUESTS = torch.from_numpy(VOCABULARY.columns(LABELS) + 1)
SHAPE = Shape(V, 16, ((4, 24),), ((4, 32), (2, 16)), (24, 12), components=3, mixture=MIXED)


def network(shape: Shape = SHAPE) -> Transformer:
    with torch.random.fork_rng():
        torch.manual_seed(6)
        return Transformer(shape).eval().requires_grad_(False)


def stars(n: int = 8) -> np.ndarray:
    rng = np.random.default_rng(8)
    values = rng.normal(size=(n, V))
    values[rng.random((n, V)) < 0.8] = np.nan
    return values


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    rng = np.random.default_rng(5)
    content = BundleContent(
        name="mixture", description="random weights", network=network(), vocabulary=VOCABULARY,
        standardisation=Standardisation(rng.normal(size=V), 10 ** rng.uniform(-1, 1, V)),
        domain=Domain(np.full(V, np.nan), np.full(V, np.nan)), training={},
        check_tokens=StarTokens.exact(stars(2)), check_labels=LABELS,
    )  # fmt: skip
    return write_bundle(tmp_path_factory.mktemp("bundle"), content)


def random_mixture(n: int = 50, seed: int = 1) -> Mixture:
    rng = np.random.default_rng(seed)
    return Mixture(
        rng.dirichlet(np.ones(3), n), rng.normal(0, 3, (n, 3)), rng.uniform(0.1, 2, (n, 3))
    )


@pytest.mark.parametrize("mixture", [(), tuple(range(1, V + 1))])
def test_moments_are_those_of_the_reference_network(mixture):
    made = network(replace(SHAPE, mixture=mixture)).double()
    weights = {key: value.numpy() for key, value in made.state_dict().items()}
    heads = [[h for h, _ in blocks] for blocks in (SHAPE.encoder, SHAPE.decoder)]
    rng = np.random.default_rng(3)
    ids, x = np.array([4, 60, 111]), rng.normal(size=3)
    wanted = reference_prediction(weights, *heads, list(zip(ids, x, strict=True)), REQUESTS.numpy())
    packed = PackedTokens(torch.from_numpy(ids)[None], torch.from_numpy(x)[None])
    found = made(packed, REQUESTS)
    np.testing.assert_allclose(torch.stack(found)[:, 0], wanted, atol=1e-10)


def test_only_the_chosen_labels_are_several_gaussians():
    made = network().double()
    packed = PackedTokens(torch.tensor([[4, 60]]), torch.tensor([[0.3, -1.0]]).double())
    found = made.distributions(packed, REQUESTS)
    weights = found.log_weights.exp()[0]
    assert (weights[[0, 3]] == torch.tensor([1.0, 0.0, 0.0])).all()
    assert (weights[[1, 2]] > 0).all()
    torch.testing.assert_close(weights.sum(-1), torch.ones(4).double())
    mean, log_variance = found.moments()
    assert (mean[0, [0, 3]] == found.means[0, [0, 3], 0]).all()
    torch.testing.assert_close(log_variance[0, [0, 3]], found.log_variances[0, [0, 3], 0])
    per_star = made.distributions(packed, REQUESTS[None].expand(1, -1))
    torch.testing.assert_close(per_star.log_weights, found.log_weights)


def test_derivatives_of_the_mean_equal_those_of_automatic_differentiation():
    net = network().double()
    ids = torch.tensor([[5, 9, 114, 60], [7, 111, 0, 0]])
    values = torch.randn(2, 4, generator=torch.Generator().manual_seed(2)).double()
    values.masked_fill_(ids == 0, 0.0)
    found = ReversePass(net)(PackedTokens(ids, values), REQUESTS)
    x = values.clone().requires_grad_(True)
    mean, log_variance = net(PackedTokens(ids, x), REQUESTS)
    rows = [torch.autograd.grad(mean[:, k].sum(), x, retain_graph=True)[0] for k in range(4)]
    wanted = torch.stack(rows, 1).masked_fill((ids == 0)[:, None], 0.0)
    torch.testing.assert_close(found.jacobian, wanted, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(found.mean, mean.detach(), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(found.log_variance, log_variance.detach(), rtol=1e-12, atol=1e-12)


def test_the_surprise_is_the_likelihood_of_gaussians_that_the_truth_s_error_widens():
    rng = np.random.default_rng(4)
    mixed = random_mixture(20)
    error, truth = rng.uniform(0.0, 1.0, 20), rng.normal(0, 3, 20)
    error[:5] = 0.0
    found = Components(
        *(torch.from_numpy(x)[:, None] for x in
          (mixed.means, np.log(mixed.sigmas**2), np.log(mixed.weights)))
    ).surprise(torch.from_numpy(truth)[:, None], torch.from_numpy(error)[:, None])  # fmt: skip
    found = found[:, 0]
    widened = Mixture(mixed.weights, mixed.means, np.hypot(mixed.sigmas, error[:, None]))
    wanted = -widened.log_likelihood(truth) - 0.5 * np.log(2 * np.pi)
    np.testing.assert_allclose(found, wanted, rtol=1e-10)
    density = sum(
        w * stats.norm(m, s).pdf(x) for w, m, s, x in
        zip(widened.weights.T, widened.means.T, widened.sigmas.T, [truth] * 3, strict=True)
    )  # fmt: skip
    np.testing.assert_allclose(widened.log_likelihood(truth), np.log(density), rtol=1e-10)


def test_percentiles_are_the_roots_of_the_distribution_function():
    mixed = random_mixture()
    for level in (0.001, 0.158655, 0.5, 0.841345, 0.999):
        found = mixed.percentile(level)
        np.testing.assert_allclose(mixed.cdf(found), level, atol=1e-10)
        for star in range(0, 50, 10):
            w, m, s = mixed.weights[star], mixed.means[star], mixed.sigmas[star]
            by_scipy = optimize.brentq(lambda x: w @ stats.norm.cdf(x, m, s) - level, -40, 40)  # noqa: B023
            assert found[star] == pytest.approx(by_scipy, abs=1e-8)
    np.testing.assert_allclose(stats.norm.cdf(mixed.score(mixed.percentile(0.3))), 0.3, atol=1e-9)


def test_one_gaussian_is_the_special_case():
    weights = np.tile([1.0, 0.0, 0.0], (4, 1))
    means, sigmas = np.tile([2.0, -50.0, 90.0], (4, 1)), np.tile([0.5, 3.0, 1.0], (4, 1))
    mixed = Mixture(weights, means, sigmas)
    np.testing.assert_allclose(mixed.percentile(0.841345), 2.0 + 0.5 * 1.0, atol=1e-5)
    np.testing.assert_allclose(mixed.score(np.array([2.0, 1.5, 3.0, 2.25])), [0, -1, 2, 0.5])
    means[1, 0] = np.nan
    assert np.isnan(Mixture(weights, means, sigmas).percentile(0.5)).tolist() == [0, 1, 0, 0]


def test_percentiles_of_gaussians_of_all_widths():
    """Sigmas from 1e-4 to 100, and weights down to 0: halving helps where steps do not."""
    random = np.random.default_rng(4)
    weights = random.dirichlet([0.3, 0.3, 0.3], 5000)
    means, sigmas = random.normal(0, 10, (5000, 3)), 10.0 ** random.uniform(-4, 2, (5000, 3))
    mixed, level = Mixture(weights, means, sigmas), random.uniform(0.001, 0.999, 5000)
    np.testing.assert_allclose(mixed.cdf(mixed.percentile(level)), level, rtol=0, atol=1e-8)
    few = Mixture(weights[7:9], means[7:9], sigmas[7:9])
    np.testing.assert_array_equal(few.percentile(level[7:9]), mixed.percentile(level)[7:9])


def test_percentiles_of_two_separate_peaks():
    """A quarter of the probability at 0, the rest at 10: 12.5 % is the median of the first."""
    mixed = Mixture(np.array([[0.25, 0.75]]), np.array([[0.0, 10.0]]), np.full((1, 2), 0.1))
    assert mixed.percentile(0.125)[0] == pytest.approx(0.0, abs=1e-9)
    assert mixed.percentile(0.625)[0] == pytest.approx(10.0, abs=1e-9)


def test_predictions_have_the_distributions_of_the_chosen_labels(bundle):
    predictor, tokens = Predictor(bundle), StarTokens.exact(stars())
    found = predictor.predict(tokens, LABELS)
    assert set(found.mixtures) == {"mass", "log_age"}
    for label, mixed in found.mixtures.items():
        k = LABELS.index(label)
        mean = (mixed.weights * mixed.means).sum(axis=1)
        second = (mixed.weights * (mixed.sigmas**2 + mixed.means**2)).sum(axis=1)
        np.testing.assert_allclose(found.mean[:, k], mean, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(found.sigma[:, k], np.sqrt(second - mean**2), rtol=1e-4)
    alone = predictor.predict(tokens, ("mass",))
    np.testing.assert_allclose(
        alone.mixtures["mass"].means, found.mixtures["mass"].means, rtol=1e-4
    )
    prediction, _ = differentiate(predictor, tokens, LABELS)
    np.testing.assert_allclose(
        prediction.mixtures["log_age"].weights, found.mixtures["log_age"].weights, rtol=1e-4
    )
    predictor.self_check()


def test_a_bundle_keeps_its_shape_and_a_wrong_one_is_refused(bundle):
    assert load_bundle(bundle.path).shape == SHAPE
    plain = replace(SHAPE, components=1, mixture=()).to_dict()
    assert not {"components", "mixture"} & set(plain)
    for wrong in ({"components": 0}, {"mixture": (V + 1,)}, {"components": 1}):
        with pytest.raises(JobError):
            replace(SHAPE, **wrong)


def test_parts_of_a_batch_are_joined():
    whole = Components(*torch.randn(3, 5, 2, 3).unbind(0))
    parts = [Components(*(x[at] for x in vars(whole).values())) for at in (slice(2), slice(2, 5))]
    for one, other in zip(vars(joined(parts)).values(), vars(whole).values(), strict=True):
        assert torch.equal(one, other)
