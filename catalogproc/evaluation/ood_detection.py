"""Evaluation of the quality flags on out-of-distribution (OOD) objects and on clean giants.

:func:`write_reliability` writes this together with the coverage of the uncertainties. Both use
simulated stars, whose labels are all known, whatever stars the model is evaluated on otherwise.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from catalogproc.datasets.holdout import simulated_holdout
from catalogproc.datasets.star_reader import screened
from catalogproc.evaluation import coverage
from catalogproc.flags import load_flags
from catalogproc.inference.engine import Engine
from catalogproc.io.atomic import write_atomic
from catalogproc.job import Job, load_job
from catalogproc.network.predictor import Predictor
from catalogproc.readers.gaia_source import open_auxiliary
from catalogproc.simulation.out_of_distribution import KINDS, simulate_ood
from catalogproc.simulation.simulated_stars import SimulatedStars, write_stars
from catalogproc.simulation.simulator import simulator_as_trained

if TYPE_CHECKING:
    from catalogproc.network.bundle import Bundle

SEED = 20_261_031
STARS, STARS_PER_KIND = 40_000, 2_000
QUICK_STARS, QUICK_STARS_PER_KIND = 8_000, 300
"""Number of stars for the coverage, and of each kind of object; with ``quick``."""

PAGE = "out_of_distribution.md"

CLEAN = "clean giants"
MAX_CLEAN_FLAGGED, MIN_OOD_FLAGGED = 0.02, 0.90
"""Largest share of clean giants, and smallest share of OOD objects, with a flag of OOD_FLAGS. The
others have no good_params all the same: MAY_BE_DWARF excludes them."""

OOD_FLAGS = ("XP_BOX", "OOD_LATENT", "SPEC_CHI2", "COLOUR_RANGE", "NOT_GIANT", "PLX_INCONSISTENT")
"""Flags of stars unlike the training stars: in the spectrum, in the predicted labels, or in the
luminosity by the parallax."""

GIANT_LOGG, GIANT_TEFF, GIANT_G = (0.3, 3.3), (3700.0, 6500.0), (7.0, 16.5)
"""Ranges of clean giants (dex, K, mag), well inside those of the training stars."""


@dataclass(frozen=True)
class FlagRates:
    """Shares of the stars of one kind.

    Attributes
    ----------
    kind, stars
        One of KINDS, or CLEAN; number of stars.
    flagged
        Share with a flag of OOD_FLAGS.
    not_good, not_good_mass_age
        Shares without ``good_params`` and without ``good_mass_age``.
    by_flag
        Share with each flag, by name.
    """

    kind: str
    stars: int
    flagged: float
    not_good: float
    not_good_mass_age: float
    by_flag: dict[str, float]


def write_reliability(bundle: Bundle, folder: Path, quick: bool = False) -> tuple[str, list[Path]]:
    """Write calibration.md, .csv and .png, and out_of_distribution.md.

    Parameters
    ----------
    bundle
        The model.
    folder
        Where to write.
    quick
        Fewer stars.

    Returns
    -------
    The text to print, and the files written.
    """
    stars, per_kind = (QUICK_STARS, QUICK_STARS_PER_KIND) if quick else (STARS, STARS_PER_KIND)
    simulator = simulator_as_trained(bundle.training)
    holdout = simulated_holdout(simulator, bundle.vocabulary, stars, SEED)
    found = coverage.measure_coverage(Predictor(bundle), holdout, load_job("gaia-dr3-giants"))
    table = markdown(flag_rates(bundle, per_kind, SEED + 1))
    write_atomic(folder / PAGE, table.encode())
    paths = [*coverage.write_coverage(found, folder), folder / PAGE]
    return f"{coverage.text(found)}\n\n{table}", paths


def flag_rates(bundle: Bundle, stars: int, seed: int, job: Job | None = None) -> list[FlagRates]:
    """Return the flag rates of clean giants and of each kind of OOD object, all simulated.

    Stars are processed as in a run, from files of spectra and a gaia_source table, with
    ``check_spectrum`` on.

    Parameters
    ----------
    bundle
        The model.
    stars
        Number of stars of each kind.
    seed
        Random seed of the stars.
    job
        By default gaia-dr3-giants.
    """
    engine = Engine(bundle, replace(job or load_job("gaia-dr3-giants"), check_spectrum=True))
    found = [_rates(CLEAN, _run(engine, _clean_giants(bundle, stars, seed)))]
    return found + [_rates(kind, _run(engine, simulate_ood(kind, stars, seed))) for kind in KINDS]


def markdown(found: Sequence[FlagRates]) -> str:
    """Return a Markdown table, with the flags that more than 20 % of a kind have.

    Parameters
    ----------
    found
        Flag rates by kind.
    """
    lines = [
        "| objects | stars | OOD flags | not good_params | not good_mass_age | flags over 20 % |",
        "|---|---|---|---|---|---|",
    ]
    for row in found:
        often = sorted(row.by_flag.items(), key=lambda item: -item[1])
        words = ", ".join(f"{name} {100 * share:.0f} %" for name, share in often if share > 0.2)
        lines.append(
            f"| {row.kind} | {row.stars:,} | {100 * row.flagged:.1f} % | "
            f"{100 * row.not_good:.1f} % | {100 * row.not_good_mass_age:.1f} % | {words} |"
        )
    return "\n".join(lines) + "\n"


def _clean_giants(bundle: Bundle, stars: int, seed: int) -> SimulatedStars:
    simulator = simulator_as_trained(bundle.training)
    stars_drawn = simulator.draw(4 * stars, seed)
    inside = np.ones(len(stars_drawn), dtype=bool)
    for name, (low, high) in (("logg", GIANT_LOGG), ("teff", GIANT_TEFF), ("g_mag", GIANT_G)):
        value = stars_drawn[name].numpy()
        inside &= (value > low) & (value < high)
    rows = np.flatnonzero(inside)[:stars]
    columns = {name: value[rows] for name, value in stars_drawn.columns.items()}
    return SimulatedStars(columns, stars_drawn.n_bp_coefficients, seed)


def _run(engine: Engine, stars: SimulatedStars) -> pa.Table:
    with tempfile.TemporaryDirectory() as folder:
        paths = write_stars(stars, folder)
        spectra, auxiliary = (
            [path for path in paths if path.name.startswith(part)]
            for part in ("xp_continuous", "gaia_source")
        )
        return pa.concat_tables(_processed(engine, spectra, auxiliary, Path(folder)))


def _processed(
    engine: Engine, spectra: list[Path], auxiliary: list[Path], staging: Path
) -> Iterator[pa.Table]:
    table = open_auxiliary(auxiliary, staging)
    for good in screened(spectra, engine.bundle.vocabulary):
        yield engine.process(good, table.match(good.column("source_id")))


def _rates(kind: str, table: pa.Table) -> FlagRates:
    flags = table["quality_flags"].to_numpy()
    by_flag = {flag.name: float(np.mean((flags & flag.value) != 0)) for flag in load_flags().flags}
    return FlagRates(
        kind=kind,
        stars=len(flags),
        flagged=float(np.mean((flags & load_flags().mask(*OOD_FLAGS)) != 0)),
        not_good=float(1 - np.mean(table["good_params"].to_numpy())),
        not_good_mass_age=float(1 - np.mean(table["good_mass_age"].to_numpy())),
        by_flag=by_flag,
    )
