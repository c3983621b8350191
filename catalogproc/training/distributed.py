"""Several processes that train one network together, one device each.

Every process draws all stars of a step, which are the same by their seed, and uses its share of
them; gradients are summed. A training on several devices therefore equals that on one, except
for the order of additions and the noise of dropout. torchrun starts the processes, on one or on
many hosts, and sets RANK, WORLD_SIZE and LOCAL_RANK.
"""

from __future__ import annotations

import atexit
import os
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib import import_module

import torch
import torch.distributed as dist
from torch import Tensor

from catalogproc.errors import JobError
from catalogproc.training.token_sampling import TokenBatch


@dataclass(frozen=True)
class ProcessGroup:
    """The processes that train together, seen from one of them: its rank and their number."""

    rank: int = 0
    size: int = 1

    @classmethod
    def join(cls, device: torch.device) -> ProcessGroup:
        """Join the processes that torchrun started: by NCCL on GPUs, by Gloo on CPUs.

        Parameters
        ----------
        device
            The device of this process.

        Returns
        -------
        A group of one where torchrun started none.
        """
        size = int(os.environ.get("WORLD_SIZE", "1"))
        if size == 1:
            return cls()
        if not dist.is_initialized():
            # An optimiser imports this module, which keeps the group that it finds: the group's
            # threads would then outlive the interpreter and sometimes abort it.
            import_module("torch.distributed.nn.functional")
            dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
            atexit.register(dist.destroy_process_group)
        return cls(dist.get_rank(), size)

    @property
    def is_first(self) -> bool:
        """Whether this process writes the files."""
        return self.rank == 0

    def shard(self, batch: TokenBatch) -> TokenBatch:
        """Return this process's stars of a step: every ``size``-th, which balances the work.

        Parameters
        ----------
        batch
            All stars of the step.
        """
        if self.size == 1:
            return batch
        return batch.rows(slice(self.rank, None, self.size))

    def all_reduce(self, tensors: Iterable[Tensor | None]) -> None:
        """Replace each tensor by its sum over the processes, in one message.

        Parameters
        ----------
        tensors
            The tensors; None is skipped.
        """
        summed = [tensor for tensor in tensors if tensor is not None]
        if self.size == 1 or not summed:
            return
        flat = torch.cat([tensor.detach().reshape(-1) for tensor in summed])
        dist.all_reduce(flat)
        sizes = [tensor.numel() for tensor in summed]
        for tensor, part in zip(summed, torch.split(flat, sizes), strict=True):
            tensor.detach().copy_(part.view_as(tensor))

    def broadcast(self, number: float, device: torch.device) -> float:
        """Return the first process's number, so that all processes decide alike.

        Parameters
        ----------
        number
            This process's number.
        device
            The device of this process.
        """
        if self.size == 1:
            return number
        shared = torch.tensor([number], dtype=torch.float64, device=device)
        dist.broadcast(shared, 0)
        return float(shared)


def local_device(kind: str) -> str:
    """Return this process's device: on a host with several GPUs the one of its local rank.

    Parameters
    ----------
    kind
        cpu or cuda.
    """
    number = os.environ.get("LOCAL_RANK")
    return f"cuda:{number}" if kind == "cuda" and number is not None else kind


def is_launched() -> bool:
    """Return whether torchrun started this process."""
    return "RANK" in os.environ


def is_first() -> bool:
    """Return whether this process is the first of those of torchrun, or the only one."""
    return int(os.environ.get("RANK", "0")) == 0


def launch(processes: int, arguments: Sequence[str]) -> int:
    """Run ``catalogproc`` in several processes on this host and return the exit code.

    Parameters
    ----------
    processes
        Number of processes.
    arguments
        Arguments of the command line.

    Raises
    ------
    JobError
        Fewer than two processes.
    """
    if processes < 2:
        raise JobError("too few processes to start", wanted="2 or more", found=processes)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command = [*torchrun, "--nproc-per-node", str(processes), "-m", "catalogproc", *arguments]
    return subprocess.call(command)
