"""Options and arguments that several commands have, declared once.

An ``--output`` is checked before a command does any work.
"""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from catalogproc.io.output import check_output_file, check_output_folder


def check_folder(value: Path) -> Path:
    """Refuse an output folder that cannot be written; the callback of an option of typer.

    Parameters
    ----------
    value
        The folder.
    """
    check_output_folder(value)
    return value


def check_file(value: Path | None) -> Path | None:
    """Refuse an output file that cannot be written; the callback of an option of typer.

    Parameters
    ----------
    value
        The file, None where the option is not given.
    """
    if value is not None:
        check_output_file(value)
    return value


def _run_folder(value: str) -> str:
    from catalogproc.io.remote import is_address  # imports pyarrow, which takes its time

    # Not whether it is writable: check and plan write nothing, also to a folder of the user's.
    if not is_address(value):
        check_output_folder(Path(value), writable=False)
    return value


OutputFolder = Annotated[
    Path, typer.Option("--output", metavar="DIR", help="Output folder.", callback=check_folder)
]
RunOutput = Annotated[
    str,
    typer.Option("--output", metavar="DIR", help="Output folder, or s3://…", callback=_run_folder),
]
OutputTable = Annotated[
    Path,
    typer.Option(
        "--output",
        metavar="TABLE",
        help="Output: csv, ecsv, parquet, fits or vot.",
        callback=check_file,
    ),
]
OutputParquet = Annotated[
    Path, typer.Option("--output", metavar="FILE.parquet", help="Output file.", callback=check_file)
]


class Device(StrEnum):
    """Device of the model."""

    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"


DeviceName = Annotated[Device, typer.Option("--device", help="Device of the model.")]
Model = Annotated[
    str,
    typer.Option(
        "--model",
        metavar="NAME|DIR",
        help="A shipped model, or a bundle's folder [default: the shipped one for giants].",
        show_default=False,
    ),
]
RunModel = Annotated[
    str | None,
    typer.Option("--model", metavar="NAME|DIR", help="The run's model, if it was moved."),
]
JobName = Annotated[
    str, typer.Option("--job", metavar="NAME|FILE", help="A shipped job, or a TOML file.")
]
Spectra = Annotated[
    list[str],
    typer.Option(
        "--input", metavar="FILE...", help="XP spectra: files, quoted globs, folders, s3://…"
    ),
]
GaiaSource = Annotated[
    list[str] | None,
    typer.Option(
        "--gaia-source",
        metavar="FILE...",
        help="Photometry, parallaxes, 2MASS, E(B-V), joined by source_id.",
    ),
]
RunFolder = Annotated[str, typer.Argument(metavar="DIR", help="Output folder of a run, or s3://…")]
AsJson = Annotated[bool, typer.Option("--json", help="As JSON.")]
ReleaseName = Annotated[
    str | None,
    typer.Option(
        "--release",
        metavar="NAME|FILE",
        help="Gaia release of the spectra: dr3, dr4 or a TOML file [default: the model's].",
    ),
]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Random seed.")]
