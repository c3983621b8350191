"""The option ``--output``: it is checked before a verb does any work."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from catalogproc.io.output import check_output_file, check_output_folder
from catalogproc.io.remote import is_address


def _folder(value: Path) -> Path:
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
    # Not whether it is writable: check and plan write nothing, also to a folder of the user's.
    if not is_address(value):
        check_output_folder(Path(value), writable=False)
    return value


OutputFolder = Annotated[
    Path, typer.Option("--output", metavar="DIR", help="Output folder.", callback=_folder)
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
