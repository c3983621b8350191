"""The command that gets the data: fetch."""

from __future__ import annotations

import re
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from catalogproc.cli.console import VOICE, note, result, say
from catalogproc.cli.console import progress as show_progress
from catalogproc.cli.options import AsJson, OutputFolder
from catalogproc.errors import JobError

if TYPE_CHECKING:
    from catalogproc.fetch.bulk import BulkSpec
    from catalogproc.fetch.by_list import ListSpec

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
    ids: Annotated[
        Path | None,
        typer.Option("--ids", metavar="TABLE", help="Only the stars of a table with source_id."),
    ] = None,
    select: Annotated[
        str | None,
        typer.Option(
            "--select", metavar="giants|CONDITION", help="Only stars of a condition in ADQL."
        ),
    ] = None,
    from_files: Annotated[
        bool, typer.Option("--from-files", help="Many stars: from the files, not by DataLink.")
    ] = False,
    show_adql: Annotated[
        bool, typer.Option("--show-adql", help="Print the queries that would be sent, and end.")
    ] = False,
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
    """Fetch spectra and gaia_source from the archive as Parquet; running it again resumes."""
    from catalogproc.fetch.bulk import BulkSpec
    from catalogproc.fetch.by_list import ListSpec
    from catalogproc.release import load_release

    VOICE.quiet = VOICE.quiet or as_json
    known = load_release(release)
    listed = ids is not None or select is not None
    stars = ListSpec(output, ids, select, healpix, known, correlations) if listed else None
    if from_files or stars is None:
        if show_adql or (from_files and stars is None):
            raise JobError("which stars?", wanted="--ids or --select; --show-adql is for DataLink")
        budget = None if disk_budget is None else _bytes(disk_budget, "--disk-budget")
        bulk = BulkSpec(
            output, known, table.value, healpix, base_url, correlations, all_sources, parallel,
            budget, stars=None if stars is None else stars.stars(),
        )  # fmt: skip
        _fetch_bulk(bulk, dry_run, as_json)
    if base_url or disk_budget or all_sources or (ids is not None and healpix):
        raise JobError(
            "options that do not go together",
            wanted="--ids or --select, without --base-url, --disk-budget, --all-sources; --healpix "
            "only with --select",
            advice="with --from-files all of them do",
        )
    _fetch_list(stars, show_adql or dry_run, as_json)


def _fetch_bulk(spec: BulkSpec, dry_run: bool, as_json: bool) -> NoReturn:
    """Fetch the archive's files."""
    from catalogproc.fetch.bulk import fetch_bulk, plan_bulk

    if dry_run:
        result(plan_bulk(spec), as_json)
        raise typer.Exit
    note(f"{spec.release.title}, {spec.table}, {spec.parallel} downloads at a time")
    with show_progress("MB") as progress:
        done = fetch_bulk(spec, progress, progress.say)
    result(done, as_json)
    raise typer.Exit(done.exit_code)


def _fetch_list(spec: ListSpec, only_queries: bool, as_json: bool) -> NoReturn:
    """Fetch the stars of a list, or print the queries for them."""
    from catalogproc.fetch.by_list import fetch_list

    if only_queries:
        say("\n\n".join(spec.adql()))
        raise typer.Exit
    with show_progress("stars") as progress:
        done = fetch_list(spec, progress, progress.say)
    result(done, as_json)
    raise typer.Exit(done.exit_code)
