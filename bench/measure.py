"""Clocks, medians and races; what a row of the table is."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median

import pyarrow as pa
import torch

Work = Callable[[], object]


@dataclass(frozen=True)
class Target:
    """A limit that a figure is to reach, or to stay under, as issue 4 set it."""

    limit: float
    at_most: bool = False

    def met(self, value: float) -> bool:
        return value <= self.limit if self.at_most else value >= self.limit


@dataclass(frozen=True)
class Row:
    """One row of the table: what is measured, in what, and its target if it has one."""

    name: str
    unit: str
    target: Target | None = None


@dataclass(frozen=True)
class Absent:
    """Why a row has no figure."""

    why: str


@dataclass(frozen=True)
class Noted:
    """A figure, and what must be known to read it."""

    value: float
    note: str


Figures = Mapping[str, "float | Noted | Absent"]

NO_GPU = Absent("not measured: no GPU")


def clock(work: Work, *, processor: bool = False) -> float:
    """Seconds that a piece of work takes, the GPU's part included.

    With ``processor``, of all threads together, or of the wall clock where that is more:
    neither threads nor waiting are free then.
    """
    _settle()
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    _settle()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return max(wall, cpu) if processor else wall


def times(
    work: Work, repeats: int = 5, budget: float = 20.0, *, processor: bool = False
) -> list[float]:
    """Seconds of each of some repetitions, after one that burns in.

    No fewer than ``repeats`` unless they exceed the budget in seconds, and never under two;
    so short a work that the clock's grain would show is repeated ten times as often.
    """
    clock(work)
    found: list[float] = []
    begun = time.perf_counter()
    while len(found) < 2 or (len(found) < repeats and time.perf_counter() - begun < budget):
        found.append(clock(work, processor=processor))
        if len(found) == 1 and found[0] < 0.02:
            repeats *= 10
    return found


def seconds(
    work: Work, repeats: int = 5, budget: float = 20.0, *, processor: bool = False
) -> float:
    """The median of :func:`times`."""
    return median(times(work, repeats, budget, processor=processor))


def race(ours: Work, theirs: Work, repeats: int = 5, budget: float = 40.0) -> tuple[float, float]:
    """Median seconds of two pieces of work that take turns, so that a change of the machine's
    mood hits both."""
    clock(ours), clock(theirs)
    one: list[float] = []
    other: list[float] = []
    begun = time.perf_counter()
    while len(one) < 2 or (len(one) < repeats and time.perf_counter() - begun < budget):
        one.append(clock(ours))
        other.append(clock(theirs))
    return median(one), median(other)


@contextmanager
def one_thread() -> Iterator[None]:
    """One thread for torch and one for Arrow, for rates a core."""
    before = torch.get_num_threads(), pa.cpu_count()
    torch.set_num_threads(1)
    pa.set_cpu_count(1)
    try:
        yield
    finally:
        torch.set_num_threads(before[0])
        pa.set_cpu_count(before[1])


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0))


def _settle() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
