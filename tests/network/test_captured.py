"""How passes are captured on a GPU, with a stand-in for torch's functions of CUDA."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch

from catalogproc.network.captured import CudaGraphs, capture_on, run_again


class Cuda:
    """What `CudaGraphs` uses of ``torch.cuda``; ``log`` tells in which order.

    ``failure`` is raised at the end of a capture, as the driver does.
    """

    def __init__(self) -> None:
        self.log: list[str] = []
        self.current = "main"
        self.failure: Exception | None = None

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        log = self.log

        class Stream:
            name = "side"

            def wait_stream(self, other: Any) -> None:
                log.append(f"{self.name} waits for {other.name}")

        class Main(Stream):
            name = "main"

        class Graph:
            def replay(self) -> None:
                log.append("replay")

        @contextmanager
        def stream(which: Stream) -> Iterator[None]:
            before, self.current = self.current, which.name
            yield
            self.current = before

        @contextmanager
        def graph(graph: Graph, pool: str, stream: Stream, mode: str) -> Iterator[None]:
            log.append(f"capture in {pool}, {mode}")
            self.current = stream.name
            yield
            if self.failure is not None:
                raise self.failure  # before the stream is left
            self.current = "main"

        parts: dict[str, Any] = {
            "graph_pool_handle": lambda: "pool",
            "Stream": Stream,
            "current_stream": Main,
            "stream": stream,
            "graph": graph,
            "CUDAGraph": Graph,
            "set_stream": lambda which: setattr(self, "current", which.name),
        }
        for name, part in parts.items():
            monkeypatch.setattr(torch.cuda, name, part)

    def work(self) -> Callable[[], torch.Tensor]:
        def work() -> torch.Tensor:
            self.log.append(f"work on {self.current}")
            return torch.arange(3.0)

        return work


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> Cuda:
    found = Cuda()
    found.install(monkeypatch)
    return found


def test_a_work_runs_once_and_is_then_captured(cuda: Cuda) -> None:
    capture = capture_on(torch.device("cuda"))
    replay, _ = capture(cuda.work())
    replay()
    assert cuda.log == [
        "side waits for main", "work on side", "main waits for side",
        "capture in pool, thread_local", "work on side", "replay",
    ]  # fmt: skip
    assert cuda.current == "main"


def test_what_cannot_be_captured_is_run_again_and_said_once(
    cuda: Cuda, caplog: pytest.LogCaptureFixture
) -> None:
    capture, cuda.failure = CudaGraphs(), RuntimeError("operation not permitted when capturing")
    with caplog.at_level(logging.WARNING):
        results = [capture(cuda.work()) for _ in range(2)]
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "operation not permitted" in caplog.text
    assert sum("capture" in line for line in cuda.log) == 1
    cuda.log.clear()
    for replay, result in results:
        result.fill_(torch.nan)
        replay()
        assert result.tolist() == [0.0, 1.0, 2.0]
    assert cuda.log == ["work on main"] * 2


@pytest.mark.parametrize("hidden", [True, False])
def test_a_lack_of_memory_is_not_hidden(cuda: Cuda, hidden: bool) -> None:
    cuda.failure = torch.OutOfMemoryError("CUDA out of memory")
    if hidden:
        lack, cuda.failure = cuda.failure, RuntimeError("the capture is invalid")
        cuda.failure.__context__ = lack
    with pytest.raises(torch.OutOfMemoryError):
        CudaGraphs()(cuda.work())
    assert cuda.current == "main"


def test_the_cpu_captures_nothing() -> None:
    assert capture_on(torch.device("cpu")) is run_again
