"""The simulator, including noise."""

from __future__ import annotations

import torch

from bench.kit import Kit
from bench.measure import Figures, Row, seconds

TITLE = "simulator"
ROWS = (Row("stars", "stars/s"), Row("stars as tokens", "stars/s"))


def measure(kit: Kit) -> Figures:
    from catalogproc.simulation.simulator import Simulator

    n, sizes = kit.sizes.simulate, kit.sizes
    simulator = Simulator("cuda" if torch.cuda.is_available() else "cpu")

    def tokens() -> None:
        simulator.draw(n, 1).tokens(kit.bundle.vocabulary)

    return {
        "stars": n / seconds(lambda: simulator.draw(n, 1), sizes.repeats, sizes.budget),
        "stars as tokens": n / seconds(tokens, sizes.repeats, sizes.budget),
    }
