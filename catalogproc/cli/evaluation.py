"""Commands that apply, evaluate and calibrate a model, and validate a catalog."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from catalogproc.cli.console import note, say, say_lines
from catalogproc.cli.console import progress as show_progress
from catalogproc.cli.options import (
    Device,
    DeviceName,
    Model,
    OutputFolder,
    OutputTable,
    ReleaseName,
    Seed,
)

if TYPE_CHECKING:
    from catalogproc.datasets.benchmark_stars import Benchmark
    from catalogproc.evaluation.benchmark import BenchmarkConfig
    from catalogproc.evaluation.xgboost_baseline import Trees
    from catalogproc.network.bundle import Bundle
    from catalogproc.paper.context import ExperimentContext
    from catalogproc.paper.experiment import Experiment


def evaluate(
    output: OutputFolder,
    model: Model = "default",
    data: Annotated[
        Path | None,
        typer.Option(
            "--data", metavar="DIR", help="Stars with known labels, from simulate or dataset."
        ),
    ] = None,
    stars: Annotated[
        int, typer.Option("--stars", min=1, help="Without --data: number of simulated stars.")
    ] = 10_000,
    seed: Seed = 20_260_901,
    quick: Annotated[
        bool,
        typer.Option("--quick", help="Minutes instead of an hour: fewer panels, trees, stars."),
    ] = False,
    figures: Annotated[
        str | None,
        typer.Option(
            "--figures",
            metavar="N,...|all|none",
            help="Only figures 4 to 19 of Zhang, Bu et al. (2026) [default: scores and all].",
        ),
    ] = None,
    device: DeviceName = Device.auto,
) -> None:
    """Evaluate a model on stars with known labels; repeat figures of Zhang, Bu et al. (2026)."""
    from catalogproc.datasets.dataset_parts import is_dataset, marks_giants
    from catalogproc.datasets.test_sets import Simulated, benchmark
    from catalogproc.evaluation.benchmark import BenchmarkConfig
    from catalogproc.evaluation.xgboost_baseline import Trees
    from catalogproc.network.bundle import load_bundle
    from catalogproc.paper import registry

    experiments = registry.select_experiments(figures or "all")
    bundle = load_bundle(model)
    with_scores = figures in (None, "none")
    trees = Trees.preset(quick, is_dataset(data), output / "trees" if is_dataset(data) else None)
    wanted = Simulated.as_trained(stars, seed, bundle.training)
    test = benchmark(data, wanted, bundle.vocabulary, truth=with_scores)
    giants = data if marks_giants(data) else None
    if giants is not None and (with_scores or figures == "all"):
        _write_real_giants(bundle, giants, output, trees, device)
    if with_scores and not (giants is not None and figures == "none"):
        config = BenchmarkConfig.preset(quick, device.value, trees)
        _write_scores(bundle, test, data, output, config)
        _write_reliability(bundle, output, quick)
    if experiments:
        test = registry.exclude_training_stars(bundle, test)
        scale = registry.Scale.preset(quick, trees)
        context = registry.make_context(bundle, test, data, scale, device.value)
        _write_experiments(context, experiments, output)


def _write_real_giants(
    model: Bundle, data: Path, output: Path, trees: Trees, device: Device
) -> None:
    from catalogproc.evaluation.metrics import resolve_device
    from catalogproc.evaluation.real_giants import evaluate_giants
    from catalogproc.evaluation.real_giants_page import page, write_real_giants

    with show_progress("steps") as progress:
        found = evaluate_giants(model, data, trees, resolve_device(device.value), progress)
    say(page(found))
    for path in write_real_giants(found, output):
        note(str(path))


def _write_experiments(
    context: ExperimentContext, experiments: Sequence[Experiment], output: Path
) -> None:
    from catalogproc.paper import registry, results_page

    with show_progress("figures") as progress:
        results = registry.run_experiments(experiments, context, progress)
    for line in results_page.summary_lines(results):
        say(line)
    for path in results_page.write_experiments(results, context, output):
        note(str(path))


def _write_scores(
    model: Bundle,
    test: Benchmark,
    data: Path | None,
    output: Path,
    config: BenchmarkConfig,
) -> None:
    from catalogproc.datasets.test_sets import Simulated, training_stars
    from catalogproc.evaluation.benchmark import evaluate_model
    from catalogproc.evaluation.scorecard import text, write_scorecard

    with show_progress("steps") as progress:
        wanted = Simulated.as_trained(config.tree_stars, config.seed, model.training)
        training = training_stars(data, wanted, model.vocabulary)
        result = evaluate_model(model, test, config, progress, training)
    say(text(result))
    for path in write_scorecard(result, output):
        note(str(path))


def _write_reliability(model: Bundle, output: Path, quick: bool) -> None:
    from catalogproc.evaluation.ood_detection import write_reliability

    reliability, paths = write_reliability(model, output, quick)
    say(reliability)
    for path in paths:
        note(str(path))


def infer(
    input: Annotated[
        Path,
        typer.Option("--input", metavar="TABLE", help="Table whose columns are named as tokens."),
    ],
    labels: Annotated[
        str,
        typer.Option("--labels", metavar="NAME,...", help="Such as mass,age,teff,ebv,dist,bp0."),
    ],
    output: OutputTable,
    model: Model = "default",
    release: ReleaseName = None,
    device: DeviceName = Device.auto,
) -> None:
    """Predict any labels from the inputs each row has."""
    from catalogproc.evaluation.metrics import resolve_device
    from catalogproc.network.bundle import load_bundle
    from catalogproc.network.predictor import Predictor
    from catalogproc.spectra.infer import infer as infer_table

    predictor = Predictor(load_bundle(model).for_release(release), resolve_device(device.value))
    with show_progress("stars") as progress:
        result = infer_table(input, labels.split(","), output, predictor, progress)
    say_lines(result.lines())


def calibrate(
    output: OutputFolder,
    model: Model = "default",
    stars: Annotated[
        int, typer.Option("--stars", min=1, help="Number of simulated stars.")
    ] = 40_000,
    seed: Seed = 20_261_125,
    job: Annotated[
        str | None,
        typer.Option("--job", metavar="NAME|FILE", help="With --data: its job."),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option("--data", metavar="DIR", help="Dataset of a model that real stars trained."),
    ] = None,
) -> None:
    """Recalibrate a model's uncertainties and limits, and measure its training prior again."""
    from catalogproc.job import load_training_job
    from catalogproc.network.bundle import load_bundle
    from catalogproc.training.config import TrainSpec
    from catalogproc.training.recalibration import recalibrate, recalibrate_real

    bundle = load_bundle(model)
    if data is None:
        made = recalibrate(bundle, output, stars, seed)
    else:
        spec = TrainSpec(load_training_job(job or str(bundle.training["job"])), output, data)
        made = recalibrate_real(bundle, output, spec)
    say(f"{made.name} {made.hash[:8]}: {', '.join(made.calibration.by_label)}")
    note(f"to check its coverage: catalogproc evaluate --model {output} --output DIR")


def crosscheck(
    catalog: Annotated[Path, typer.Argument(metavar="DIR", help="Output folder of run.")],
    output: OutputFolder,
    members: Annotated[
        Path | None,
        typer.Option(
            "--members", metavar="TABLE", help="Cluster members: source_id, cluster, probability."
        ),
    ] = None,
    known: Annotated[
        Path | None,
        typer.Option("--known", metavar="TABLE", help="Literature values: cluster, log_age, m_h."),
    ] = None,
    again: Annotated[
        Path | None,
        typer.Option("--again", metavar="DIR", help="A run on other spectra of the same stars."),
    ] = None,
    catalogs: Annotated[
        list[Path] | None,
        typer.Option(
            "--catalog",
            metavar="TABLE",
            help="A published catalog by its own column names, such as Gaia's FLAME; repeatable.",
        ),
    ] = None,
    recipes: Annotated[
        list[str] | None,
        typer.Option(
            "--recipe",
            metavar="NAME|FILE",
            help="How to read --catalog [default: recognised by its columns]; repeatable.",
        ),
    ] = None,
    link: Annotated[
        Path | None,
        typer.Option(
            "--link", metavar="TABLE", help="Links identifiers of --catalog to Gaia's, if needed."
        ),
    ] = None,
    crosswalk: Annotated[
        Path | None,
        typer.Option(
            "--crosswalk",
            metavar="TABLE",
            help="dr3_neighbourhood, for a run of DR4 and --catalog with identifiers of DR3.",
        ),
    ] = None,
    probability: Annotated[
        float,
        typer.Option("--probability", min=0, max=1, help="Smallest membership probability."),
    ] = 0.7,
) -> None:
    """Validate a catalog against published catalogs, clusters and repeated spectra."""
    from catalogproc.evaluation.external_report import References
    from catalogproc.evaluation.external_report import crosscheck as check
    from catalogproc.evaluation.reference_identifiers import IdentifierTables

    published, chosen = tuple(catalogs or ()), tuple(recipes or ())
    tables = IdentifierTables(link, crosswalk)
    references = References(members, known, again, published, chosen, tables, probability)
    page, paths = check(catalog, output, references)
    say(page)
    for path in paths:
        note(str(path))


def diff(
    first: Annotated[str, typer.Argument(metavar="DIR", help="Output folder of run, or s3://…")],
    second: Annotated[str, typer.Argument(metavar="DIR", help="Another one, such as of DR4.")],
    output: OutputFolder,
    crosswalk: Annotated[
        Path | None,
        typer.Option(
            "--crosswalk",
            metavar="TABLE",
            help="Table dr3_neighbourhood [default: identifiers are the same].",
        ),
    ] = None,
    where: Annotated[
        str | None,
        typer.Option("--where", metavar="EXPR", help="Compare these stars alone: 'good_params'."),
    ] = None,
) -> None:
    """Compare the stars of two catalogs: differences over errors by label, G and flag."""
    from catalogproc.evaluation.catalog_diff import compare_catalogs
    from catalogproc.evaluation.diff_page import write_diff

    text, paths = write_diff(compare_catalogs(first, second, crosswalk, where), output)
    say(text)
    for path in paths:
        note(str(path))
