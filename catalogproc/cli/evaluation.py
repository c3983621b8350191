"""The verbs that question a model, judge it and its catalogs, and find its errors: infer, evaluate,
calibrate, crosscheck."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from catalogproc.cli.console import note
from catalogproc.cli.console import progress as show_progress


class ModelDevice(StrEnum):
    """Where the model runs."""

    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"


DeviceName = Annotated[ModelDevice, typer.Option("--device", help="Where the model runs.")]


def evaluate(
    output: Annotated[Path, typer.Option("--output", metavar="DIR", help="The folder to write.")],
    bundle: Annotated[
        str, typer.Option("--bundle", metavar="NAME|DIR", help="The model to judge.")
    ] = "default",
    data: Annotated[
        Path | None,
        typer.Option(
            "--data", metavar="DIR", help="Stars and truth, as simulate or dataset write."
        ),
    ] = None,
    stars: Annotated[
        int, typer.Option("--stars", min=1, help="Without --data, so many simulated ones.")
    ] = 10_000,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of these.")] = 20_260_901,
    quick: Annotated[
        bool, typer.Option("--quick", help="Minutes, not an hour: fewer panels, trees and stars.")
    ] = False,
    figures: Annotated[
        str | None,
        typer.Option(
            "--figures",
            metavar="N,...|all|none",
            help="The seed paper's figures alone, 4 to 19 [default: the judgement and all].",
        ),
    ] = None,
    device: DeviceName = ModelDevice.auto,
) -> None:
    """Judge a model on stars with known answers, and repeat the seed paper's experiments."""
    from catalogproc.datasets.test_sets import benchmark, training_stars
    from catalogproc.evaluation.benchmark import Effort, judge
    from catalogproc.evaluation.page import write_trust
    from catalogproc.evaluation.scorecard import text, write_scorecard
    from catalogproc.network.bundle import load_bundle
    from catalogproc.paper import registry

    experiments = registry.chosen(figures or "all")
    model = load_bundle(bundle)
    alone = figures not in (None, "none")
    known = benchmark(data, stars, seed, model.vocabulary, truth=not alone)
    if not alone:
        with show_progress("steps") as progress:
            effort = Effort.of(quick, device.value)
            drawn = training_stars(data, effort.tree_stars, effort.seed, model.vocabulary)
            judged = judge(model, known, effort, progress, drawn)
        typer.echo(text(judged))
        held, others = write_trust(model, output, quick)
        typer.echo(held)
        for path in [*write_scorecard(judged, output), *others]:
            note(str(path))
    if experiments:
        known = registry.unseen(model, known)
        with show_progress("figures") as progress:
            made = registry.run(
                experiments, model, known, data, registry.Scale.of(quick), device.value, progress
            )
        for line in registry.lines(made):
            typer.echo(line)
        for path in registry.write_experiments(made, model, known, output):
            note(str(path))


def infer(
    input: Annotated[
        Path, typer.Option("--input", metavar="TABLE", help="Its columns are named as tokens.")
    ],
    labels: Annotated[
        str, typer.Option("--labels", metavar="NAME,...", help="mass,age,teff,ebv,dist,bp0, ...")
    ],
    output: Annotated[
        Path, typer.Option("--output", metavar="TABLE", help="csv, ecsv, parquet, fits or vot.")
    ],
    model: Annotated[
        str, typer.Option("--model", metavar="NAME|DIR", help="A shipped model, or a folder.")
    ] = "default",
    device: DeviceName = ModelDevice.auto,
) -> None:
    """Answer any labels from whatever is known of each star of a table."""
    from catalogproc.network.bundle import load_bundle
    from catalogproc.spectra.infer import infer as infer_table

    with show_progress("stars") as progress:
        account = infer_table(
            input,
            labels.split(","),
            output,
            load_bundle(model),
            device=device.value,
            progress=progress,
        )
    for line in account.lines():
        note(line)


def calibrate(
    output: Annotated[Path, typer.Option("--output", metavar="DIR", help="The bundle to write.")],
    bundle: Annotated[
        str, typer.Option("--bundle", metavar="NAME|DIR", help="The model to calibrate.")
    ] = "default",
    stars: Annotated[int, typer.Option("--stars", min=1, help="So many simulated ones.")] = 40_000,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of these.")] = 20_261_125,
) -> None:
    """Find anew how far a model's answers may be off, and which stars are unlike its own."""
    from catalogproc.network.bundle import load_bundle
    from catalogproc.training.fit_calibration import calibrated

    made = calibrated(load_bundle(bundle), output, stars, seed)
    note(f"{made.name} {made.hash[:8]}: {', '.join(made.reliability.calibration)}")
    note(f"how well its errors hold: catalogproc evaluate --bundle {output} --output DIR")


def crosscheck(
    catalog: Annotated[Path, typer.Argument(metavar="DIR", help="A folder that run wrote.")],
    output: Annotated[Path, typer.Option("--output", metavar="DIR", help="The folder to write.")],
    members: Annotated[
        Path | None,
        typer.Option(
            "--members", metavar="TABLE", help="Clusters: source_id, cluster, probability."
        ),
    ] = None,
    known: Annotated[
        Path | None,
        typer.Option("--known", metavar="TABLE", help="Of these: cluster, log_age, m_h."),
    ] = None,
    again: Annotated[
        Path | None,
        typer.Option("--again", metavar="DIR", help="A run on other spectra of the same stars."),
    ] = None,
    masses: Annotated[
        Path | None,
        typer.Option(
            "--masses", metavar="TABLE", help="Such as seismic ones: source_id, mass, e_mass."
        ),
    ] = None,
    probability: Annotated[
        float, typer.Option("--probability", min=0, max=1, help="Of members, at least.")
    ] = 0.7,
) -> None:
    """Hold a catalog against clusters, repeated spectra and masses from elsewhere."""
    from catalogproc.evaluation.external_report import crosscheck as check

    page, paths = check(
        catalog, output, members=members, known=known, again=again, masses=masses,
        probability=probability,
    )  # fmt: skip
    typer.echo(page)
    for path in paths:
        note(str(path))
