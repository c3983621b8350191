"""Networks that read the errors of tokens: against the reference network and autograd."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from support.reference_network import reference_prediction

from catalogproc.errors import BundleError, ContractError
from catalogproc.network.bundle import Domain, ErrorScaling, Standardisation, load_bundle
from catalogproc.network.bundle_writer import BundleContent, rewrite_bundle, write_bundle
from catalogproc.network.error_propagation import differentiate
from catalogproc.network.jacobian import ReversePass
from catalogproc.network.packed_tokens import PackedTokens
from catalogproc.network.predictor import Predictor
from catalogproc.network.shape import Shape
from catalogproc.network.star_tokens import StarTokens
from catalogproc.network.transformer import Transformer
from catalogproc.vocabulary import load_vocabulary

VOCABULARY = load_vocabulary()
V = len(VOCABULARY)
LABELS = ("teff", "mass", "rp7")
REQUESTS = torch.from_numpy(VOCABULARY.columns(LABELS) + 1)
SHAPE = Shape(V, 16, ((4, 24), (2, 16)), ((4, 32), (2, 16)), (24, 12), reads_errors=True)


def network(shape: Shape = SHAPE) -> Transformer:
    """A network in which the tables of errors are not zero, as after a training."""
    with torch.random.fork_rng():
        torch.manual_seed(6)
        made = Transformer(shape).eval().requires_grad_(False)
        for name, weight in made.named_parameters():
            if name.startswith("error_"):
                weight.normal_(std=0.3)
    return made


def scaling() -> ErrorScaling:
    rng = np.random.default_rng(7)
    center = rng.normal(-3, 2, V)
    return ErrorScaling(center, rng.uniform(0.5, 2, V), center - 3, center + 4)


def tokens(n: int = 12) -> StarTokens:
    """Values of which some are absent, with errors that are known, unknown, 0 or huge."""
    rng = np.random.default_rng(8)
    values = rng.normal(size=(n, V))
    values[rng.random((n, V)) < 0.7] = np.nan
    errors = np.exp(rng.normal(-3, 3, (n, V)))
    kind = rng.random((n, V))
    errors[kind < 0.3], errors[kind < 0.2], errors[kind < 0.1] = np.nan, 0.0, 1e30
    return StarTokens(values, errors)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    rng = np.random.default_rng(5)
    content = BundleContent(
        name="reads errors",
        description="random weights",
        network=network(),
        vocabulary=VOCABULARY,
        standardisation=Standardisation(rng.normal(size=V), 10 ** rng.uniform(-1, 1, V)),
        domain=Domain(np.full(V, np.nan), np.full(V, np.nan)),
        training={},
        check_tokens=tokens(3),
        check_labels=LABELS,
        error_scaling=scaling(),
    )
    return write_bundle(tmp_path_factory.mktemp("bundle"), content)


def test_predictions_are_those_of_the_reference_network(bundle):
    """The reference in float64, with r by its definition: limited, 0 where the error is unknown."""
    stars, errors = tokens(), scaling()
    found = Predictor(bundle).predict(stars, LABELS)
    weights = {k: v.double().numpy() for k, v in bundle.network().state_dict().items()}
    heads = [[h for h, _ in blocks] for blocks in (SHAPE.encoder, SHAPE.decoder)]
    scales, at = bundle.standardisation, VOCABULARY.columns(LABELS)
    for row in range(len(stars)):
        given = []
        for i in np.flatnonzero(~np.isnan(stars.values[row])):
            error = stars.errors[row, i]
            log = max(errors.low[i], -np.inf if error == 0 else min(np.log(error), errors.high[i]))
            r = 0.0 if np.isnan(error) else (log - errors.center[i]) / errors.scale[i]
            given.append((i + 1, (stars.values[row, i] - scales.center[i]) / scales.scale[i], r))
        mean, log_variance = reference_prediction(weights, *heads, given, at + 1)
        sigma = np.exp(log_variance / 2)
        off = (found.mean[row] - scales.center[at]) / scales.scale[at] - mean
        assert (np.abs(off) < 5e-5 * sigma).all()
        np.testing.assert_allclose(found.sigma[row], sigma * scales.scale[at], rtol=5e-5)


def test_a_bundle_that_reads_errors_is_read_as_it_was_written(bundle, tmp_path):
    again = load_bundle(bundle.path)
    assert again.reads_errors
    for name in ("center", "scale", "low", "high"):
        written = getattr(scaling(), name)
        np.testing.assert_array_equal(getattr(again.error_scaling, name), written)
    np.testing.assert_array_equal(again.self_check.tokens.values, tokens(3).values)
    present = tokens(3).present
    np.testing.assert_array_equal(
        again.self_check.tokens.errors[present], tokens(3).errors[present]
    )
    Predictor(again).self_check()
    copy = rewrite_bundle(again, tmp_path / "copy")
    assert rewrite_bundle(copy, tmp_path / "another").hash == copy.hash
    one, other = (Predictor(item).predict(tokens(), LABELS) for item in (bundle, copy))
    np.testing.assert_array_equal(one.mean, other.mean)


def test_the_errors_change_the_predictions_and_the_self_check_sees_them(bundle):
    predictor, stars = Predictor(bundle), tokens()
    stated = predictor.predict(stars, LABELS)
    for other in (StarTokens.exact(stars.values), StarTokens.typical(stars.values)):
        assert (np.abs(predictor.predict(other, LABELS).mean - stated.mean) > 0).all()
    check = replace(bundle.self_check, tokens=StarTokens.typical(bundle.self_check.tokens.values))
    predictor.bundle = replace(bundle, self_check=check)
    with pytest.raises(BundleError, match="does not reproduce its stored predictions"):
        predictor.self_check()


def test_errors_beyond_those_of_the_training_are_read_as_its_limits(bundle):
    predictor, values = Predictor(bundle), tokens().values
    low, high = (np.exp(getattr(scaling(), name)) for name in ("low", "high"))
    for beyond, limit in ((0.0 * low, low), (low / 1e3, low), (high * 1e3, high)):
        one, other = (
            predictor.predict(StarTokens(values, np.broadcast_to(e, values.shape)), LABELS)
            for e in (beyond, limit)
        )
        np.testing.assert_allclose(one.mean, other.mean, rtol=1e-6)


def test_with_tables_of_zeros_a_network_is_one_that_does_not_read_errors():
    old = network(replace(SHAPE, reads_errors=False))
    new = Transformer(SHAPE).eval()
    missing, unexpected = new.load_state_dict(old.state_dict(), strict=False)
    assert sorted(missing) == ["error_bias", "error_weight"]
    assert not unexpected
    ids, x = torch.tensor([[3, 9, 114]]), torch.tensor([[0.3, -1.0, 2.0]])
    with torch.inference_mode():
        one = old(PackedTokens(ids, x), REQUESTS)
        other = new(PackedTokens(ids, x, torch.tensor([[1.0, -2.0, 0.5]])), REQUESTS)
    assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_derivatives_equal_those_of_automatic_differentiation(bundle):
    net, packed = network().double(), bundle.pack(tokens(4)).to(torch.device("cpu"), torch.float64)
    found = ReversePass(net)(packed, REQUESTS)
    values = packed.values.clone().requires_grad_(True)
    mean, log_variance = net(replace(packed, values=values), REQUESTS)
    rows = [torch.autograd.grad(mean[:, k].sum(), values, retain_graph=True)[0] for k in range(3)]
    wanted = torch.stack(rows, 1).masked_fill(~packed.present[:, None], 0.0)
    torch.testing.assert_close(found.jacobian, wanted, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(found.log_variance, log_variance, rtol=1e-12, atol=1e-12)


def test_every_road_reads_the_errors(bundle):
    predictor, stars = Predictor(bundle), tokens(5)
    exact = StarTokens.exact(stars.values)
    whole = predictor.predict(stars, LABELS)
    assert differentiate(predictor, stars, LABELS)[0].mean == pytest.approx(whole.mean, rel=1e-5)
    assert np.abs(predictor.summaries(stars) - predictor.summaries(exact)).min(axis=1).max() > 0


def test_a_road_that_drops_errors_is_refused(bundle):
    packed = replace(bundle.pack(tokens(2)), errors=None)
    for forward in (network(), ReversePass(network())):
        with pytest.raises(BundleError, match="reads errors, and the tokens have none"):
            forward(packed, REQUESTS)
    plain = network(replace(SHAPE, reads_errors=False))
    with pytest.raises(BundleError, match="errors that the network does not read"):
        plain(bundle.pack(tokens(2)), REQUESTS)
    with pytest.raises(BundleError, match="belongs to a network that reads them"):
        write_bundle(bundle.path / "x", BundleContent(
            name="x", description="", network=network(), vocabulary=VOCABULARY,
            standardisation=bundle.standardisation, domain=bundle.domain, training={},
            check_tokens=tokens(1), check_labels=LABELS,
        ))  # fmt: skip
    with pytest.raises(ContractError, match="values and errors must have one row per star"):
        StarTokens(np.ones((2, 3)), np.ones((2, 4)))
    one = np.ones(2)
    with pytest.raises(BundleError, match="errors cannot be standardised"):
        ErrorScaling(one, 0 * one, one, one)
