"""Whether the flags tell what is no giant: spectra of other objects, and of clean giants."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from catalogproc.contract import load_flags
from catalogproc.datasets.star_reader import screened
from catalogproc.inference.engine import Engine
from catalogproc.job import Job, load_job
from catalogproc.readers.gaia_source import open_companion
from catalogproc.simulation.out_of_distribution import KINDS, strangers
from catalogproc.simulation.simulated_stars import SimulatedStars, write_stars
from catalogproc.simulation.simulator import Simulator

if TYPE_CHECKING:
    from catalogproc.network.bundle import Bundle

CLEAN = "clean giants"
MOST_CLEAN, LEAST_STRANGE = 0.02, 0.95
"""Shares of giants and of others that may and must be flagged as unlike the training stars."""

OUTSIDE = ("XP_BOX", "OOD_LATENT", "SPEC_CHI2", "COLOUR_RANGE", "NOT_GIANT", "PLX_INCONSISTENT")
"""Flags that say that a star is none of those that the model is for: its spectrum is unlike theirs,
or its answers are no giant's, or its luminosity is not that of its parallax."""

GIANT_LOGG, GIANT_TEFF, GIANT_G = (0.3, 3.3), (3700.0, 6500.0), (7.0, 16.5)
"""What a clean giant lies within, well inside of what the model was trained on."""


@dataclass(frozen=True)
class Flagged:
    """Of the stars of a kind: how many, and which shares raise a flag of OUTSIDE, are not
    ``good_params``, not ``good_mass_age``, and raise each flag, by name."""

    kind: str
    stars: int
    outside: float
    not_good: float
    not_good_mass_age: float
    by_flag: dict[str, float]

    def holds(self) -> bool:
        """Whether enough strangers, or few enough giants, are flagged."""
        if self.kind == CLEAN:
            return self.outside <= MOST_CLEAN
        return self.outside >= LEAST_STRANGE


def outsiders(bundle: Bundle, stars: int, seed: int, job: Job | None = None) -> list[Flagged]:
    """What becomes of so many simulated stars of each kind of KINDS, and of clean giants.

    Each goes the way of a run, files and companion included, with ``check_spectrum`` on.
    """
    engine = Engine(bundle, replace(job or load_job("gaia-dr3-giants"), check_spectrum=True))
    found = [_flagged(CLEAN, _run(engine, _clean_giants(stars, seed)))]
    return found + [_flagged(kind, _run(engine, strangers(kind, stars, seed))) for kind in KINDS]


def markdown(found: Sequence[Flagged]) -> str:
    """As a table, with the flags that most of the stars of a kind raise."""
    lines = [
        "| stars | number | told apart | not good_params | not good_mass_age | flags over 20 % |",
        "|---|---|---|---|---|---|",
    ]
    for row in found:
        often = sorted(row.by_flag.items(), key=lambda item: -item[1])
        words = ", ".join(f"{name} {100 * share:.0f} %" for name, share in often if share > 0.2)
        lines.append(
            f"| {row.kind} | {row.stars:,} | {100 * row.outside:.1f} % | "
            f"{100 * row.not_good:.1f} % | {100 * row.not_good_mass_age:.1f} % | {words} |"
        )
    return "\n".join(lines) + "\n"


def _clean_giants(stars: int, seed: int) -> SimulatedStars:
    drawn = Simulator().draw(4 * stars, seed)
    inside = np.ones(len(drawn), dtype=bool)
    for name, (low, high) in (("logg", GIANT_LOGG), ("teff", GIANT_TEFF), ("g_mag", GIANT_G)):
        value = drawn[name].numpy()
        inside &= (value > low) & (value < high)
    rows = np.flatnonzero(inside)[:stars]
    columns = {name: value[rows] for name, value in drawn.columns.items()}
    return SimulatedStars(columns, drawn.n_bp_coefficients, seed)


def _run(engine: Engine, stars: SimulatedStars) -> pa.Table:
    with tempfile.TemporaryDirectory() as folder:
        paths = write_stars(stars, folder)
        spectra, companion = (
            [path for path in paths if path.name.startswith(part)]
            for part in ("xp_continuous", "gaia_source")
        )
        return pa.concat_tables(_answered(engine, spectra, companion, Path(folder)))


def _answered(
    engine: Engine, spectra: list[Path], companion: list[Path], staging: Path
) -> Iterator[pa.Table]:
    beside = open_companion(companion, staging)
    for good in screened(spectra, engine.bundle.vocabulary):
        yield engine.process(good, beside.match(good.column("source_id")))


def _flagged(kind: str, table: pa.Table) -> Flagged:
    flags = table["quality_flags"].to_numpy()
    by_flag = {flag.name: float(np.mean((flags & flag.value) != 0)) for flag in load_flags().flags}
    return Flagged(
        kind,
        len(flags),
        float(np.mean((flags & load_flags().mask(*OUTSIDE)) != 0)),
        float(1 - np.mean(table["good_params"].to_numpy())),
        float(1 - np.mean(table["good_mass_age"].to_numpy())),
        by_flag,
    )
