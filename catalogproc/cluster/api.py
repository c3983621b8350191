"""``catalogproc.run``: what ``catalogproc run`` does, called from Python."""

from __future__ import annotations

import logging
from pathlib import Path

from catalogproc.cluster.plan import make_plan
from catalogproc.cluster.result import RunResult
from catalogproc.cluster.run import Announce, Progress
from catalogproc.cluster.run import run as run_plan
from catalogproc.cluster.spec import ClusterConfig, Paths, RunSpec
from catalogproc.io.progress_bar import shown
from catalogproc.job import Job
from catalogproc.report.html_report import REPORT_FILE, write_report
from catalogproc.rundir.sync import synced

_LOG = logging.getLogger("catalogproc.run")


def run(
    input: Paths,
    output: str | Path,
    *,
    gaia_source: Paths = (),
    model: str | Path = "default",
    job: str | Path | Job = "gaia-dr3-giants",
    scheduler: str | None = None,
    workers: int | None = None,
    device: str = "auto",
    strict: bool = False,
    release: str | Path | None = None,
    bridge: str | Path | None = None,
    posterior: int | None = None,
    progress: Progress | bool = True,
    announce: Announce | None = None,
) -> RunResult:
    """Turn XP spectra into a catalog. Calling it again resumes; finished chunks are skipped.

    Without ``scheduler``, worker processes are started, which import the calling script: a
    script must call this under ``if __name__ == "__main__":``. A notebook needs nothing.

    Parameters
    ----------
    input, gaia_source
        Files, globs, folders or addresses (s3://…): of spectra, and of tables that are joined
        to them by source_id.
    output
        Folder or address of the catalog; see :func:`catalogproc.open_catalog`.
    model
        Name of a shipped model, or a bundle's folder.
    job
        What is computed: the name of a shipped job, a TOML file, or a Job.
    scheduler
        Address of an existing Dask scheduler, as tcp://…
    workers, device
        Of the local cluster: number of workers; auto, cpu or cuda.
    strict
        Refuse gaia_source tables that probably do not fit the spectra, in place of a warning.
    release
        The Gaia release of the spectra, "dr3", "dr4" or a TOML file; by default the model's.
    bridge
        File of a map of another release, of ``catalogproc bridge fit``.
    posterior
        Number of values of each star's posterior that are written beside the catalog.
    progress
        True shows a bar in a terminal and a line that changes in a notebook; elsewhere a line a
        minute is logged (logger ``catalogproc.progress``). False shows nothing.
        A function is called with (stars done, stars in all or None, a note).
    announce
        Called with a line for the user; it is logged too (logger ``catalogproc.run``).

    Returns
    -------
    RunResult
        What was done and what failed; ``exit_code`` is 0 if every chunk is done.

    Raises
    ------
    Refusal
        Something is wrong that can be found before anything starts.
    WorkerError
        No worker has a working model.

    Examples
    --------
    >>> import catalogproc
    >>> result = catalogproc.run("examples/gaia_xp", "output/demo", job="demo")  # doctest: +SKIP
    >>> result.rows_written                                                     # doctest: +SKIP
    1500
    """
    cluster = ClusterConfig(scheduler, workers, device)
    spec = RunSpec(
        input,
        output,
        gaia_source,
        model,
        job,
        cluster=cluster,
        strict=strict,
        release=release,
        bridge=bridge,
        posterior=posterior,
    )

    def say(line: str) -> None:
        _LOG.info("%s", line)
        if announce is not None:
            announce(line)

    with synced(spec.output, say) as folder, shown(progress, "stars") as report:
        plan = make_plan(spec.with_output(folder), say)

        def then(result: RunResult) -> None:
            if result.chunks_run or not (folder / REPORT_FILE).is_file():
                write_report(folder, model=plan.bundle.path)

        return run_plan(plan, progress=report, announce=say, then=then)
