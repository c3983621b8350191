"""A plan, carried out on a Dask cluster, and the account of it."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from types import FrameType

from distributed import Client

from catalogproc.cluster.clock import steady
from catalogproc.cluster.dask_cluster import Crew, Where, crew, embedded, standing
from catalogproc.cluster.event_log import Log
from catalogproc.cluster.plan import LOCK_FILE, STAGING, Plan, refuse_disk, refuse_output
from catalogproc.cluster.prometheus import served
from catalogproc.cluster.result import Account
from catalogproc.cluster.scheduler import Dispatch, reports
from catalogproc.cluster.worker_plugin import ModelPlugin, Report, sees
from catalogproc.errors import CountError, Refusal, WorkerError
from catalogproc.io.atomic import clear_debris, write_error
from catalogproc.io.locks import lock, owner
from catalogproc.network.bundle import DECLARATION
from catalogproc.readers.gaia_source import Companion, open_companion
from catalogproc.rundir.manifest import FOLDERS
from catalogproc.rundir.provenance import write_provenance, write_summary
from catalogproc.rundir.receipts import claim, iterate_receipts

__all__ = ["Account", "Where", "run"]

SAMPLE = 100
"""So many of the run's files each worker of a cluster that stands must see."""

Progress = Callable[[int, int | None, str], None]
Announce = Callable[[str], None]


def run(
    plan: Plan,
    where: Where | None = None,
    progress: Progress | None = None,
    announce: Announce | None = None,
) -> Account:
    """Do what a plan leaves to do, chunk by chunk; a chunk that fails does not stop the rest.

    Parameters
    ----------
    plan
        From :func:`catalogproc.cluster.plan.make_plan`.
    where
        Workers of our own, fitted to the machine, where not given.
    progress
        Called with (stars done in this run, stars to do or None where a file does not tell,
        a note) about twice a second and after each chunk.
    announce
        Called with a line for the user: the workers, the dashboard's address, the worker
        that is left out.

    Raises
    ------
    Refusal
        What can be refused before anything starts, also that another run is at work in the
        same folder.
    WorkerError
        No worker has a working model; it tells each reason.
    KeyboardInterrupt
        The user or the system (SIGTERM) ended it. What is done is kept.
    """
    where = where or Where()
    tell = announce or (lambda line: None)
    refuse_output(plan.output, plan.identity)
    refuse_disk(plan)
    team = None
    if where.scheduler is None:
        team = crew(where, len(plan.chunks), len(plan.todo))
    with _stoppable(), _alone_in(plan.output):
        claim(plan.output, plan.identity)
        plan = plan.surveyed()
        if not plan.todo:
            return _account(plan, None, 0.0, {})
        companion = _companion(plan)
        run_id = plan.identity.run_id
        with Log(plan.output) as log, served(run_id) as numbers:
            log.tell("started", run=run_id, chunks=len(plan.chunks), to_do=len(plan.todo))
            with _connected(where, team, tell) as client:
                with _modelled(client, plan, where, team, companion) as (name, stand):
                    watchers = (log.see, numbers.see, _teller(plan, progress, tell))
                    dispatch = _dispatch(client, name, plan, where, stand, watchers)
                    start = time.perf_counter()
                    dispatch.run()
                    seconds = time.perf_counter() - start
            account = _account(plan, dispatch, seconds, stand)
            log.end(account)
        if account.exit_code == 0:
            shutil.rmtree(plan.output / STAGING, ignore_errors=True)
            clear_debris(plan.output / name for name in FOLDERS)
        return account


@contextmanager
def _connected(where: Where, team: Crew | None, tell: Announce) -> Iterator[Client]:
    """The client of the cluster that stands, or of our own for the time of the block."""
    if team is not None:
        tell(team.line())
        steady()
        with embedded(team, where.dashboard) as client:
            tell(f"dashboard: {client.dashboard_link}")
            yield client
    elif where.scheduler is not None:
        with standing(where.scheduler) as client:
            tell(f"dashboard: {client.dashboard_link}")
            yield client


def _companion(plan: Plan) -> Companion | None:
    if not plan.companions:
        return None
    staging = plan.output.absolute() / STAGING
    return open_companion([path.absolute() for path in plan.companions], staging)


@contextmanager
def _modelled(
    client: Client, plan: Plan, where: Where, team: Crew | None, companion: Companion | None
) -> Iterator[tuple[str, dict[str, Report]]]:
    """Every worker with its model, for the time of the block; how each stands."""
    if team is None:
        _same_folders(client, plan)
    name = f"catalogproc-{plan.identity.run_id}-{secrets.token_hex(4)}"
    plugin = ModelPlugin(
        name,
        plan.identity.run_id,
        plan.bundle.path.absolute(),
        plan.bundle.hash,
        plan.job,
        plan.output.absolute(),
        companion,
        # The environment of each of our workers says which device it has.
        device="auto" if where.cpu_workers else where.device,
        threads=team.threads if team else None,
        share_gpu=where.share_gpu,
        ours=team is not None,
        dust=(plan.dust_map.folder.absolute(), plan.dust_map.hash) if plan.dust_map else None,
    )
    try:
        client.register_plugin(plugin, name=name)
        stand = reports(client, name)
        errors = [report.error for report in stand.values() if report.error]
        if stand and len(errors) == len(stand):
            raise WorkerError(
                "no worker has a working model",
                found="\n    ".join(["", *dict.fromkeys(errors)]),
                where=", ".join(f"{report.worker} on {report.host}" for report in stand.values()),
            )
        yield name, stand
    finally:
        if team is None and client.status == "running":
            with suppress(OSError):  # the scheduler may have died, and the client not know yet
                client.unregister_worker_plugin(name)


def _same_folders(client: Client, plan: Plan) -> None:
    """Refuse workers that do not see what this process sees, under the same paths."""
    probe, token = plan.output.absolute() / f".probe-{secrets.token_hex(4)}", secrets.token_hex(16)
    try:
        probe.write_text(token, encoding="utf-8")
        named = [plan.bundle.path / DECLARATION, *plan.companions, *plan.inputs]
        files = [path.absolute() for path in named if path.exists()][:SAMPLE]
        blind = {}
        for address, found in client.run(sees, probe, token, files, on_error="return").items():
            if found != "":
                blind[address] = found
    finally:
        probe.unlink(missing_ok=True)
    if blind:
        address, reason = next(iter(blind.items()))
        raise Refusal(
            f"{len(blind)} workers of the cluster do not see the same folders",
            wanted="input, model and output under the same paths on every worker",
            found=f"{address}: {reason}",
            where="--scheduler",
            todo="put them on storage that the workers share; install catalogproc on each",
        )


def _dispatch(
    client: Client,
    name: str,
    plan: Plan,
    where: Where,
    stand: dict[str, Report],
    watchers: Sequence[Callable[[Dispatch], None]],
) -> Dispatch:
    def report(now: Dispatch) -> None:
        for watch in watchers:
            watch(now)

    # Workers of our own share our working folder; a cluster that stands need not.
    here = Path() if where.scheduler is None else Path.cwd()
    chunks = [replace(chunk, file=here / chunk.file) for chunk in plan.todo]
    dispatch = Dispatch(client, name, chunks, plan.output.absolute(), report)
    dispatch.leave_out(stand)
    return dispatch


def _teller(plan: Plan, progress: Progress | None, tell: Announce) -> Callable[[Dispatch], None]:
    """What tells the user how it goes: notes once, progress each time."""
    told: set[str] = set()

    def report(now: Dispatch) -> None:
        for note in [note for note in now.notes if note not in told]:
            told.add(note)
            tell(note)
        if progress is not None:
            progress(now.rows, plan.rows_todo, _note(now, len(plan.todo)))

    return report


def _note(now: Dispatch, chunks: int) -> str:
    failed = f", {len(now.failures)} failed" if now.failures else ""
    return f"chunk {len(now.receipts)} of {chunks}{failed}, {len(now.workers)} workers"


def _account(
    plan: Plan, dispatch: Dispatch | None, seconds: float, stand: dict[str, Report]
) -> Account:
    """Count what stands now, and write summary.json and provenance.json from it."""
    after = plan.surveyed() if dispatch is not None else plan
    # A worker may die after its receipt is written and before it says so.
    failed = [failure for failure in (dispatch.failures if dispatch else ())
              if failure.chunk not in after.done]  # fmt: skip
    rows, reasons = Counter[str](), Counter[str]()
    for receipt in iterate_receipts(plan.output):
        if receipt.chunk_id in after.done:
            rows.update(
                read=receipt.rows_read, written=receipt.rows_written, rejected=receipt.rows_rejected
            )
            reasons.update(receipt.rejected_by_reason)
    account = Account(
        output=plan.output,
        chunks=len(plan.chunks),
        chunks_done=len(after.done),
        chunks_run=len(after.done) - len(plan.done),
        rows_read=rows["read"],
        rows_written=rows["written"],
        rows_rejected=rows["rejected"],
        rejected_by_reason=dict(reasons),
        rows_run=dispatch.rows if dispatch else 0,
        seconds=seconds,
        failures=tuple(failed),
        stopped=dispatch.stopped if dispatch else "",
        workers=tuple(report.device for report in stand.values() if not report.error),
        notes=tuple(dispatch.notes) if dispatch else (),
    )
    lost = {receipt.chunk_id for receipt in (dispatch.receipts if dispatch else ())} - after.done
    if lost:
        raise CountError(
            "chunks that workers reported done have no valid receipt",
            wanted="none",
            found=f"{len(lost)}: {', '.join(sorted(lost)[:5])}",
            where=plan.output,
            todo="run the same command again: what is missing is done",
        )
    write_summary(plan.output, [vars(failure) for failure in failed])
    write_provenance(plan.output)
    return account


@contextmanager
def _alone_in(output: Path) -> Iterator[None]:
    """The only run of this folder: another one is refused for as long as this one lives."""
    path = output / LOCK_FILE
    try:
        output.mkdir(parents=True, exist_ok=True)
        handle = lock(path)
    except BlockingIOError:
        raise Refusal(
            "another run is at work in the output folder",
            wanted="one run a folder at a time",
            found=owner(path),
            where=output,
            todo="wait for it to end, or stop it",
        ) from None
    except OSError as error:
        told = write_error(error, path)
        raise Refusal(told.message, found=error.strerror, where=path) from None
    try:
        yield
    finally:
        os.close(handle)


@contextmanager
def _stoppable() -> Iterator[None]:
    """SIGTERM, with which batch systems end a job, ends the run as Ctrl-C does."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may decide about signals
        return
    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
