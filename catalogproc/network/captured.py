"""Capture a computation on fixed tensors once, and replay it: CUDA graphs.

A pass of the network is some two hundred kernels. PyTorch takes several microseconds of the host
to start each, during which Python's lock is held, which the threads that read and write need. A
CUDA graph starts all of them by one call. Its capture takes as long as a few passes and needs
nothing but the driver; a compiler (torch.compile) would take tens of seconds in each worker, and
a C compiler on the user's machine.

Captured kernels read and write the same memory at each replay. So inputs are copied into fixed
tensors, outputs out of fixed tensors, and every shape has a capture of its own.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import torch
from torch import Tensor

from catalogproc.network.memory import is_out_of_memory

_LOG = logging.getLogger(__name__)

Work = Callable[[], Tensor]
"""Computes from fixed tensors."""
Capture = Callable[[Work], tuple[Callable[[], None], Tensor]]
"""Returns what replays a work, and the tensor that holds its result after each replay."""


def run_again(work: Work) -> tuple[Callable[[], None], Tensor]:
    """Capture nothing: each replay runs the work, and copies its result into the fixed tensor.

    Parameters
    ----------
    work
        The work.
    """
    result = work()

    def replay() -> None:
        result.copy_(work())

    return replay, result


class CudaGraphs:
    """Captures works as CUDA graphs that share their memory.

    The graphs must run on one stream, and the result of a replay must be copied before the next
    replay of any of them: the memory of one graph's intermediate results holds another's result.
    """

    def __init__(self) -> None:
        self._pool = torch.cuda.graph_pool_handle()
        # One for all, because cuBLAS keeps tens of megabytes for each stream.
        self._stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        self._possible = True

    def __call__(self, work: Work) -> tuple[Callable[[], None], Tensor]:
        """Run a work once, which loads its kernels, and capture it.

        If one cannot be captured, it and all later ones are run again at each replay instead,
        which is slower and not wrong; a warning says so.

        Parameters
        ----------
        work
            Computes from fixed tensors of the GPU.

        Raises
        ------
        torch.OutOfMemoryError
            The memory of the GPU does not suffice.
        """
        if not self._possible:
            return run_again(work)
        stream = torch.cuda.current_stream()
        self._stream.wait_stream(stream)
        with torch.cuda.stream(self._stream):
            work()
        stream.wait_stream(self._stream)
        graph = torch.cuda.CUDAGraph()
        try:
            # Other threads may allocate memory of the GPU in the meantime.
            with torch.cuda.graph(graph, self._pool, self._stream, "thread_local"):
                result = work()
        except RuntimeError as error:
            torch.cuda.set_stream(stream)  # a capture that fails may leave its own stream
            # What the work raises is hidden by the capture's own error.
            if is_out_of_memory(error) or is_out_of_memory(error.__context__ or error):
                raise torch.OutOfMemoryError(str(error)) from None
            self._possible = False
            _LOG.warning("the network's pass cannot be captured as a CUDA graph: %s", error)
            return run_again(work)
        return graph.replay, result


def capture_on(device: torch.device) -> Capture:
    """Return how works are captured on a device: CUDA graphs, or :func:`run_again`.

    Parameters
    ----------
    device
        Where they compute.
    """
    return CudaGraphs() if device.type == "cuda" else run_again
