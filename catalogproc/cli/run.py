"""The commands of a run: run, check and plan, which have the same options."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from catalogproc.cli.catalog import show_report
from catalogproc.cli.console import VOICE, note, result, say
from catalogproc.cli.console import progress as show_progress
from catalogproc.cli.options import (
    AsJson,
    Device,
    DeviceName,
    GaiaSource,
    JobName,
    Model,
    ReleaseName,
    RunOutput,
    Spectra,
)
from catalogproc.cli.training import DustChoice

if TYPE_CHECKING:
    from catalogproc.cluster.result import RunResult
    from catalogproc.cluster.spec import RunSpec

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
Strict = Annotated[
    bool,
    typer.Option("--strict", help="Refuse gaia_source tables that do not fit, not only warn."),
]
BridgeFile = Annotated[
    Path | None,
    typer.Option("--bridge", metavar="FILE", help="Map of another release, of `bridge fit`."),
]
Posterior = Annotated[
    int | None,
    typer.Option("--posterior", metavar="N", help="Also write N posterior values a star."),
]
DustName = Annotated[
    DustChoice | None,
    typer.Option("--dust", help="A map to read E(B-V) from, by parallax [default: the job's]."),
]


def _run_spec(
    input: Spectra,
    output: RunOutput,
    gaia_source: GaiaSource = None,
    model: Model = "default",
    job: JobName = "gaia-dr3-giants",
    scheduler: Scheduler = None,
    workers: Workers = None,
    device: DeviceName = Device.auto,
    cpu_workers: CpuWorkers = 0,
    dust: DustName = None,
    strict: Strict = False,
    release: ReleaseName = None,
    bridge: BridgeFile = None,
    posterior: Posterior = None,
) -> RunSpec:
    """Return the run that the options describe; they are those of run, check and plan."""
    from catalogproc.cluster.spec import ClusterConfig, RunSpec

    cluster = ClusterConfig(scheduler, workers, device.value, cpu_workers=cpu_workers)
    dust_map = None if dust is None else dust.value
    return RunSpec(
        input, output, gaia_source or (), model, job, dust_map, cluster, strict, release, bridge,
        posterior,
    )  # fmt: skip


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


@_run_options
def run(
    spec: RunSpec,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check everything, list the chunks, start nothing.")
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

            def show(done: RunResult) -> None:
                progress.close()
                if VOICE.quiet and not as_json:
                    for line in done.lines() if done.exit_code else [done.catalog_line()]:
                        say(line)
                else:
                    result(done, as_json)
                show_report(folder, plan.bundle.path, only_if_missing=not done.chunks_run)

            done = run_plan(plan, progress=progress, announce=progress.say, then=show)
    raise typer.Exit(done.exit_code)


@_run_options
def check(spec: RunSpec) -> None:
    """Test everything that can be refused before a run starts, and write nothing."""
    from catalogproc.cluster.plan import check as check_plan
    from catalogproc.cluster.plan import make_plan
    from catalogproc.rundir.sync import pull

    for line in check_plan(make_plan(spec.with_output(pull(spec.output)), note)):
        note(line)
    say("ready to run")


@_run_options
def plan(spec: RunSpec, as_json: AsJson = False) -> None:
    """List the chunks of a run: what is done, and what remains. Writes nothing."""
    from catalogproc.cluster.plan import make_plan
    from catalogproc.rundir.sync import pull

    result(make_plan(spec.with_output(pull(spec.output))), as_json)
