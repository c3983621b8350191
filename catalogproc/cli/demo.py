"""The command demo: a catalog of real giants that ship, in one word."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from catalogproc.cli.console import VOICE, note, result
from catalogproc.cli.console import progress as show_progress
from catalogproc.cli.options import AsJson, Device, DeviceName, check_folder


def demo(
    output: Annotated[
        Path, typer.Option("--output", metavar="DIR", help="Output folder.", callback=check_folder)
    ] = Path("catalogproc-demo"),
    workers: Annotated[
        int | None,
        typer.Option(
            "--workers", min=1, help="Workers of the local cluster [default: by machine]."
        ),
    ] = None,
    device: DeviceName = Device.auto,
    as_json: AsJson = False,
) -> None:
    """Make a catalog of 2,000 real giants that ship, and compare it with APOGEE's labels."""
    from catalogproc.cluster.demo import demo as make
    from catalogproc.cluster.spec import ClusterConfig

    VOICE.quiet = VOICE.quiet or as_json
    note("2,000 real giants of Gaia DR3 with APOGEE's labels, which the model has not seen")
    with show_progress("stars") as progress:
        cluster = ClusterConfig(None, workers, device.value)
        made = make(output, cluster, progress=progress)
    result(made, as_json)
    raise typer.Exit(made.run.exit_code)
