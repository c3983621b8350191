"""The verbs that make what a model is trained on, and the model: dust, dataset, train."""

from __future__ import annotations

import os
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from catalogproc.cli.console import VOICE, note
from catalogproc.cli.console import progress as show_progress
from catalogproc.cli.outputs import OutputFolder

if TYPE_CHECKING:
    from catalogproc.datasets.dataset import Report
    from catalogproc.datasets.writer import Split
    from catalogproc.features.dust_map import DustMap

MANY = ("--xp", "--tmass", "--cut", "--distmass-column", "--apogee-column", "--spectra")
"""Options that take all the words up to the next option."""

dataset = typer.Typer(
    help="Stars to train on: from two public downloads, or from the surveys.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


class Sides(StrEnum):
    """How the stars are divided into those to train on and those for the test."""

    published = "published"
    hash = "hash"


class Dust(StrEnum):
    """Where E(B-V) comes from."""

    combined19 = "combined19"
    none = "none"


class TrainingDevice(StrEnum):
    """Where a model is trained."""

    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"


DistMass = Annotated[
    Path, typer.Option("--distmass", metavar="FILE", help="APOGEE_DistMass-DR17, FITS.")
]
CutWords = Annotated[
    list[str] | None,
    typer.Option("--cut", metavar="NAME=VALUE...", help="age=0:12, ruwe=1.2, box=none, ..."),
]
DistMassNames = Annotated[
    list[str] | None,
    typer.Option(
        "--distmass-column",
        metavar="OURS=THEIRS...",
        help="What DistMass calls a column: age=AGE_COR_SS.",
    ),
]
Fraction = Annotated[
    float, typer.Option("--fraction", min=0.0, max=0.9, help="Share of the stars for the test.")
]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Of that division, by source_id.")]


def dust(
    source: Annotated[
        Path | None,
        typer.Option("--from", metavar="FILE", help="combine19.h5, where it is at hand."),
    ] = None,
    folder: Annotated[
        Path | None,
        typer.Option("--folder", metavar="DIR", help="Where to [default: ~/.catalogproc/dust]."),
    ] = None,
) -> None:
    """Stage the dust map Combined19 once, checked, for all processes of this machine."""
    from catalogproc.features.combined19 import stage

    with show_progress("pixels") as progress:
        staged = stage(folder, source, progress)
    for line in staged.lines():
        note(line)


@dataset.command()
def lb24(
    training: Annotated[Path, typer.Argument(metavar="TRAINING", help="training_set.h5")],
    testing: Annotated[Path, typer.Argument(metavar="TESTING", help="testing_set.h5")],
    distmass: DistMass,
    output: OutputFolder,
    cut: CutWords = None,
    distmass_column: DistMassNames = None,
    split: Annotated[
        Sides, typer.Option("--split", help="Leung & Bovy's own, or anew by source_id.")
    ] = Sides.published,
    fraction: Fraction = 0.1,
    seed: Seed = 0,
) -> None:
    """Leung & Bovy's two public sets (Zenodo 12738256), joined with DistMass."""
    from catalogproc.datasets.lb24 import CUTS, dataset_from_lb24
    from catalogproc.readers.surveys import DistMassColumns, renamed

    with show_progress("rows") as progress:
        report = dataset_from_lb24(
            training,
            testing,
            distmass,
            output,
            cuts=CUTS.with_words(cut or ()),
            split=_split(split, fraction, seed),
            names=renamed(DistMassColumns(), distmass_column or []),
            progress=progress,
        )
    _tell(report, output)


@dataset.command()
def build(
    apogee: Annotated[
        Path, typer.Option("--apogee", metavar="FILE", help="allStar of APOGEE DR17, FITS.")
    ],
    distmass: DistMass,
    gaia_source: Annotated[
        list[str],
        typer.Option("--gaia-source", metavar="FILE...", help="Photometry and parallaxes."),
    ],
    xp: Annotated[list[str], typer.Option("--xp", metavar="FILE...", help="XP spectra.")],
    output: OutputFolder,
    tmass: Annotated[
        list[str] | None,
        typer.Option("--tmass", metavar="FILE...", help="2MASS by source_id [default: APOGEE's]."),
    ] = None,
    dust: Annotated[
        Dust, typer.Option("--dust", help="The map that E(B-V) is read from.")
    ] = Dust.combined19,
    cut: CutWords = None,
    apogee_column: Annotated[
        list[str] | None,
        typer.Option("--apogee-column", metavar="OURS=THEIRS...", help="As --distmass-column."),
    ] = None,
    distmass_column: DistMassNames = None,
    fraction: Fraction = 0.1,
    seed: Seed = 0,
) -> None:
    """The surveys themselves, joined: APOGEE, DistMass, Gaia, 2MASS, and a dust map."""
    from catalogproc.datasets.cuts import Cuts
    from catalogproc.datasets.surveys import SurveyFiles, dataset_from_surveys
    from catalogproc.readers.chunks import expand
    from catalogproc.readers.surveys import ApogeeColumns, DistMassColumns, renamed

    files = SurveyFiles(
        apogee,
        distmass,
        tuple(expand(gaia_source)),
        tuple(expand(xp)),
        tuple(expand(tmass)) if tmass else (),
    )
    with show_progress("spectra") as progress:
        report = dataset_from_surveys(
            files,
            output,
            dust_map=_map(dust),
            cuts=Cuts().with_words(cut or ()),
            split=_split(Sides.hash, fraction, seed),
            apogee_names=renamed(ApogeeColumns(), apogee_column or []),
            distmass_names=renamed(DistMassColumns(), distmass_column or []),
            progress=progress,
        )
    _tell(report, output)


def train(
    output: OutputFolder,
    job: Annotated[
        str | None,
        typer.Option(
            "--job",
            metavar="NAME|FILE",
            help="A training job [default: train-apogee with --data, else train-tiny].",
        ),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option("--data", metavar="DIR", help="Real stars, made by catalogproc dataset."),
    ] = None,
    start: Annotated[
        str | None,
        typer.Option(
            "--from", metavar="NAME|DIR", help="The model to go on from; it may learn new tokens."
        ),
    ] = None,
    spectra: Annotated[
        list[Path] | None,
        typer.Option(
            "--spectra", metavar="FILE", help="Real spectra, for jobs that mix some in; repeatable."
        ),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the checkpoint.")] = False,
    device: Annotated[
        TrainingDevice, typer.Option("--device", help="Where it is trained.")
    ] = TrainingDevice.auto,
    processes: Annotated[
        int,
        typer.Option("--processes", min=1, help="So many train together, a GPU each if there are."),
    ] = 1,
) -> None:
    """Train a model by its recipe, into a bundle; on simulated stars, or on a dataset."""
    import sys

    from catalogproc.training.distributed import is_first, launch

    if processes > 1 and "RANK" not in os.environ:
        raise typer.Exit(launch(processes, sys.argv[1:]))
    VOICE.quiet = VOICE.quiet or not is_first()
    from catalogproc.job import load_training_job
    from catalogproc.readers.chunks import expand
    from catalogproc.training.train_bundle import train_bundle

    chosen = load_training_job(job or ("train-tiny" if data is None else "train-apogee"))
    with show_progress("steps") as progress:
        bundle = train_bundle(
            chosen,
            output,
            data=data,
            base=start,
            spectra=expand(spectra or []),
            resume=resume,
            device=device.value,
            progress=progress,
            announce=progress.say,
        )
    if bundle is not None:
        note(f"{bundle.name}, {bundle.hash[:8]}, written to {bundle.path}")


def _tell(report: Report, output: Path) -> None:
    for line in report.lines():
        note(line)
    note(f"written to {output}")


def _map(dust: Dust) -> DustMap | None:
    from catalogproc.features.dust_map import open_dust_map

    return None if dust is Dust.none else open_dust_map()


def _split(sides: Sides, fraction: float, seed: int) -> Split:
    from catalogproc.datasets.writer import Split

    return Split(sides is Sides.published, fraction, seed)
