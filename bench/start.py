"""Time from the start of the command to its first output and to the first stars."""

from __future__ import annotations

import subprocess
import sys

from bench.kit import Kit
from bench.measure import Figures, Noted, Row, Target, seconds
from bench.run import first_stars

TITLE = "start"
ROWS = (
    Row("--help", "s", Target(0.5, at_most=True)),
    Row("1,500 real stars, to the first part of the catalog", "s"),
    Row("1,500 real stars, to the whole catalog", "s", Target(8, at_most=True)),
)


def measure(kit: Kit) -> Figures:
    words = [sys.executable, "-m", "catalogproc", "--help"]

    def help_text() -> None:
        subprocess.run(words, capture_output=True, check=True)

    demo = first_stars(kit)
    return {
        "--help": seconds(help_text, kit.sizes.repeats, kit.sizes.budget),
        "1,500 real stars, to the first part of the catalog": demo.first,
        "1,500 real stars, to the whole catalog": Noted(demo.seconds, f"model: {kit.bundle.name}"),
    }
