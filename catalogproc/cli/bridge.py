"""The commands of a bridge between Gaia releases: bridge fit, bridge check."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from catalogproc.cli.console import result
from catalogproc.cli.examples import epilog
from catalogproc.cli.help_pages import HelpCommand, HelpGroup
from catalogproc.cli.options import AsJson, check_file

if TYPE_CHECKING:
    from catalogproc.datasets.release_bridge import PairFiles

MANY = ("--from", "--to")
"""Options that take all values up to the next option."""

bridge_app = typer.Typer(
    help="Learn a map from one Gaia release to another from stars that are in both.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    cls=HelpGroup,
)

Source = Annotated[
    list[str],
    typer.Option("--from", metavar="FILE...", help="XP spectra of the release to be read."),
]
Target = Annotated[
    list[str], typer.Option("--to", metavar="FILE...", help="XP spectra of the same stars in DR3.")
]
Crosswalk = Annotated[
    Path | None,
    typer.Option(
        "--crosswalk",
        metavar="TABLE",
        help="Table dr3_neighbourhood [default: identifiers are the same].",
    ),
]


@bridge_app.command("fit", cls=HelpCommand, epilog=epilog("bridge fit"))
def fit_bridge(
    source: Source,
    target: Target,
    output: Annotated[
        Path,
        typer.Option("--output", metavar="FILE.toml", help="Bridge file.", callback=check_file),
    ],
    crosswalk: Crosswalk = None,
    release: Annotated[
        str,
        typer.Option("--release", metavar="NAME|FILE", help="Gaia release of --from."),
    ] = "dr4",
    as_json: AsJson = False,
) -> None:
    """Fit a bridge to stars of both releases; `run --bridge FILE` reads spectra with it."""
    from catalogproc.datasets.release_bridge import fit

    result(fit(_files(source, target, crosswalk, release), output), as_json)


@bridge_app.command("check", cls=HelpCommand, epilog=epilog("bridge check"))
def check_bridge(
    bridge: Annotated[Path, typer.Argument(metavar="BRIDGE", help="File of `bridge fit`.")],
    source: Source,
    target: Target,
    crosswalk: Crosswalk = None,
    as_json: AsJson = False,
) -> None:
    """Compare a bridge with stars of both releases that it was not fitted to."""
    from catalogproc.datasets.release_bridge import check

    result(check(bridge, _files(source, target, crosswalk, str(bridge))), as_json)


def _files(source: list[str], target: list[str], crosswalk: Path | None, release: str) -> PairFiles:
    from catalogproc.datasets.release_bridge import PairFiles
    from catalogproc.release import load_release

    return PairFiles(tuple(source), tuple(target), crosswalk, load_release(release))
