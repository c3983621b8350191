"""Predictions against the reference network, in batches of any kind."""

from __future__ import annotations

import threading
import tracemalloc
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy
from scipy.spatial.distance import mahalanobis
from support.reference_network import reference_prediction
from torch.utils._python_dispatch import TorchDispatchMode

from catalogproc.errors import BundleError, ContractError, JobError
from catalogproc.network import predictor as module
from catalogproc.network.bundle import Domain, Standardisation
from catalogproc.network.bundle_writer import BundleContent, write_bundle
from catalogproc.network.error_propagation import differentiate
from catalogproc.network.inference_pass import InferencePass
from catalogproc.network.packed_tokens import PackedTokens, pack
from catalogproc.network.predictor import Predictor
from catalogproc.network.shape import Shape
from catalogproc.network.star_tokens import StarTokens
from catalogproc.network.transformer import Transformer
from catalogproc.network.uncertainty_calibration import Latent, UncertaintyCalibration
from catalogproc.vocabulary import load_vocabulary

typical = StarTokens.typical

VOCABULARY = load_vocabulary()
V = len(VOCABULARY)
LABELS = ("teff", "logg", "m_h", "mass", "log_age", "logebv", "g_fakemag")
SHAPE = Shape(V, 16, ((4, 24), (2, 16)), ((4, 32), (2, 16)), (24, 12), dropout=0.1)
SAME = 2e-5  # of a label's scale, as Predictor promises; sigma is about that here


def stars(n: int, seed: int = 0, tokens: tuple[int, int] = (0, 64)):
    """Standard normal tokens, of which each star has a random few."""
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(n, V))
    counts = rng.integers(tokens[0], tokens[1] + 1, size=n)
    rank = rng.random((n, V)).argsort(axis=1).argsort(axis=1)
    values[rank >= counts[:, None]] = np.nan
    return values


def make(folder, shape=SHAPE, **changes):
    rng = np.random.default_rng(5)
    with torch.random.fork_rng():
        torch.manual_seed(5)
        network = Transformer(shape)
    content = BundleContent(
        **{
            "name": "for tests",
            "description": "random weights",
            "network": network,
            "vocabulary": VOCABULARY,
            "standardisation": Standardisation(rng.normal(size=V), 10 ** rng.uniform(-3, 3, V)),
            "domain": Domain(np.full(V, np.nan), np.full(V, np.nan)),
            "training": {},
            "check_tokens": typical(stars(4, seed=1)),
            "check_labels": LABELS,
        }
        | changes,
    )
    return write_bundle(folder, content)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return make(tmp_path_factory.mktemp("bundle"))


@pytest.fixture(scope="module")
def predictor(bundle):
    return Predictor(bundle)


def physical(bundle, z):
    return z * bundle.standardisation.scale + bundle.standardisation.center


def assert_same(one, other, tolerance=SAME):
    rounding = np.spacing(np.abs(other.mean))  # of an answer that is kept as float32
    assert (np.abs(one.mean - other.mean) <= tolerance * other.sigma + rounding).all()
    np.testing.assert_allclose(one.sigma, other.sigma, rtol=tolerance)


def rows_of(prediction, rows):
    return type(prediction)(prediction.labels, prediction.mean[rows], prediction.sigma[rows])


@pytest.mark.parametrize("shape", [SHAPE, Shape(V)], ids=["small", "paper"])
def test_predictions_are_those_of_the_reference_network(tmp_path, shape):
    bundle = make(tmp_path / "bundle", shape)
    z = stars(12, seed=2)
    z[3] = np.nan
    answer = Predictor(bundle).predict(typical(physical(bundle, z)), LABELS)
    weights = {k: v.double().numpy() for k, v in bundle.network().state_dict().items()}
    heads = [[h for h, _ in blocks] for blocks in (shape.encoder, shape.decoder)]
    columns = VOCABULARY.columns(LABELS)
    scale, center = bundle.standardisation.scale[columns], bundle.standardisation.center[columns]
    for row, star in enumerate(z):
        tokens = [(number + 1, star[number]) for number in np.flatnonzero(~np.isnan(star))]
        mean, log_variance = reference_prediction(weights, *heads, tokens, columns + 1)
        sigma = np.exp(log_variance / 2)
        off = np.abs(answer.mean[row] - (mean * scale + center))
        assert (off <= SAME * sigma * scale + np.spacing(np.abs(answer.mean[row]))).all(), row
        np.testing.assert_allclose(answer.sigma[row], sigma * scale, rtol=SAME)
    assert answer.labels == LABELS
    assert answer.mean.dtype == answer.sigma.dtype == np.float32
    assert answer.mean.shape == answer.sigma.shape == (12, len(LABELS))


def test_a_star_gets_the_same_numbers_in_any_batch_and_order(bundle, predictor, monkeypatch):
    values = physical(bundle, stars(300, seed=3))
    whole = predictor.predict(typical(values), LABELS)
    order = np.random.default_rng(4).permutation(300)
    assert_same(predictor.predict(typical(values[order]), LABELS), rows_of(whole, order))
    assert_same(predictor.predict(typical(values[:7]), LABELS), rows_of(whole, slice(7)))
    alone = [predictor.predict(typical(values[row : row + 1]), LABELS) for row in range(40)]
    for row, answer in enumerate(alone):
        assert_same(answer, rows_of(whole, slice(row, row + 1)))
    for budget, rows in (((64, 7), 10), ((1_000_000, 1_000_000), 1000), ((333, 50), 299)):
        monkeypatch.setitem(module.BUDGET, "cpu", budget)
        monkeypatch.setattr(module, "SLICE", rows)
        assert_same(predictor.predict(typical(values), LABELS), whole)


def test_no_star_is_lost_at_the_end_of_a_batch(bundle, predictor, monkeypatch):
    monkeypatch.setitem(module.BUDGET, "cpu", (640, 70))
    monkeypatch.setattr(module, "SLICE", 32)
    for n in (0, 1, 9, 10, 11, 31, 32, 33, 65):
        values = physical(bundle, stars(n, seed=n))
        answer = predictor.predict(typical(values), LABELS)
        assert answer.mean.shape == (n, len(LABELS))
        assert np.isfinite(answer.mean).all()
        assert (answer.sigma > 0).all()


def test_a_label_gets_the_same_numbers_with_any_other_labels(bundle, predictor):
    values = physical(bundle, stars(50, seed=5))
    whole = predictor.predict(typical(values), VOCABULARY.names)
    for labels in (LABELS, LABELS[::-1], ("mass",), ("bp0", "teff", "bp0")):
        answer = predictor.predict(typical(values), labels)
        assert_same(answer, rows_of(whole, (slice(None), VOCABULARY.columns(labels))))


def test_every_trained_token_can_be_predicted_and_no_other(tmp_path, predictor):
    bundle = make(tmp_path / "bundle", requestable=["teff", "mass"])
    values = physical(bundle, stars(3))
    assert np.isfinite(predictor.predict(typical(values), VOCABULARY.names).mean).all()
    with pytest.raises(BundleError, match=r"not trained(.|\n)*wanted: teff, mass\n  found: bprp"):
        Predictor(bundle).predict(typical(values), ["teff", "bprp"])


def test_a_star_is_encoded_once_and_all_labels_are_decoded_together(bundle, predictor, monkeypatch):
    values = physical(bundle, stars(100, seed=6))
    network = predictor.forward
    calls = {"encode": [], "decode_components": []}
    for name in calls:
        method = getattr(network, name)

        def spy(*args, method=method, name=name):
            calls[name].append(args)
            return method(*args)

        monkeypatch.setattr(network, name, spy)
    for labels in (LABELS[:1], LABELS, VOCABULARY.names):
        for seen in calls.values():
            seen.clear()
        predictor.predict(typical(values), labels)
        assert sum(len(packed) for (packed,) in calls["encode"]) == 100
        assert len(calls["decode_components"]) == len(calls["encode"])
        for memory, _, requests in calls["decode_components"]:
            assert len(requests) == len(labels)
            # Nothing the length of the table is kept on the device.
            assert memory.shape[0] * len(labels) <= max(module.BUDGET["cpu"][1], len(labels))


def test_absent_tokens_are_not_computed(bundle, predictor, monkeypatch):
    seen = []
    network = predictor.forward
    encode = network.encode
    monkeypatch.setattr(network, "encode", lambda packed: seen.append(packed.ids) or encode(packed))
    z = stars(3000, seed=7, tokens=(20, 45))
    predictor.predict(typical(physical(bundle, z)), LABELS)
    present = np.count_nonzero(~np.isnan(z))
    assert sum(int((ids != 0).sum()) for ids in seen) == present
    assert sum(ids.numel() for ids in seen) < 1.02 * present


class Operations(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += 1
        return func(*args, **(kwargs or {}))


def test_the_number_of_operations_does_not_depend_on_the_number_of_rows(
    bundle, predictor, monkeypatch
):
    monkeypatch.setitem(module.BUDGET, "cpu", (10**6, 10**6))
    counts = []
    for n in (10, 1000):
        with Operations() as operations:
            predictor.predict(typical(physical(bundle, stars(n, tokens=(5, 64)))), LABELS)
        counts.append(operations.count)
    assert counts[0] == counts[1]


def test_threads_share_a_predictor(bundle, predictor):
    tables = [physical(bundle, stars(200, seed=seed)) for seed in range(8)]
    wanted = [predictor.predict(typical(table), LABELS) for table in tables]
    start = threading.Barrier(len(tables))

    def predict(table):
        start.wait()
        return predictor.predict(typical(table), LABELS)

    with ThreadPoolExecutor(len(tables)) as pool:
        for found, right in zip(pool.map(predict, tables), wanted, strict=True):
            assert_same(found, right)


def test_memory_grows_with_the_table_by_the_predictions_alone(bundle, predictor, monkeypatch):
    monkeypatch.setattr(module, "SLICE", 500)
    peaks = []
    for n in (1000, 8000):
        values = physical(bundle, stars(n, tokens=(5, 20))).astype(np.float32)
        tracemalloc.start()
        predictor.predict(typical(values), ["teff"])
        peaks.append(tracemalloc.get_traced_memory()[1] - n * 8)
        tracemalloc.stop()
    assert peaks[1] < 1.2 * peaks[0]


def test_float32_input_gives_the_same_predictions(bundle, predictor):
    values = physical(bundle, stars(50, seed=8)).astype(np.float32)
    assert_same(
        predictor.predict(typical(values), LABELS),
        predictor.predict(typical(values.astype(float)), LABELS),
    )


def test_a_star_without_tokens_gets_the_prior(bundle, predictor):
    answer = predictor.predict(typical(np.full((3, V), np.nan)), LABELS)
    assert np.isfinite(answer.mean).all()
    assert (answer.mean == answer.mean[0]).all()


def test_distance_is_that_of_mahalanobis_from_the_star_s_own_tokens(tmp_path):
    """By scipy, from an encoding of each star alone: no padding, no batch, no Cholesky factor."""
    rng = np.random.default_rng(12)
    width = SHAPE.width
    mixed = rng.normal(size=(width, width))
    covariance = mixed @ mixed.T + 0.1 * np.eye(width)
    latent = Latent(
        mean=rng.normal(size=width),
        shifts=rng.normal(size=(V, width)),
        factor=np.linalg.inv(np.linalg.cholesky(covariance)),
        log_sizes=rng.normal(0.0, 0.1, size=V),
        limit=5.0,
    )
    bundle = make(tmp_path / "bundle", calibration=UncertaintyCalibration(latent=latent))
    z = stars(40, seed=13, tokens=(1, 30))
    found = [
        Predictor(bundle).predict(typical(physical(bundle, z)), LABELS).distance,
        differentiate(Predictor(bundle), typical(physical(bundle, z)), LABELS)[0].distance,
    ]
    network = bundle.network().double()
    for row, star in enumerate(z):
        present = np.flatnonzero(~np.isnan(star))
        ids, x = torch.from_numpy(present + 1)[None], torch.from_numpy(star[present])[None]
        summary = network.encode(PackedTokens(ids, x))[0][0].mean(0).detach().numpy()
        expected = latent.mean + latent.shifts[present].sum(axis=0)
        wanted = mahalanobis(summary, expected, np.linalg.inv(covariance))
        wanted /= np.prod(np.exp(latent.log_sizes[present]))
        assert [one[row] for one in found] == pytest.approx([wanted, wanted], rel=1e-4)
        there = np.isin(np.arange(V), present)
        assert latent.distance(summary[None], there[None]) == pytest.approx(wanted, rel=1e-9)


@pytest.mark.parametrize("value", [np.inf, -np.inf, 1e300])
def test_an_infinite_value_makes_only_its_own_star_nan(bundle, predictor, value):
    values = physical(bundle, stars(20, seed=9, tokens=(30, 30)))
    clean = predictor.predict(typical(values), LABELS)
    values[4, np.flatnonzero(~np.isnan(values[4]))[0]] = value
    answer = predictor.predict(typical(values), LABELS)
    assert np.isnan(answer.mean[4]).all()
    assert np.isnan(answer.sigma[4]).all()
    others = np.arange(20) != 4
    assert_same(rows_of(answer, others), rows_of(clean, others))


def test_unknown_labels_wrong_shapes_and_precisions_are_refused(bundle, predictor):
    with pytest.raises(ContractError, match=r"no such token(.|\n)*found: colour"):
        predictor.predict(typical(stars(2)), ["teff", "colour"])
    with pytest.raises(ContractError, match=rf"one column per token\n  wanted: \(N, {V}\)"):
        predictor.predict(typical(np.zeros((2, V - 1))), LABELS)
    with pytest.raises(ContractError, match=r"one row per star(.|\n)*wanted: \(N, V\)"):
        typical(np.zeros(V))
    with pytest.raises(JobError, match=r"unknown precision(.|\n)*found: float8"):
        Predictor(bundle, precision="float8")


def test_the_self_check_passes_and_fails_with_changed_weights(bundle):
    predictor = Predictor(bundle)
    predictor.self_check()
    weight = predictor.network.head[1].weight
    good = weight.clone()
    for damage in (good * 1.05, torch.full_like(good, torch.nan)):
        with torch.no_grad():
            weight.copy_(damage)
        predictor.forward = InferencePass(predictor.network)
        with pytest.raises(
            BundleError, match=r"stored predictions(.|\n)*wanted: \w+ = .* ± .*, within"
        ):
            predictor.self_check()
    with torch.no_grad():
        weight.copy_(good)
    predictor.forward = InferencePass(predictor.network)
    predictor.self_check()


def test_the_weights_on_disk_are_never_written_to(bundle):
    before = (bundle.path / "weights.safetensors").read_bytes()
    predictor = Predictor(bundle)
    with torch.no_grad():
        predictor.network.head[0].weight.add_(1.0)
    assert (bundle.path / "weights.safetensors").read_bytes() == before


@settings(max_examples=60, deadline=None)
@given(
    st_numpy.arrays(
        np.float64,
        st.tuples(st.integers(0, 6), st.integers(1, 8)),
        elements=st.one_of(st.just(np.nan), st.floats(-9, 9, width=32)),
    )
)
def test_packing_drops_absent_tokens_and_nothing_else(values):
    packed = pack(values)
    ids, x = packed.ids.numpy(), packed.values.numpy()
    assert ids.shape == x.shape
    assert ids.dtype == np.int64
    assert x.dtype == np.float32
    most = max((np.count_nonzero(~np.isnan(row)) for row in values), default=0)
    assert ids.shape == (len(values), max(1, most))
    for row, numbers, packed in zip(values, ids, x, strict=True):
        there = np.flatnonzero(~np.isnan(row))
        assert numbers.tolist() == [*(there + 1), *[0] * (len(numbers) - len(there))]
        assert packed.tolist() == [*row[there], *[0.0] * (len(numbers) - len(there))]
