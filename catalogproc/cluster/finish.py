"""The end of a run: count what is done, and write the files that say so."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from catalogproc.cluster.done_chunks import remove_leftovers
from catalogproc.cluster.result import RunResult
from catalogproc.errors import CountError
from catalogproc.readers.auxiliary_account import added, zero_point_summary
from catalogproc.rundir.provenance import write_provenance
from catalogproc.rundir.receipts import iterate_receipts
from catalogproc.rundir.summary import busy_seconds, write_summary

if TYPE_CHECKING:
    from catalogproc.cluster.plan import Plan
    from catalogproc.cluster.scheduler import ChunkScheduler
    from catalogproc.cluster.worker_plugin import WorkerStatus


def finish(
    plan: Plan, scheduler: ChunkScheduler | None, statuses: Mapping[str, WorkerStatus]
) -> RunResult:
    """Count what is done now, and write summary.json and provenance.json.

    Parameters
    ----------
    plan
        The run as it was when this start began.
    scheduler
        What it did; None where there was nothing to do.
    statuses
        The workers.

    Returns
    -------
    RunResult
        What is done, and what this start did.

    Raises
    ------
    CountError
        A chunk that was reported as done has no valid receipt.
    """
    after = plan if scheduler is None else plan.with_receipts(scheduler.divided)
    if not after.todo:
        remove_leftovers(plan.output, after.chunks)
    new = after.done - plan.done
    seconds = busy_seconds(r for r in iterate_receipts(plan.output) if r.chunk_id in new)
    result = _count(RunResult(
        output=plan.output,
        chunks=len(after.chunks),
        chunks_done=len(after.done),
        chunks_run=len(after.done) - len(plan.done),
        rows_read=0,
        rows_written=0,
        rows_rejected=0,
        seconds=seconds,
        workers=tuple(status.device for status in statuses.values() if not status.error),
    ), after)  # fmt: skip
    if scheduler is not None:
        # A worker may die after it has written the receipt and before it has sent it.
        remaining = {chunk.id for chunk in after.todo}
        failures = (fault for fault in scheduler.failures if fault.chunk in remaining)
        result = replace(
            result, rows_run=scheduler.rows, failures=tuple(failures), stopped=scheduler.stopped,
            notes=tuple(scheduler.notes),
        )  # fmt: skip
        _check_receipts_remain(after, scheduler)
    write_summary(plan.output, [vars(failure) for failure in result.failures])
    write_provenance(plan.output)
    return result


def _count(result: RunResult, plan: Plan) -> RunResult:
    """Return the result with the rows of the receipts of all chunks that are done."""
    rows, reasons = Counter[str](), Counter[str]()
    read, written = Counter[str](), Counter[str]()
    auxiliary: dict[str, dict[str, int]] = {}
    zero_points = Counter[str]()
    for receipt in iterate_receipts(plan.output):
        if receipt.chunk_id in plan.done:
            rows["read"] += receipt.rows_read
            rows["written"] += receipt.rows_written
            rows["rejected"] += receipt.rows_rejected
            rows["matched"] += receipt.rows_matched
            reasons.update(receipt.rejected_by_reason)
            auxiliary = added((auxiliary, receipt.auxiliary))
            zero_points.update(receipt.zero_point_differences)
            for one in receipt.each_file():
                read[one.file] += one.rows_read
                written[one.file] += one.rows_written
    return replace(
        result, rows_read=rows["read"], rows_written=rows["written"],
        rows_rejected=rows["rejected"], rejected_by_reason=dict(reasons),
        rows_matched=rows["matched"] if plan.gaia_source else None,
        auxiliary=auxiliary, zero_point_difference=zero_point_summary(zero_points),
        files_rejected=tuple(file for file in read if read[file] and not written[file]),
    )  # fmt: skip


def _check_receipts_remain(plan: Plan, scheduler: ChunkScheduler) -> None:
    """Raise CountError if a chunk that a worker reported as done has no valid receipt."""
    done = {
        (piece.fingerprint, piece.first_row)
        for chunk in plan.chunks
        if chunk.id in plan.done
        for piece in chunk.pieces
    }
    lost = {
        receipt.chunk_id
        for receipt in scheduler.receipts
        if any((one.fingerprint, one.first_row) not in done for one in receipt.each_file())
    }
    if lost:
        raise CountError(
            "chunks that workers reported as done have no valid receipt",
            wanted="none",
            found=f"{len(lost)}: {', '.join(sorted(lost)[:5])}",
            where=plan.output,
            advice="run the same command again: these chunks are then processed again",
        )
