"""The commands for a run's folder: verify, status, export, report, explain."""

from __future__ import annotations

import time
from contextlib import suppress
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from catalogproc.cli.console import VOICE, note, result, say, screen
from catalogproc.cli.console import progress as show_progress
from catalogproc.cli.options import AsJson, GaiaSource, RunFolder, RunModel
from catalogproc.errors import plural


class Format(StrEnum):
    """Format of an exported catalog."""

    fits = "fits"
    votable = "votable"
    parquet = "parquet"
    csv = "csv"
    ecsv = "ecsv"
    hats = "hats"


def verify(folder: RunFolder, as_json: AsJson = False) -> None:
    """Recount the rows and check the checksums of a finished catalog."""
    from catalogproc.rundir.sync import pull
    from catalogproc.rundir.verify import verify as verify_catalog

    with show_progress("chunks") as progress:
        found = verify_catalog(pull(folder), progress)
    result(found, as_json)


def status(
    folder: RunFolder,
    watch: Annotated[
        bool, typer.Option("--watch", help="Show it again and again until the run has ended.")
    ] = False,
    every: Annotated[
        float, typer.Option("--every", min=0.1, metavar="SECONDS", help="With --watch: how often.")
    ] = 2.0,
    as_json: AsJson = False,
) -> None:
    """Print the progress of a run, also while it runs, from its receipts."""
    from catalogproc.rundir.status import has_stopped
    from catalogproc.rundir.status import status as status_of
    from catalogproc.rundir.sync import pull

    found, stopped = status_of(pull(folder, parts=False)), not watch
    silent = as_json or VOICE.quiet
    with suppress(KeyboardInterrupt), screen(silent or not watch) as show:
        while not (stopped or found.finished):
            show(found.lines())
            time.sleep(every)
            held = pull(folder, parts=False)
            stopped = has_stopped(held)  # before the receipts are read: they are then the last
            found = status_of(held)
    result(found, as_json)
    if watch and stopped and not found.finished:
        note("the run has not read every row: the same command as before resumes it")
        raise typer.Exit(1)


def export(
    folder: RunFolder,
    output: Annotated[
        Path, typer.Option("--output", metavar="FILE", help="Output file; HATS: folder.")
    ],
    format: Annotated[
        Format | None, typer.Option("--format", help="Format of FILE [default: by its ending].")
    ] = None,
    where: Annotated[
        str | None,
        typer.Option(
            "--where",
            metavar="EXPR",
            help="Which stars: 'good_mass_age and m_h > -0.5', 'not flag(\"RUWE\")'.",
        ),
    ] = None,
    columns: Annotated[
        str | None, typer.Option("--columns", metavar="A,B,...", help="Which columns, in order.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace FILE.")] = False,
    selection: Annotated[
        bool,
        typer.Option(
            "--selection", help="Write P(kept | G, bp_rp, position) of --where, not its stars."
        ),
    ] = False,
    healpix: Annotated[
        int, typer.Option("--healpix", min=0, max=6, help="With --selection: level of the pixels.")
    ] = 4,
) -> None:
    """Write a finished catalog, or a part of it, for TOPCAT, Astropy, LSDB and others."""
    if selection:
        _export_selection(folder, output, where, healpix, overwrite=overwrite)
        return
    from catalogproc.export.export import export_catalog, format_of
    from catalogproc.io.output import check_output_file, check_output_folder
    from catalogproc.rundir.sync import pull

    format = format or Format(format_of(output))
    (check_output_folder if format is Format.hats else check_output_file)(output)
    names = None if columns is None else [name.strip() for name in columns.split(",")]
    with show_progress("stars") as progress:
        rows = export_catalog(
            pull(folder),
            format.value,
            output,
            columns=names,
            where=where,
            overwrite=overwrite,
            progress=progress,
        )
    say(f"{plural(rows, 'star')} written to {output}")


def _export_selection(
    folder: str | Path, output: Path, where: str | None, level: int, *, overwrite: bool
) -> None:
    from catalogproc.export.selection import export_selection
    from catalogproc.rundir.sync import pull

    with show_progress("stars") as progress:
        found = export_selection(
            pull(folder), output, where or "good_mass_age", level,
            overwrite=overwrite, progress=progress,
        )  # fmt: skip
    for line in found.lines():
        note(line)
    say(f"selection function of {where or 'good_mass_age'} written to {output}")


def report(
    folder: RunFolder,
    model: RunModel = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", metavar="FILE", help="The page [default: DIR/report.html]."),
    ] = None,
    labels: Annotated[
        Path | None,
        typer.Option(
            "--labels",
            metavar="FILE",
            help="Known labels by source_id, Parquet, to compare with.",
            rich_help_panel="Input",
        ),
    ] = None,
) -> None:
    """Write the page of a run: counts, pictures, flags, provenance, in one HTML file."""
    from catalogproc.rundir.sync import synced

    with synced(folder, note) as held:
        say(f"report: {_write_report(held, model, output, labels)}")


def explain(
    folder: RunFolder,
    source_id: Annotated[int, typer.Argument(metavar="SOURCE_ID", help="Gaia's identifier.")],
    output: Annotated[
        Path | None,
        typer.Option("--output", metavar="PNG", help="The picture [default: DIR/stars/ID.png]."),
    ] = None,
    model: RunModel = None,
    input: Annotated[
        Path | None,
        typer.Option("--input", metavar="FILE", help="The star's spectra, if they moved."),
    ] = None,
    gaia_source: GaiaSource = None,
) -> None:
    """Explain one star of a catalog: inputs, predictions, flags, attention; with a picture."""
    from catalogproc.report.explain import explain as explain_star
    from catalogproc.report.explain_plot import write_explain_plot
    from catalogproc.report.explain_text import explanation_lines
    from catalogproc.rundir.sync import pull

    beside = [Path(name) for name in gaia_source or ()]
    held = pull(folder)
    star = explain_star(held, source_id, model=model, spectra=input, gaia_source=beside)
    for line in explanation_lines(star):
        say(line)
    if not star.rejected:
        say(f"picture: {write_explain_plot(star, output or held / 'stars' / f'{source_id}.png')}")


def show_report(
    folder: Path, model: str | Path | None = None, only_if_missing: bool = False
) -> None:
    """Write the page of a run, and print its path.

    Parameters
    ----------
    folder
        The run's folder.
    model
        The run's model, if it was moved.
    only_if_missing
        Do not write a page that exists.
    """
    from catalogproc.report.html_report import REPORT_FILE

    if not (only_if_missing and (folder / REPORT_FILE).is_file()):
        note(f"report: {_write_report(folder, model)}")


def _write_report(
    folder: Path,
    model: str | Path | None,
    output: Path | None = None,
    labels: Path | None = None,
) -> Path:
    from catalogproc.report.html_report import write_report

    with show_progress("stars") as progress:
        return write_report(folder, model=model, output=output, labels=labels, progress=progress)
