"""Several processes that train one network, a device each.

Every process draws the whole of a step's stars, which are the same by their seed, and takes its
share of them; gradients are added up. So a training on several devices is that on one, but for
the order in which numbers are added and for the noise of dropout. torchrun starts the processes,
here or on many hosts: RANK, WORLD_SIZE and LOCAL_RANK are its words.
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
from catalogproc.training.token_sampling import Sample


@dataclass(frozen=True)
class Ranks:
    """This process among those that train: its number, and how many they are."""

    rank: int = 0
    size: int = 1

    @classmethod
    def joined(cls, device: torch.device) -> Ranks:
        """The processes that torchrun started, joined by NCCL on GPUs and Gloo on CPUs; one alone
        where it started none."""
        size = int(os.environ.get("WORLD_SIZE", "1"))
        if size == 1:
            return cls()
        if not dist.is_initialized():
            # This module keeps the group that it finds for ever, and an optimiser imports it: the
            # group's threads would then outlive the interpreter, and now and then abort it.
            import_module("torch.distributed.nn.functional")
            dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
            atexit.register(dist.destroy_process_group)
        return cls(dist.get_rank(), size)

    @property
    def first(self) -> bool:
        """Whether it is this process that writes files."""
        return self.rank == 0

    def share(self, batch: Sample) -> Sample:
        """This process's stars of a step: every ``size``-th, so that all have as much to do."""
        if self.size == 1:
            return batch
        return Sample(*(value[self.rank :: self.size] for value in vars(batch).values()))

    def add_up(self, tensors: Iterable[Tensor | None]) -> None:
        """Replace each tensor by its sum over the processes, in one message."""
        there = [tensor for tensor in tensors if tensor is not None]
        if self.size == 1 or not there:
            return
        flat = torch.cat([tensor.detach().reshape(-1) for tensor in there])
        dist.all_reduce(flat)
        for tensor, part in zip(there, torch.split(flat, [t.numel() for t in there]), strict=True):
            tensor.detach().copy_(part.view_as(tensor))

    def agreed(self, number: float, device: torch.device) -> float:
        """The first process's number, so that all decide alike."""
        if self.size == 1:
            return number
        told = torch.tensor([number], dtype=torch.float64, device=device)
        dist.broadcast(told, 0)
        return float(told)


def local_device(kind: str) -> str:
    """This process's device of a kind: on a host of several GPUs the one of its own number."""
    number = os.environ.get("LOCAL_RANK")
    return f"cuda:{number}" if kind == "cuda" and number is not None else kind


def is_first() -> bool:
    """Whether this process is the first of those that torchrun started, or the only one."""
    return int(os.environ.get("RANK", "0")) == 0


def launch(processes: int, words: Sequence[str]) -> int:
    """Start ``catalogproc`` with these words in so many processes on this host; the exit code.

    Raises JobError for fewer than two.
    """
    if processes < 2:
        raise JobError("a training in several processes", wanted="2 or more", found=processes)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command = [*torchrun, "--nproc-per-node", str(processes), "-m", "catalogproc", *words]
    return subprocess.call(command)
