"""Simulated giants, drawn once for the tests that look at them."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import torch

from catalogproc.science.reality.calibrate import RealSpectra, read_real
from catalogproc.science.simulator.simulate import SimulatedStars, Simulator

EXAMPLES = Path(__file__).parent.parent / "examples" / "gaia_xp"
CORRELATED = Path(__file__).parent / "data" / "gaia_xp_correlated" / "xp_continuous_30.parquet"


@cache
def simulator() -> Simulator:
    torch.set_num_threads(1)
    return Simulator()


@cache
def giants() -> SimulatedStars:
    return simulator().draw(20_000, seed=7)


@cache
def real() -> RealSpectra:
    """The 1,500 real spectra of examples/."""
    return read_real(sorted(EXAMPLES.glob("*.parquet")))
