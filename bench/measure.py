"""Clocks, medians, alternating comparisons; the classes of a row of the table."""

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
    """A limit that a figure must reach, or must not exceed."""

    limit: float
    at_most: bool = False

    def met(self, value: float) -> bool:
        return value <= self.limit if self.at_most else value >= self.limit


@dataclass(frozen=True)
class Row:
    """One row of the table: the measured quantity, its unit, and its target if there is one."""

    name: str
    unit: str
    target: Target | None = None


@dataclass(frozen=True)
class Absent:
    """A row without a figure, and the reason."""

    reason: str


@dataclass(frozen=True)
class Noted:
    """A figure with a note that explains it."""

    value: float
    note: str


Figures = Mapping[str, "float | Noted | Absent"]

NO_GPU = Absent("not measured: no GPU")


def clock(work: Work, *, processor: bool = False) -> float:
    """Return the seconds that a function takes, including its work on a GPU.

    Parameters
    ----------
    work
        The function.
    processor
        Return the CPU time of all threads where it is more than the wall time, so that neither
        threads nor waiting are free.
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
    """Return the seconds of each repetition, after one warm-up.

    Parameters
    ----------
    work
        The function.
    repeats
        Number of repetitions; ten times as many where one takes less than 20 ms.
    budget
        Seconds after which no further repetition starts; there are at least two.
    processor
        See :func:`clock`.
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
    """Return the median of :func:`times`."""
    return median(times(work, repeats, budget, processor=processor))


def race(
    first: Work, second: Work, repeats: int = 5, budget: float = 40.0, *, cpu: bool = False
) -> tuple[float, float]:
    """Return the median seconds of two functions that alternate.

    A change of the machine's speed during the measurement then affects both.

    Parameters
    ----------
    first, second
        The functions.
    repeats
        Number of repetitions of each.
    budget
        Seconds after which no further repetition starts; there are at least two.
    cpu
        Count the CPU time of this process only: for functions that use one thread and do not
        wait, where other programs use the machine too.
    """
    timed = _cpu_seconds if cpu else clock
    timed(first), timed(second)
    one: list[float] = []
    other: list[float] = []
    begun = time.perf_counter()
    while len(one) < 2 or (len(one) < repeats and time.perf_counter() - begun < budget):
        one.append(timed(first))
        other.append(timed(second))
    return median(one), median(other)


@contextmanager
def one_thread() -> Iterator[None]:
    """Use one thread in torch and one in Arrow, for rates per core."""
    before = torch.get_num_threads(), pa.cpu_count()
    torch.set_num_threads(1)
    pa.set_cpu_count(1)
    try:
        yield
    finally:
        torch.set_num_threads(before[0])
        pa.set_cpu_count(before[1])


def cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0))


def _cpu_seconds(work: Work) -> float:
    begun = time.process_time()
    work()
    return time.process_time() - begun


def _settle() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
