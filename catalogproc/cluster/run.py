"""Process a plan on a Dask cluster, and return what was done."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from distributed import Client

from catalogproc.cluster.chunk_on_worker import process_on_worker
from catalogproc.cluster.dashboard import dashboard_link
from catalogproc.cluster.dask_cluster import (
    WorkerSpec,
    connect,
    fit_workers,
    local_cluster,
    refuse_temporary_directory,
)
from catalogproc.cluster.disk_space import refuse_disk
from catalogproc.cluster.event_log import EventLog
from catalogproc.cluster.finish import finish
from catalogproc.cluster.plan import STAGING, Plan, refuse_output
from catalogproc.cluster.prometheus import served_metrics
from catalogproc.cluster.result import RunResult
from catalogproc.cluster.run_lock import exclusive, sigterm_as_interrupt
from catalogproc.cluster.scheduler import ChunkScheduler
from catalogproc.cluster.worker_plugin import (
    ModelPlugin,
    WorkerSetup,
    WorkerStatus,
    shared_folder_error,
    worker_statuses,
)
from catalogproc.errors import Refusal, WorkerError, plural
from catalogproc.io.atomic import write_atomic
from catalogproc.io.temporary_files import remove_stale
from catalogproc.network.bundle import DECLARATION
from catalogproc.readers.gaia_source import AuxiliaryTable, open_auxiliary
from catalogproc.resources import shipped
from catalogproc.rundir.manifest import FOLDERS, open_run

if TYPE_CHECKING:
    from catalogproc.readers.chunks import Chunk

SAMPLE = 100
"""Number of the run's files that each worker of an existing cluster must see."""

Progress = Callable[[int, int | None, str], None]
Announce = Callable[[str], None]
Then = Callable[[RunResult], None]
Statuses = Mapping[str, WorkerStatus]


@dataclass(frozen=True)
class _Start:
    """One start of a run: its plan, its local workers (None on an existing cluster), and where
    it reports to."""

    plan: Plan
    workers: WorkerSpec | None
    progress: Progress | None
    announce: Announce
    then: Then


def run(
    plan: Plan,
    *,
    progress: Progress | None = None,
    announce: Announce | None = None,
    then: Then | None = None,
) -> RunResult:
    """Process the chunks of a plan that are not done. A chunk that fails does not stop the others.

    Parameters
    ----------
    plan
        From :func:`catalogproc.cluster.plan.make_plan`.
    progress
        Called with (stars done by this start, stars to do or None if a file does not state its
        number, a note) about twice per second and after each chunk.
    announce
        Called with a line for the user: the workers, the dashboard's address, a worker that
        is not used.
    then
        Called with the result once it is counted: the catalog is whole, and the workers end
        meanwhile. What comes next belongs here, such as the report.

    Returns
    -------
    RunResult
        What was done and what failed.

    Raises
    ------
    Refusal
        Something is wrong that can be found before anything starts; also that another run is
        using the same folder.
    WorkerError
        No worker has a working model; the error lists the reasons.
    KeyboardInterrupt
        The user or the system (SIGTERM) ended it. What is done is kept.
    """
    refuse_output(plan.output, plan.identity)
    refuse_disk(plan.todo, plan.output)
    workers = None
    if plan.spec.cluster.scheduler is None:
        if plan.todo:
            refuse_temporary_directory()
        workers = fit_workers(plan.spec.cluster, len(plan.chunks), len(plan.todo))
    say, then = announce or (lambda line: None), then or (lambda result: None)
    if plan.todo:
        for line in plan.auxiliary_lines():
            say(line)
    with sigterm_as_interrupt(), exclusive(plan.output):
        open_run(plan.output, plan.identity)
        _keep_matrices(plan)
        plan = plan.with_receipts()
        if not plan.todo:
            result = finish(plan, None, {})
            then(result)
            return result
        start = _Start(plan, workers, progress, say, then)
        result = _process(start)
        if result.exit_code == 0:
            shutil.rmtree(plan.output / STAGING, ignore_errors=True)
            remove_stale(plan.output / name for name in FOLDERS)
        return result


def _keep_matrices(plan: Plan) -> None:
    """Copy the matrices of a user's release to the output: `explain` needs them."""
    for path in plan.bundle.release.matrices:
        target = plan.output / path.name
        if path.parent != shipped("grids") and not target.exists():
            write_atomic(target, path.read_bytes())


def _process(start: _Start) -> RunResult:
    plan = start.plan
    run_id = plan.identity.run_id
    auxiliary = _open_gaia_source(plan)
    with EventLog(plan.output) as log, served_metrics(run_id) as metrics:
        log.write("started", run=run_id, chunks=len(plan.chunks), to_do=len(plan.todo))
        with ExitStack() as cluster:
            client = cluster.enter_context(_client(start))
            name = cluster.enter_context(_loaded_model(client, start, auxiliary))
            statuses = _statuses(client, name)
            user = _user_report(start)

            def report(scheduler: ChunkScheduler) -> None:
                log.update(scheduler)
                metrics.update(scheduler)
                user(scheduler)

            process = partial(process_on_worker, name, plan.output.absolute())
            scheduler = ChunkScheduler(client, name, _chunks(plan), process, report)
            scheduler.exclude(statuses)
            scheduler.run()
            with ThreadPoolExecutor(1) as thread:
                ended = thread.submit(cluster.pop_all().close)
                if scheduler.in_flight:
                    ended.result()  # a chunk that was given up may still be written
                result = finish(plan, scheduler, statuses)
                log.finish(result)
                start.then(result)
                ended.result()
    return result


@contextmanager
def _client(start: _Start) -> Iterator[Client]:
    """Yield a client of the existing cluster, or of a local one that ends with the block."""
    cluster = start.plan.spec.cluster
    if start.workers is not None:
        start.announce(start.workers.line())
        with local_cluster(start.workers, cluster.dashboard) as client:
            start.announce(f"dashboard: {dashboard_link(client)}")
            yield client
    elif cluster.scheduler is not None:
        with connect(cluster.scheduler) as client:
            start.announce(f"dashboard: {dashboard_link(client)}")
            yield client


def _open_gaia_source(plan: Plan) -> AuxiliaryTable | None:
    if not plan.gaia_source:
        return None
    staging = plan.output.absolute() / STAGING
    files = [path.absolute() for path in plan.gaia_source]
    return open_auxiliary(files, staging, plan.bundle.release)


@contextmanager
def _loaded_model(client: Client, start: _Start, auxiliary: AuxiliaryTable | None) -> Iterator[str]:
    """Load the model on every worker, for the time of the block; yield the plugin's name."""
    plan, workers = start.plan, start.workers
    if workers is None:
        _check_shared_folders(client, plan)
    name = f"catalogproc-{plan.identity.run_id}-{secrets.token_hex(4)}"
    cluster, dust_map = plan.spec.cluster, plan.dust_map
    setup = WorkerSetup(
        run_id=plan.identity.run_id,
        bundle=plan.bundle.path.absolute(),
        bundle_hash=plan.bundle.hash,
        job=plan.job,
        output=plan.output.absolute(),
        auxiliary=auxiliary,
        # With workers on GPUs and on the CPU, each one's environment says which it has.
        device="auto" if cluster.cpu_workers else cluster.device,
        threads=workers.threads if workers else None,
        share_gpu=cluster.share_gpu,
        local=workers is not None,
        dust=(dust_map.folder.absolute(), dust_map.hash) if dust_map else None,
        release=plan.bundle.release,
    )
    try:
        client.register_plugin(ModelPlugin(name, setup), name=name)
        yield name
    finally:
        if workers is None and client.status == "running":
            with suppress(OSError):  # the scheduler may have died without the client knowing
                client.unregister_worker_plugin(name)


def _statuses(client: Client, name: str) -> Statuses:
    """Return the status of each worker. Raise WorkerError if none has a working model."""
    statuses = worker_statuses(client, name)
    errors = [status.error for status in statuses.values() if status.error]
    if statuses and len(errors) == len(statuses):
        raise WorkerError(
            "no worker has a working model",
            found="\n    ".join(["", *dict.fromkeys(errors)]),
            where=", ".join(f"{status.worker} on {status.host}" for status in statuses.values()),
        )
    return statuses


def _check_shared_folders(client: Client, plan: Plan) -> None:
    """Refuse workers that do not see the files of this process under the same paths."""
    probe, token = plan.output.absolute() / f".probe-{secrets.token_hex(4)}", secrets.token_hex(16)
    try:
        probe.write_text(token, encoding="utf-8")
        needed = [plan.bundle.path / DECLARATION, *plan.gaia_source, *plan.inputs]
        present = [path.absolute() for path in needed if path.exists()]
        local = [path for path in present if isinstance(path, Path)]
        remote = [path for path in present if not isinstance(path, Path)]
        files = [*local[:SAMPLE], *remote[:1]]
        answers = client.run(shared_folder_error, probe, token, files, on_error="return")
    finally:
        probe.unlink(missing_ok=True)
    errors = {address: answer for address, answer in answers.items() if answer != ""}
    if errors:
        address, reason = next(iter(errors.items()))
        raise Refusal(
            f"{plural(len(errors), 'worker')} of the cluster without the same folders",
            wanted="input, model and output under the same paths on every worker",
            found=f"{address}: {reason}",
            where="--scheduler",
            advice="put them on storage that the workers share; install catalogproc on each",
        )


def _chunks(plan: Plan) -> Iterator[Chunk]:
    """Yield the chunks to process; only local workers share this process's working folder."""
    here = Path() if plan.spec.cluster.scheduler is None else Path.cwd()
    for chunk in plan.todo:
        yield chunk.below(here)


def _user_report(start: _Start) -> Callable[[ChunkScheduler], None]:
    """Return what reports to the user: each note once, and the progress."""
    announced = set[str]()

    def report(scheduler: ChunkScheduler) -> None:
        for note in [note for note in scheduler.notes if note not in announced]:
            announced.add(note)
            start.announce(note)
        if start.progress is not None:
            failed = f", {len(scheduler.failures)} failed" if scheduler.failures else ""
            done = f"chunk {len(scheduler.receipts)} of {scheduler.total}{failed}"
            note = f"{done}, {plural(len(scheduler.workers), 'worker')}"
            start.progress(scheduler.rows_now, start.plan.rows_todo, note)

    return report
