"""The command that gets the data: fetch."""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Annotated

import typer

from catalogproc.cli.console import VOICE, note, result
from catalogproc.cli.console import progress as show_progress
from catalogproc.cli.options import AsJson, OutputFolder
from catalogproc.errors import JobError

_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}


class TableName(StrEnum):
    """Tables of the archive."""

    xp_continuous = "xp_continuous"
    gaia_source = "gaia_source"


def _bytes(text: str, option: str) -> int:
    """Return a number of bytes from "200GB", "1.5 TB" or "4GiB"."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?)(i?)B?\s*", text, re.IGNORECASE)
    if match is None:
        raise JobError("no size", wanted="a size such as 200GB or 1.5TB", found=text, where=option)
    unit = match[2].upper()
    scale = 1024 ** "KMGT".index(unit) * 1024 if match[3] and unit else _UNITS[unit]
    return round(float(match[1]) * scale)


def fetch(
    output: OutputFolder,
    release: Annotated[
        str, typer.Option("--release", metavar="NAME|FILE", help="Gaia release: dr3, a TOML file.")
    ] = "dr3",
    table: Annotated[
        TableName, typer.Option("--table", help="The table.")
    ] = TableName.xp_continuous,
    healpix: Annotated[
        str | None,
        typer.Option(
            "--healpix", metavar="0-3111,…", help="Pixels (nested, level 8) [default: all sky]."
        ),
    ] = None,
    base_url: Annotated[
        str | None,
        typer.Option("--base-url", metavar="URL", help="A mirror of the archive's files."),
    ] = None,
    correlations: Annotated[
        bool, typer.Option("--correlations", help="Keep the correlations (15 times the size).")
    ] = False,
    all_sources: Annotated[
        bool, typer.Option("--all-sources", help="Keep rows of gaia_source without spectra too.")
    ] = False,
    parallel: Annotated[
        int, typer.Option("--parallel", min=1, max=16, help="Downloads at a time.")
    ] = 4,
    disk_budget: Annotated[
        str | None,
        typer.Option(
            "--disk-budget", metavar="SIZE", help="Pause while the folder holds more: 200GB."
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="List what would be fetched; fetch nothing.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Fetch spectra or gaia_source from the archive as Parquet; running it again resumes."""
    from catalogproc.fetch.bulk import BulkSpec, fetch_bulk, plan_bulk
    from catalogproc.release import load_release

    VOICE.quiet = VOICE.quiet or as_json
    budget = None if disk_budget is None else _bytes(disk_budget, "--disk-budget")
    spec = BulkSpec(
        output, load_release(release), table.value, healpix, base_url, correlations, all_sources,
        parallel, budget,
    )  # fmt: skip
    if dry_run:
        result(plan_bulk(spec), as_json)
        raise typer.Exit
    note(f"{spec.release.title}, {table.value}, {parallel} downloads at a time")
    with show_progress("MB") as progress:
        done = fetch_bulk(spec, progress, progress.say)
    result(done, as_json)
    raise typer.Exit(done.exit_code)
