"""Batches of few fixed shapes, as GPUs compute them, give the answers of the others."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.bundles import tiny_bundle
from support.capturable import META, refuse_host_tensors

from catalogproc.network import static_batches
from catalogproc.network.batch_function import BatchFunction
from catalogproc.network.bundle import Bundle, load_bundle
from catalogproc.network.captured import Work, run_again
from catalogproc.network.error_propagation import differentiate
from catalogproc.network.latent_position import LatentPosition
from catalogproc.network.predictor import Predictor
from catalogproc.network.questions import Questions
from catalogproc.network.star_tokens import StarTokens
from catalogproc.network.static_batches import (
    FEWEST_STARS,
    DeviceTokens,
    StaticBatches,
    static_stars,
    static_width,
)

LABELS = ("teff", "logg", "m_h", "mass", "log_age")
SAME = 2e-5  # of a label's scale, as Predictor promises
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    """The model that ships: it reads errors, has mixtures, late tokens and a latent Gaussian."""
    return load_bundle("default")


def stars(bundle: Bundle, count: int, most: int = 60) -> StarTokens:
    rng = np.random.default_rng(count)
    scale, center = bundle.standardisation.scale, bundle.standardisation.center
    values = center + scale * rng.normal(size=(count, len(scale)))
    share = rng.uniform(0, most / len(scale), size=(count, 1))
    values[rng.random(values.shape) > share] = np.nan
    errors = scale * 10 ** rng.uniform(-3, 0, values.shape)
    errors[rng.random(values.shape) < 0.1] = np.nan
    return StarTokens(values, errors)


def close(bundle: Bundle, found: Any, wanted: Any) -> None:
    scale = bundle.standardisation.scale[bundle.vocabulary.columns(wanted.labels)]
    assert (np.abs(found.mean - wanted.mean) <= SAME * scale + 1e-6 * np.abs(wanted.mean)).all()
    np.testing.assert_allclose(found.sigma, wanted.sigma, rtol=1e-4)
    np.testing.assert_allclose(found.distance, wanted.distance, rtol=1e-4)
    assert found.mixtures.keys() == wanted.mixtures.keys()


# --- shapes -------------------------------------------------------------------------------------
def test_shapes_are_few_and_hold_what_is_asked() -> None:
    widths = {static_width(tokens) for tokens in range(123)}
    assert widths == {15, 31, 47, 63, 79, 95, 111, 127}
    assert all(static_width(tokens) >= tokens for tokens in range(500))
    for most in (1, 7, 64, 1000, 8192):
        sizes = {static_stars(most, waiting) for waiting in range(1, 20_000)}
        assert max(sizes) <= most < 2 * max(sizes)
        assert all(size & (size - 1) == 0 for size in sizes)
        assert len(sizes) <= 8
    # Less than half of a last batch is padding, if it is not among the smallest.
    assert all(static_stars(8192, n) < 2 * n for n in range(FEWEST_STARS, 8192))


# --- the same answers ---------------------------------------------------------------------------
def test_packing_on_the_device_is_that_of_the_host(bundle: Bundle) -> None:
    values = stars(bundle, 100)
    tokens = StarTokens(*(x.astype(np.float32) for x in (values.values, values.errors)))
    tokens.values[3] = np.nan
    tokens.values[4, 7] = np.inf
    tokens.errors[5] = 0.0
    packing = DeviceTokens(bundle, CPU, torch.float32)
    table = np.empty((128, packing.columns), np.float32)
    packing.fill(table, tokens)
    found, wanted = packing(torch.from_numpy(table), 79), bundle.pack(tokens)
    width = wanted.ids.shape[1]
    torch.testing.assert_close(found.ids[:100, :width], wanted.ids, rtol=0, atol=0)
    torch.testing.assert_close(found.values[:100, :width], wanted.values, rtol=0, atol=0)
    torch.testing.assert_close(found.errors[:100, :width], wanted.errors, rtol=1e-6, atol=1e-7)
    for part in (found.ids, found.values, found.errors):
        assert not part[:100, width:].any()
        assert not part[100:].any()


@pytest.mark.parametrize("count", [0, 1, 700])
def test_predictions_are_those_of_other_batches(bundle: Bundle, count: int) -> None:
    tokens = stars(bundle, count)
    plain, static = Predictor(bundle), Predictor(bundle, static=True)
    close(bundle, static.predict(tokens, LABELS), plain.predict(tokens, LABELS))
    np.testing.assert_allclose(static.summaries(tokens), plain.summaries(tokens), atol=1e-5)
    static.self_check()


def test_derivatives_are_those_of_other_batches(bundle: Bundle) -> None:
    tokens = stars(bundle, 50)
    wanted, jacobian = differentiate(Predictor(bundle), tokens, LABELS)
    found, other = differentiate(Predictor(bundle, static=True), tokens, LABELS)
    close(bundle, found, wanted)
    np.testing.assert_allclose(other.values, jacobian.values, atol=1e-4)


def test_two_questions_are_answered_from_one_encoding(bundle: Bundle) -> None:
    tokens = stars(bundle, 200)
    hidden = np.zeros(tokens.values.shape, bool)
    hidden[:, np.array(bundle.shape.late) - 1] = True
    for labels in (LABELS, (*LABELS, "logebv"), ("logebv", "g_fakemag")):
        wanted, found = (
            Questions(Predictor(bundle, static=static), hidden, ("g_fakemag",)).ask(
                tokens, labels, ("teff",) if "teff" in labels else ()
            )
            for static in (False, True)
        )
        for one, other in zip(found, wanted, strict=True):
            if other.labels:
                close(bundle, one, other)


def test_a_star_has_the_same_answer_in_batches_of_any_shape(bundle: Bundle) -> None:
    static, some = Predictor(bundle, static=True), stars(bundle, 300)
    star = stars(bundle, 7, 12).rows(slice(3, 4))
    alone = static.predict(star, LABELS)
    for others in (some.rows(slice(0, 70)), some, stars(bundle, 90, 110)):
        together = StarTokens(
            np.concatenate([others.values, star.values]),
            np.concatenate([others.errors, star.errors]),
        )
        found = static.predict(together, LABELS)
        np.testing.assert_allclose(
            found.mean[-1:], alone.mean, atol=SAME * np.abs(alone.mean).max(), rtol=1e-5
        )
    shapes = {key[1:] for key in static.static.captured}  # type: ignore[union-attr]
    assert len(shapes) > 3


def test_an_infinite_input_makes_no_other_star_nan(tmp_path: Path) -> None:
    bundle = tiny_bundle(tmp_path / "bundle")
    tokens = stars(bundle, 100)
    tokens.values[7, 3] = np.inf
    found = Predictor(bundle, static=True).predict(tokens, LABELS).mean
    assert np.isnan(found[7]).all()
    assert np.isfinite(np.delete(found, 7, axis=0)).all()


def test_float64_is_computed_in_float64(bundle: Bundle) -> None:
    tokens = stars(bundle, 20)
    wanted = Predictor(bundle, precision="float64").predict(tokens, LABELS)
    found = Predictor(bundle, precision="float64", static=True).predict(tokens, LABELS)
    np.testing.assert_allclose(found.mean, wanted.mean, rtol=1e-6)


# --- captures -----------------------------------------------------------------------------------
class Sharing:
    """A capture whose replays overwrite each other's results, as graphs that share memory may."""

    def __init__(self) -> None:
        self.results: list[torch.Tensor] = []
        self.captures = self.replays = 0

    def __call__(self, work: Work) -> tuple[Callable[[], None], torch.Tensor]:
        again, result = run_again(work)
        self.captures += 1
        self.results.append(result)
        result.fill_(torch.nan)  # a capture does not compute

        def replay() -> None:
            self.replays += 1
            for other in self.results:
                other.fill_(torch.nan)
            again()

        return replay, result


def test_results_are_taken_before_the_next_replay(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    capture = Sharing()
    monkeypatch.setattr(static_batches, "capture_on", lambda device: capture)
    static, tokens = Predictor(bundle, static=True), stars(bundle, 700)
    close(bundle, static.predict(tokens, LABELS), Predictor(bundle).predict(tokens, LABELS))
    captures = capture.captures
    assert captures < capture.replays
    static.predict(tokens, LABELS)
    assert capture.captures == captures
    static.predict(tokens, LABELS[:2])  # another function
    assert capture.captures > captures


def test_threads_may_share_a_predictor(bundle: Bundle) -> None:
    static, tables = Predictor(bundle, static=True), [stars(bundle, 90 + n) for n in range(6)]
    wanted = [static.predict(table, LABELS).mean for table in tables]
    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(lambda table: static.predict(table, LABELS).mean, tables))
    for one, other in zip(found, wanted, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_bounded_number_of_captures_is_kept(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(static_batches, "MOST_CAPTURES", 2)
    static, tokens = Predictor(bundle, static=True), stars(bundle, 300)
    close(bundle, static.predict(tokens, LABELS), Predictor(bundle).predict(tokens, LABELS))
    assert len(static.static.captured) == 2  # type: ignore[union-attr]


def test_after_a_failure_all_memory_is_released(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    static, tokens = Predictor(bundle, static=True), stars(bundle, 100)
    wanted = static.predict(tokens, LABELS)
    new = StaticBatches._new

    def fails(*given: Any) -> Any:
        raise torch.OutOfMemoryError("of the test")

    monkeypatch.setattr(StaticBatches, "_new", fails)
    with pytest.raises(torch.OutOfMemoryError):
        static.predict(tokens, LABELS[:1])
    assert not static.static.captured  # type: ignore[union-attr]
    monkeypatch.setattr(StaticBatches, "_new", new)
    np.testing.assert_array_equal(static.predict(tokens, LABELS).mean, wanted.mean)


class _Seen(Exception):
    """A function has been captured."""


@pytest.mark.parametrize("name", ["predict", "summaries", "ask", "differentiate"])
def test_a_graph_can_capture_each_pass(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """A captured pass must not read a number to the host, copy from it, or mix devices."""
    predictor, tokens = Predictor(bundle, static=True), stars(bundle, 20)
    hidden = np.zeros(tokens.values.shape, bool)
    hidden[:, np.array(bundle.shape.late) - 1] = True
    predictor.device, predictor.network = META, predictor.network.to(META)
    predictor.latent = LatentPosition(bundle.calibration.latent, META, torch.float32)

    def map_batches(self: Predictor, tokens: StarTokens, function: BatchFunction) -> Any:
        batches = StaticBatches(bundle, META, torch.float32, (4096, 1024))
        outputs = batches._pass(function, 64, 31).outputs
        columns = sum(int(np.prod(shape)) for shape in function.shapes)
        assert (outputs.shape, outputs.device) == ((64, columns), META)
        raise _Seen

    monkeypatch.setattr(Predictor, "map_batches", map_batches)
    monkeypatch.setattr(static_batches, "capture_on", lambda device: refuse_host_tensors)
    for copies in ("ToDevice", "ToHost"):
        monkeypatch.setattr(static_batches, copies, lambda *given: None)
    questions = Questions(predictor, hidden, ("g_fakemag",))
    asked: dict[str, Callable[[], Any]] = {
        "predict": lambda: predictor.predict(tokens, LABELS),
        "summaries": lambda: predictor.summaries(tokens),
        "ask": lambda: questions.ask(tokens, (*LABELS, "g_fakemag")),
        "differentiate": lambda: differentiate(predictor, tokens, LABELS),
    }
    with torch.inference_mode(), pytest.raises(_Seen):
        asked[name]()


def test_what_a_graph_cannot_capture_is_seen() -> None:
    """The check of the test above finds numbers that are read, and tables of the host."""
    inputs = torch.empty(3, device=META)
    for work in (
        lambda: inputs if bool(inputs.sum() > 0) else -inputs,
        lambda: inputs + torch.tensor([1.0, 2.0, 3.0], device=META),
        lambda: inputs + torch.tensor(1.0),
    ):
        with pytest.raises((AssertionError, RuntimeError, NotImplementedError)):
            refuse_host_tensors(work)
