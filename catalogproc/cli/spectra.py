"""The commands that make spectra: generate, inpaint, embed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from catalogproc.cli.console import progress as show_progress
from catalogproc.cli.console import say_lines
from catalogproc.cli.options import (
    Device,
    DeviceName,
    GaiaSource,
    JobName,
    Model,
    OutputParquet,
    ReleaseName,
    Spectra,
    check_file,
)

MANY = ("--known",)
"""Options that take several values, up to the next option."""


def generate(
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            metavar="FILE",
            help="Coefficients: .parquet or .ecsv.",
            callback=check_file,
        ),
    ] = None,
    flux: Annotated[
        Path | None,
        typer.Option(
            "--flux",
            metavar="FILE",
            help="Flux by wavelength: .parquet or .ecsv.",
            callback=check_file,
        ),
    ] = None,
    plot: Annotated[
        Path | None, typer.Option("--plot", metavar="FILE.png", help="Picture of the spectra.")
    ] = None,
    teff: Annotated[float | None, typer.Option("--teff", help="Effective temperature, K.")] = None,
    logg: Annotated[
        float | None, typer.Option("--logg", help="log10 of surface gravity, dex.")
    ] = None,
    m_h: Annotated[float | None, typer.Option("--m-h", help="[M/H], dex.")] = None,
    mass: Annotated[float | None, typer.Option("--mass", help="Mass, solar masses.")] = None,
    age: Annotated[float | None, typer.Option("--age", help="Age, Gyr.")] = None,
    ebv: Annotated[
        float | None, typer.Option("--ebv", help="E(B-V), mag on the SFD scale.")
    ] = None,
    known: Annotated[
        list[str] | None,
        typer.Option(
            "--known", metavar="NAME=VALUE...", help="Any other token.", rich_help_panel="Stars"
        ),
    ] = None,
    stars: Annotated[
        Path | None,
        typer.Option("--stars", metavar="TABLE", help="Many stars: columns named as tokens."),
    ] = None,
    isochrone: Annotated[
        str | None,
        typer.Option(
            "--isochrone", metavar="AGE,M_H", help="Red giants of that age in Gyr and [M/H]."
        ),
    ] = None,
    distance: Annotated[
        float | None,
        typer.Option("--distance", metavar="KPC", help="On the scale of stars so far away."),
    ] = None,
    absolute: Annotated[
        bool, typer.Option("--absolute", help="On the scale of stars at 10 pc.")
    ] = False,
    draws: Annotated[
        int | None,
        typer.Option(
            "--draws",
            metavar="N",
            min=0,
            help="For how errors go together; 0: not at all [default: 64, to 1,000 stars].",
        ),
    ] = None,
    model: Model = "default",
    release: ReleaseName = None,
    device: DeviceName = Device.auto,
) -> None:
    """Make XP spectra of stars by their labels: coefficients, flux and a picture, with errors."""
    from catalogproc.network.bundle import load_bundle
    from catalogproc.spectra.generate import SpectraRequest, make_spectra

    labels = {"teff": teff, "logg": logg, "m_h": m_h, "mass": mass, "age": age, "ebv": ebv}
    wanted = SpectraRequest(
        labels={name: value for name, value in labels.items() if value is not None},
        known=tuple(known or ()), stars=stars, isochrone=isochrone,
        distance=distance, absolute=absolute, draws=draws, output=output, flux=flux, plot=plot,
    )  # fmt: skip
    say_lines(make_spectra(wanted, load_bundle(model).for_release(release), device.value))


def inpaint(
    input: Spectra,
    output: OutputParquet,
    source: Annotated[
        str,
        typer.Option(
            "--from",
            metavar="PART",
            help="Part that is read: bp, rp, all, or nm as 500-1020.",
            rich_help_panel="Model and method",
        ),
    ] = "all",
    target: Annotated[
        str,
        typer.Option(
            "--to",
            metavar="PART",
            help="Part that is predicted: bp, rp, missing, or nm as 336-500.",
            rich_help_panel="Model and method",
        ),
    ] = "missing",
    gaia_source: GaiaSource = None,
    plot: Annotated[
        Path | None, typer.Option("--plot", metavar="FILE.png", help="The first few of them.")
    ] = None,
    model: Model = "default",
    release: ReleaseName = None,
    device: DeviceName = Device.auto,
) -> None:
    """Complete partial spectra: predict the missing part, with errors."""
    from catalogproc.datasets.star_reader import StarFiles
    from catalogproc.evaluation.metrics import resolve_device
    from catalogproc.network.bundle import load_bundle
    from catalogproc.network.predictor import Predictor
    from catalogproc.readers.chunks import expand
    from catalogproc.spectra.inpaint import InpaintRequest, SpectraOutput
    from catalogproc.spectra.inpaint import inpaint as complete

    files = StarFiles(expand(input), expand(gaia_source or []))
    request = InpaintRequest.of(source, target)
    predictor = Predictor(load_bundle(model).for_release(release), resolve_device(device.value))
    with show_progress("stars") as progress:
        done = complete(files, request, SpectraOutput(output, plot), predictor, progress)
    say_lines(done.lines())


def embed(
    input: Spectra,
    output: OutputParquet,
    gaia_source: GaiaSource = None,
    job: JobName = "gaia-dr3-giants",
    model: Model = "default",
    release: ReleaseName = None,
    device: DeviceName = Device.auto,
) -> None:
    """Turn stars into vectors, the output of the encoder, for neighbours and clustering."""
    from catalogproc.datasets.star_reader import StarFiles
    from catalogproc.evaluation.metrics import resolve_device
    from catalogproc.job import load_job
    from catalogproc.network.bundle import load_bundle
    from catalogproc.network.predictor import Predictor
    from catalogproc.readers.chunks import expand
    from catalogproc.spectra.embed import embed as embed_stars

    files = StarFiles(expand(input), expand(gaia_source or []))
    predictor = Predictor(load_bundle(model).for_release(release), resolve_device(device.value))
    with show_progress("stars") as progress:
        done = embed_stars(files, output, predictor, load_job(job), progress)
    say_lines(done.lines())
