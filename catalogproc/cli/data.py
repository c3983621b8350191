"""The commands for data: convert, describe, simulate, release add."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from catalogproc.cli.console import console, note, result, say
from catalogproc.cli.console import progress as show_progress
from catalogproc.cli.examples import epilog
from catalogproc.cli.help_pages import HelpCommand, HelpGroup
from catalogproc.cli.options import AsJson, OutputFolder, Seed, check_file
from catalogproc.errors import plural

MANY = ("--design",)
"""Options that take all values up to the next option."""

release_app = typer.Typer(
    help="Write the file of a Gaia release.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    cls=HelpGroup,
)


def convert(
    files: Annotated[list[str], typer.Argument(metavar="FILE...", help="XP spectra, any format.")],
    output: OutputFolder,
    correlations: Annotated[
        bool, typer.Option("--correlations", help="Keep the correlations (15 times the size).")
    ] = False,
    chunk_rows: Annotated[int, typer.Option("--chunk-rows", min=1, help="Rows per file.")] = 50_000,
    release: Annotated[
        str | None,
        typer.Option(
            "--release",
            metavar="NAME|FILE",
            help="Gaia release of the spectra: dr3, dr4 or a TOML file [default: by the files].",
        ),
    ] = None,
) -> None:
    """Rewrite spectra of any archive format as Parquet."""
    from catalogproc.readers.chunks import expand
    from catalogproc.readers.convert import convert as convert_files
    from catalogproc.release import load_release

    known = None if release is None else load_release(release)
    with show_progress("stars") as progress:
        written = convert_files(
            expand(files), output, correlations=correlations, chunk_rows=chunk_rows,
            release=known, watch=progress,
        )  # fmt: skip
    for path in written:
        note(str(path))
    say(f"{plural(len(written), 'file')} written to {output}")


def describe(
    what: Annotated[
        str,
        typer.Argument(
            metavar="WHAT",
            help="A table (catalog, posterior, prior, xp_continuous, gaia_source, rejected, "
            "receipt), flags, vocabulary, a model, a job, a Gaia release, the folder of a run, or "
            "a file of spectra or other data.",
        ),
    ],
    as_json: AsJson = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="As Markdown.")] = False,
) -> None:
    """Explain a table, the flags, the tokens, a model, a job, a catalog, or any file of data."""
    from catalogproc.export.describe import describe as describe_it

    sections = describe_it(what)
    if as_json:
        say(json.dumps([section.to_dict() for section in sections], indent=1))
        return
    if markdown:
        say("\n".join(section.markdown() for section in sections).rstrip())
        return
    from rich.table import Table

    for section in sections:
        console().print(f"\n[bold]{section.title}[/bold]", highlight=False)
        if section.text:
            console().print(section.text, markup=False, highlight=False)
        if section.rows:
            table = Table(*section.header, box=None, pad_edge=False, header_style="bold")
            for row in section.rows:
                table.add_row(*row)
            console().print(table, markup=False)


def simulate(
    stars: Annotated[int, typer.Option("--stars", min=1, help="Number of stars.")],
    seed: Seed,
    output: OutputFolder,
    release: Annotated[
        str,
        typer.Option(
            "--release", metavar="NAME|FILE", help="Gaia release of the spectra, with matrices."
        ),
    ] = "dr3",
) -> None:
    """Draw giants with known truth: spectra, photometry and a truth table."""
    from catalogproc.release import load_release
    from catalogproc.simulation.simulator import Simulator, write_stars

    wanted = load_release(release)
    wanted.design_file()  # refused before anything is drawn
    with show_progress("stars") as progress:
        drawn = Simulator().draw(stars, seed, progress)
    for path in write_stars(drawn.in_release(wanted), output):
        note(str(path))
    say(f"{plural(stars, 'star')} written to {output}")


@release_app.command("add", cls=HelpCommand, epilog=epilog("release add"))
def add_release(
    design: Annotated[
        list[Path],
        typer.Option(
            "--design",
            metavar="FILE...",
            help="GaiaXPy's files: XpFilter_….xml, …-correction-factors.csv, or an .npz file.",
        ),
    ],
    output: Annotated[
        Path,
        typer.Option("--output", metavar="FILE.toml", help="Release file.", callback=check_file),
    ],
    like: Annotated[
        str,
        typer.Option(
            "--like",
            metavar="NAME|FILE",
            help="Release to begin from: dr3, dr4 or a TOML file.",
        ),
    ] = "dr4",
    name: Annotated[
        str | None, typer.Option("--name", help="Name of the release [default: that of --like].")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Give a release the design matrices of GaiaXPy's files, so that canonical models read it."""
    from catalogproc.features.release_files import add_release as write_release

    result(write_release(design, output, like, name), as_json)
