"""Captured passes, copies beside the computation, and the threads of a chunk, on a real GPU."""

from __future__ import annotations

import logging
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from support.bundles import tiny_bundle
from support.paths import EXAMPLES

from catalogproc.inference.engine import Engine
from catalogproc.inference.process_chunk import process_chunk
from catalogproc.job import load_job
from catalogproc.network.bundle import Bundle, load_bundle
from catalogproc.network.device_copies import ToDevice
from catalogproc.network.error_propagation import differentiate
from catalogproc.network.predictor import Predictor
from catalogproc.network.star_tokens import StarTokens
from catalogproc.readers.chunks import cut

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"),
]

LABELS = ("teff", "logg", "m_h", "mass", "log_age")


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return load_bundle("default")


def stars(bundle: Bundle, count: int) -> StarTokens:
    rng = np.random.default_rng(count)
    scale, center = bundle.standardisation.scale, bundle.standardisation.center
    values = center + scale * rng.normal(size=(count, len(scale)))
    values[rng.random(values.shape) > rng.uniform(0, 0.6, size=(count, 1))] = np.nan
    return StarTokens(values, scale * 10 ** rng.uniform(-3, 0, values.shape))


def test_captured_passes_give_the_answers_of_the_others(
    bundle: Bundle, caplog: pytest.LogCaptureFixture
) -> None:
    tokens = stars(bundle, 20_000)
    with caplog.at_level(logging.WARNING):
        captured, started = (
            Predictor(bundle, "cuda", static=static).predict(tokens, LABELS)
            for static in (True, False)
        )
    assert not caplog.records  # a pass that cannot be captured would be said here
    on_cpu = Predictor(bundle).predict(tokens.rows(slice(0, 500)), LABELS)
    for found in (captured, started):
        assert (np.abs(found.mean[:500] - on_cpu.mean) < 2e-3 * on_cpu.sigma).all()
    assert (np.abs(captured.mean - started.mean) < 2e-3 * started.sigma).all()
    np.testing.assert_allclose(captured.distance, started.distance, rtol=1e-3)


@pytest.mark.parametrize("precision", ["bfloat16", "tf32"])
def test_captured_passes_keep_the_precision(bundle: Bundle, precision: str) -> None:
    """As many stars are far from float32's answer as without captures."""
    tokens = stars(bundle, 1_000)
    exact = Predictor(bundle).predict(tokens, LABELS)
    shares = []
    for static in (True, False):
        found = Predictor(bundle, "cuda", precision, static=static).predict(tokens, LABELS)
        shares.append((np.abs(found.mean - exact.mean) > 0.05 * exact.sigma).any(axis=1).mean())
    assert shares[0] < 1.3 * shares[1] + 0.02
    assert precision == "bfloat16" or shares[0] < 0.02


def test_derivatives_are_captured_too(bundle: Bundle) -> None:
    tokens = stars(bundle, 300)
    found, wanted = (
        differentiate(Predictor(bundle, "cuda", static=static), tokens, LABELS)[1].values
        for static in (True, False)
    )
    assert np.abs(found - wanted).max() < 0.02 * np.abs(wanted).max()


def test_memory_of_the_device_stays_the_same(bundle: Bundle) -> None:
    predictor, tokens = Predictor(bundle, "cuda"), stars(bundle, 20_000)
    assert predictor.static is not None
    for _ in range(2):
        predictor.predict(tokens, LABELS)
    captures = len(predictor.static.captured)
    reserved = torch.cuda.memory_reserved()
    for _ in range(5):
        predictor.predict(tokens, LABELS)
    assert (len(predictor.static.captured), torch.cuda.memory_reserved()) == (captures, reserved)


def test_copies_run_while_the_device_computes() -> None:
    device = torch.device("cuda")
    up = ToDevice(device, torch.float32)
    square, rows = torch.rand(4096, 4096, device=device), 100_000
    target = torch.empty(rows, 256, device=device)

    def compute() -> None:
        for _ in range(4):
            torch.mm(square, square)

    def copy() -> None:
        up.buffer(rows, 256)
        up.send(target)

    def seconds(*steps: object) -> float:
        torch.cuda.synchronize()
        began = time.perf_counter()
        for step in steps:
            step()  # type: ignore[operator]
        torch.cuda.synchronize()
        return time.perf_counter() - began

    for _ in range(3):  # memory, kernels and clocks are ready then
        copy(), compute()
    alone = min(seconds(compute) for _ in range(5)) + min(seconds(copy) for _ in range(5))
    assert min(seconds(compute, copy) for _ in range(5)) < alone
    assert up._pair.host.is_pinned()


def test_a_chunk_by_threads_is_the_chunk_of_the_cpu(tmp_path: Path) -> None:
    bundle = tiny_bundle(tmp_path / "bundle")
    (chunk,) = cut([EXAMPLES / "xp_continuous_000.parquet"], 10**6)
    tables = {}
    for device in ("cpu", "cuda"):
        output = tmp_path / device
        for name in ("catalog", "rejected", "receipts"):
            (output / name).mkdir(parents=True)
        process_chunk(Engine(bundle, load_job("demo"), device), chunk, None, output)
        tables[device] = pq.read_table(output / "catalog")
    one, other = tables.values()
    assert one["source_id"].equals(other["source_id"])
    for name in ("teff", "logg", "mass", "log_age"):
        difference = np.abs(one[name].to_numpy() - other[name].to_numpy())
        assert np.nanmax(difference / one[f"e_{name}"].to_numpy()) < 0.03  # TF32
