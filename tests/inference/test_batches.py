"""A batch that does not fit into memory is halved, and the catalog is the same."""

from __future__ import annotations

import copy
import errno
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from support.bundles import tiny_bundle
from support.paths import EXAMPLES

from catalogproc.inference import batches
from catalogproc.inference.batches import SMALLEST
from catalogproc.inference.engine import Engine
from catalogproc.inference.process_chunk import ChunkWorker, process_chunk
from catalogproc.io.parquet_writer import PartWriter
from catalogproc.job import Job
from catalogproc.network.memory import is_out_of_memory
from catalogproc.network.predictor import Predictor
from catalogproc.network.shape import Shape
from catalogproc.readers.chunks import Chunk, cut
from catalogproc.rundir.receipts import Receipt


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    bundle = tiny_bundle(tmp_path_factory.mktemp("bundle") / "bundle")
    return Engine(bundle, Job("batches", labels=("teff", "logg", "m_h", "mass", "log_age")))


def chunk() -> Chunk:
    (found,) = cut([EXAMPLES / "xp_continuous_000.parquet"], 10**6)
    return found


def processed(engine: Engine, output: Path, **worker: Any) -> Receipt:
    for name in ("catalog", "rejected", "receipts"):
        (output / name).mkdir(parents=True)
    return process_chunk(engine, chunk(), None, output, ChunkWorker(**worker))


def assert_same_catalog(one: Path, other: Path) -> None:
    first, second = (pq.read_table(path / "catalog") for path in (one, other))
    assert first["source_id"].equals(second["source_id"])
    for name in ("teff", "logg", "mass", "log_age"):
        difference = np.abs(first[name].to_numpy() - second[name].to_numpy())
        assert np.nanmax(difference / first[f"e_{name}"].to_numpy()) < 1e-3


def of_host() -> Exception:
    """What torch raises on the CPU: a real one, of a petabyte."""
    try:
        torch.empty(1 << 50, dtype=torch.uint8).zero_()
    except RuntimeError as error:
        return RuntimeError(str(error))
    raise AssertionError


def test_a_large_network_gets_smaller_batches_on_the_cpu(engine: Engine) -> None:
    """A batch is seconds of work in any case."""
    assert batches._batch_rows(engine) == batches.BATCH_ROWS
    slow = copy.copy(engine)
    slow.bundle = replace(engine.bundle, shape=Shape(len(engine.bundle.vocabulary)))
    assert batches._batch_rows(slow) == batches.CPU_ROWS
    slow.device = "cuda"
    assert batches._batch_rows(slow) == batches.BATCH_ROWS


@pytest.mark.parametrize(
    "fault", [MemoryError, lambda: torch.OutOfMemoryError("CUDA out of memory"), of_host]
)
def test_a_batch_that_does_not_fit_is_halved(
    fault: Callable[[], Exception], engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = processed(engine, tmp_path / "whole")
    predict, tried = engine.predict, []

    def small(tokens: Any) -> Any:
        tried.append(len(tokens))
        if len(tokens) > 150:
            raise fault()
        return predict(tokens)

    monkeypatch.setattr(engine, "predict", small)
    steps: list[int] = []
    found = processed(engine, tmp_path / "halved", progress=steps.append)
    assert max(tried[2:]) <= 150  # 500 and 250 are tried once each
    assert tried[:2] == [500, 250]
    assert sum(steps) == found.rows_read == whole.rows_read == 500
    assert (whole.memory_halvings, found.memory_halvings) == (0, 6)  # 8,192 to 128
    assert (found.rows_written, found.input_sha256) == (whole.rows_written, whole.input_sha256)
    assert_same_catalog(tmp_path / "whole", tmp_path / "halved")


def test_what_never_fits_is_an_error(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[int] = []

    def never(tokens: Any) -> Any:
        tried.append(len(tokens))
        raise MemoryError("nothing left")

    monkeypatch.setattr(engine, "predict", never)
    with pytest.raises(MemoryError, match=r"for \d+ stars: nothing left"):
        processed(engine, tmp_path / "out")
    assert tried[-1] <= SMALLEST
    assert not list((tmp_path / "out").rglob("*.parquet"))


def test_a_chunk_may_begin_with_small_batches(engine: Engine, tmp_path: Path) -> None:
    steps: list[int] = []
    found = processed(engine, tmp_path / "out", progress=steps.append, halvings=6)
    assert steps == [128, 128, 128, 116]
    assert found.memory_halvings == 6


def test_a_real_lack_of_memory_is_recognised(tmp_path: Path) -> None:
    for make in (
        lambda: np.ones(1 << 55),
        lambda: bytearray(1 << 60),
        lambda: torch.empty(1 << 50, dtype=torch.uint8).zero_(),
    ):
        with pytest.raises((MemoryError, RuntimeError)) as caught:
            make()
        assert is_out_of_memory(caught.value)
    assert not is_out_of_memory(RuntimeError("something else"))
    assert not is_out_of_memory(ValueError("DefaultCPUAllocator"))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_that_is_full_takes_smaller_batches(tmp_path: Path) -> None:
    bundle = tiny_bundle(tmp_path / "bundle")
    engine = Engine(bundle, Job("batches"), "cuda:0")
    whole = processed(engine, tmp_path / "whole")
    free, _total = torch.cuda.mem_get_info()
    held = torch.empty(max(free - (48 << 20), 0), dtype=torch.uint8, device="cuda")
    try:
        found = processed(engine, tmp_path / "full")
    finally:
        del held
    assert found.rows_written == whole.rows_written
    assert_same_catalog(tmp_path / "whole", tmp_path / "full")


# --- the way of a GPU: fixed shapes and threads, here on the CPU -----------------------------
@pytest.fixture
def like_gpu(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> Engine:
    """The engine with everything that a GPU has but the GPU, and batches of at most 128 rows."""
    monkeypatch.setattr(batches, "BATCH_ROWS", 128)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    other = copy.copy(engine)
    other.device = "cuda"
    other._predictor = Predictor(engine.bundle, static=True)
    return other


def no_threads() -> bool:
    return not any(thread.name.startswith("ahead") for thread in threading.enumerate())


def test_the_steps_of_a_gpu_give_the_catalog_of_a_cpu(
    engine: Engine, like_gpu: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    used: dict[str, set[int]] = {}

    def watched(name: str) -> Callable[..., Any]:
        step = getattr(like_gpu, name)

        def seen(*given: Any) -> Any:
            used.setdefault(name, set()).add(threading.get_ident())
            return step(*given)

        return seen

    for name in ("features", "predict", "to_catalog"):
        monkeypatch.setattr(like_gpu, name, watched(name))
    whole, steps = processed(engine, tmp_path / "cpu"), []
    found = processed(like_gpu, tmp_path / "gpu", progress=steps.append)
    assert steps == [128, 128, 128, 116]
    assert (found.rows_read, found.rows_written) == (whole.rows_read, whole.rows_written)
    assert found.input_sha256 == whole.input_sha256
    assert_same_catalog(tmp_path / "cpu", tmp_path / "gpu")
    assert len(set.union(*used.values())) == sum(map(len, used.values()))
    assert threading.get_ident() not in set.union(*used.values())
    assert len(used["predict"]) == 1
    assert all(len(threads) <= 2 for threads in used.values())
    assert no_threads()


@pytest.mark.parametrize("step", ["features", "predict", "to_catalog"])
def test_memory_that_lacks_in_any_step_costs_no_star(
    step: str, engine: Engine, like_gpu: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    do = getattr(like_gpu, step)

    def small(first: Any, *others: Any) -> Any:
        if len(first) > 64 and len(others[0] if step == "to_catalog" else first) > 64:
            raise MemoryError
        return do(first, *others)

    monkeypatch.setattr(like_gpu, step, small)
    processed(engine, tmp_path / "cpu")
    found = processed(like_gpu, tmp_path / "gpu")
    assert (found.rows_read, found.memory_halvings) == (500, 1)
    assert_same_catalog(tmp_path / "cpu", tmp_path / "gpu")


@pytest.mark.parametrize("step", ["features", "predict", "to_catalog"])
def test_an_error_in_any_thread_ends_all_and_leaves_nothing(
    step: str, like_gpu: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done, do = [], getattr(like_gpu, step)

    def fails(*given: Any) -> Any:
        if len(done) == 2:
            raise torch.AcceleratorError("CUDA error: unspecified launch failure")
        done.append(step)
        return do(*given)

    monkeypatch.setattr(like_gpu, step, fails)
    with pytest.raises(torch.AcceleratorError):
        processed(like_gpu, tmp_path / "out")
    assert no_threads()
    assert not [path for path in (tmp_path / "out").rglob("*") if path.is_file()]


def test_a_part_that_cannot_be_written_ends_the_threads(
    like_gpu: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*given: Any) -> Any:
        raise OSError(errno.ENOSPC, "no space left on device")

    monkeypatch.setattr(PartWriter, "write", full)
    with pytest.raises(OSError, match="no space"):
        processed(like_gpu, tmp_path / "out")
    assert no_threads()
