"""The command line: the verbs, and no logic."""

from __future__ import annotations

import functools
import inspect
import json
import sys
from collections.abc import Callable
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from catalogproc import __version__
from catalogproc.cli import catalog, evaluation, spectra, training
from catalogproc.cli.catalog import AsJson, GaiaSource, result, say, show_report
from catalogproc.cli.console import VOICE, console, note
from catalogproc.cli.console import progress as show_progress
from catalogproc.cli.outputs import OutputFolder, RunOutput
from catalogproc.errors import CatalogprocError

if TYPE_CHECKING:
    from catalogproc.cluster.spec import RunSpec

app = typer.Typer(
    name="catalogproc",
    help="Masses, ages and atmospheres of giant stars from Gaia XP spectra.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

# Options that take all the words up to the next option, as the shell expands them.
_MANY = ("--input", "--gaia-source", *training.MANY, *spectra.MANY)


_QUIET = {"--quiet", "-q"}


class Device(StrEnum):
    """Where the model runs."""

    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"


Input = Annotated[
    list[str],
    typer.Option(
        "--input", metavar="FILE...", help="XP spectra: files, quoted globs, folders, s3://…"
    ),
]
Model = Annotated[
    str, typer.Option("--model", metavar="NAME|DIR", help="A shipped model, or a bundle's folder.")
]
JobName = Annotated[
    str, typer.Option("--job", metavar="NAME|FILE", help="A shipped job, or a TOML file.")
]
Scheduler = Annotated[
    str | None,
    typer.Option("--scheduler", metavar="ADDRESS", help="An existing Dask scheduler: tcp://…"),
]
Workers = Annotated[
    int | None,
    typer.Option("--workers", min=1, help="Workers of the local cluster [default: by machine]."),
]
CpuWorkers = Annotated[
    int, typer.Option("--cpu-workers", min=0, help="Workers on the CPU beside those on GPUs.")
]
DeviceName = Annotated[Device, typer.Option("--device", help="Where the model runs.")]
DustName = Annotated[
    training.DustChoice | None,
    typer.Option("--dust", help="A map to read E(B-V) from, by parallax [default: the job's]."),
]


def _run_spec(
    input: Input,
    output: RunOutput,
    gaia_source: GaiaSource = None,
    model: Model = "default",
    job: JobName = "gaia-dr3-giants",
    scheduler: Scheduler = None,
    workers: Workers = None,
    device: DeviceName = Device.auto,
    cpu_workers: CpuWorkers = 0,
    dust: DustName = None,
) -> RunSpec:
    """Return the run that the options describe; they are those of run, check and plan."""
    from catalogproc.cluster.spec import ClusterConfig, RunSpec

    cluster = ClusterConfig(scheduler, workers, device.value, cpu_workers=cpu_workers)
    dust_map = None if dust is None else dust.value
    return RunSpec(input, output, gaia_source or (), model, job, dust_map, cluster)


def _run_options(verb: Callable[..., None]) -> Callable[..., None]:
    """Give a verb the options of :func:`_run_spec` in place of its parameter ``spec``."""
    shared = inspect.signature(_run_spec, eval_str=True, locals={"RunSpec": Any}).parameters
    others = inspect.signature(verb, eval_str=True, locals={"RunSpec": Any}).parameters
    parameters = [*shared.values(), *(others[name] for name in others if name != "spec")]

    @functools.wraps(verb)
    def command(**options: Any) -> None:
        chosen = {name: options.pop(name) for name in shared}
        verb(_run_spec(**chosen), **options)

    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {option.name: option.annotation for option in parameters}
    return command


@app.command()
@_run_options
def run(
    spec: RunSpec,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check all, list the chunks, and start nothing.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Turn XP spectra into a catalog. Running it again resumes; finished chunks are skipped."""
    from catalogproc.cluster.plan import check as check_plan
    from catalogproc.cluster.plan import make_plan
    from catalogproc.cluster.run import run as run_plan
    from catalogproc.rundir.sync import pull, synced

    VOICE.quiet = VOICE.quiet or as_json
    if dry_run:
        plan = make_plan(spec.with_output(pull(spec.output)), note)
        checked = check_plan(plan)
        result(plan, as_json)
        for line in checked:
            note(line)
        raise typer.Exit
    with synced(spec.output, note) as folder:
        plan = make_plan(spec.with_output(folder), note)
        for line in plan.lines(short=True):
            note(line)
        with show_progress("stars") as progress:
            done = run_plan(plan, progress=progress, announce=progress.say)
        result(done, as_json, quiet=VOICE.quiet and not done.exit_code)
        show_report(folder, plan.bundle.path, only_if_missing=not done.chunks_run)
    raise typer.Exit(done.exit_code)


@app.command()
@_run_options
def check(spec: RunSpec) -> None:
    """Test everything that can be refused before a run starts, and write nothing."""
    from catalogproc.cluster.plan import check as check_plan
    from catalogproc.cluster.plan import make_plan
    from catalogproc.rundir.sync import pull

    for line in check_plan(make_plan(spec.with_output(pull(spec.output)), note)):
        say(line)
    say("ready to run")


@app.command()
@_run_options
def plan(spec: RunSpec, as_json: AsJson = False) -> None:
    """List the chunks of a run: what is done, and what remains. Writes nothing."""
    from catalogproc.cluster.plan import make_plan
    from catalogproc.rundir.sync import pull

    result(make_plan(spec.with_output(pull(spec.output))), as_json)


app.command()(catalog.verify)
app.command()(catalog.status)
app.command()(catalog.export)
app.command()(catalog.report)
app.command()(catalog.explain)


@app.command()
def convert(
    files: Annotated[list[str], typer.Argument(metavar="FILE...", help="XP spectra, any format.")],
    output: OutputFolder,
    correlations: Annotated[
        bool, typer.Option("--correlations", help="Keep the correlations (15 times the size).")
    ] = False,
    chunk_rows: Annotated[int, typer.Option("--chunk-rows", min=1, help="Rows a file.")] = 50_000,
) -> None:
    """Rewrite spectra of any archive format as Parquet."""
    from catalogproc.readers.chunks import expand
    from catalogproc.readers.convert import convert as convert_files

    with show_progress("stars") as progress:
        written = convert_files(
            expand(files), output, correlations=correlations, chunk_rows=chunk_rows,
            watch=progress,
        )  # fmt: skip
    for path in written:
        say(str(path))


@app.command()
def describe(
    what: Annotated[str, typer.Argument(metavar="catalog|xp_continuous|flags|MODEL|JOB|DIR")],
    as_json: AsJson = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="As Markdown.")] = False,
) -> None:
    """Explain a table, the flags, a model, a job or a finished catalog."""
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


@app.command()
def simulate(
    stars: Annotated[int, typer.Option("--stars", min=1, help="How many.")],
    seed: Annotated[int, typer.Option("--seed", min=0, help="The same seed, the same stars.")],
    output: OutputFolder,
) -> None:
    """Draw giants with known truth: spectra, photometry and a truth table."""
    from catalogproc.simulation.simulator import Simulator, write_stars

    with show_progress("stars") as progress:
        drawn = Simulator().draw(stars, seed, progress)
    for path in write_stars(drawn, output):
        say(str(path))


app.command()(training.dust)
app.add_typer(training.dataset, name="dataset")
app.command()(training.train)
app.command()(evaluation.evaluate)
app.command()(evaluation.crosscheck)
app.command()(evaluation.infer)
app.command()(evaluation.calibrate)
app.command()(spectra.generate)
app.command()(spectra.inpaint)
app.command()(spectra.embed)


def main() -> None:
    """The entry point: words spread, errors in the user's words, exit codes 0, 1 and 2."""
    try:
        app(args=_spread(sys.argv[1:]), prog_name="catalogproc", standalone_mode=True)
    except CatalogprocError as error:
        console(stderr=True).print(f"error: {error}", style="red", markup=False, highlight=False)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        console(stderr=True).print("stopped: run the same command again to resume", style="yellow")
        sys.exit(130)


def _spread(words: list[str]) -> list[str]:
    """``--input a b`` as ``--input a --input b``, so that the shell may expand a glob; and
    ``--quiet``, which stands anywhere, first."""
    spread = ["--quiet"] if _QUIET & set(words) else []
    words = [word for word in words if word not in _QUIET]
    option = ""
    for word in words:
        if word.startswith("-") and word != "-":
            option = word if word in _MANY else ""
            if not option:
                spread.append(word)
        elif option:
            spread += [option, word]
        else:
            spread.append(word)
    return spread


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"catalogproc {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="The version.")
    ] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Say only results and what went wrong.")
    ] = False,
) -> None:
    """Masses, ages and atmospheres of giant stars from Gaia XP spectra."""
    VOICE.quiet = quiet
