"""Simulated giants, drawn once for all test modules."""

from __future__ import annotations

from functools import cache

import torch
from support.paths import EXAMPLES

from catalogproc.simulation.build_grids import RealSpectra, read_real
from catalogproc.simulation.simulator import SimulatedStars, Simulator


@cache
def simulator() -> Simulator:
    """The simulator; loading it takes seconds."""
    torch.set_num_threads(1)
    return Simulator()


@cache
def giants() -> SimulatedStars:
    """20,000 simulated giants."""
    return simulator().draw(20_000, seed=7)


@cache
def real() -> RealSpectra:
    """The 1,500 real spectra of examples/."""
    return read_real(sorted(EXAMPLES.glob("*.parquet")))
