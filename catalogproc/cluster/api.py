"""The main job from Python: what ``catalogproc run`` does, in a call."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from catalogproc.cluster.dask_cluster import Where
from catalogproc.cluster.plan import make_plan
from catalogproc.cluster.result import Account
from catalogproc.cluster.run import Announce, Progress
from catalogproc.cluster.run import run as run_plan
from catalogproc.job import Job
from catalogproc.report.html_report import REPORT_FILE, write_report
from catalogproc.rundir.sync import kept


def run(
    input: str | Path | Sequence[str | Path],
    output: str | Path,
    *,
    gaia_source: str | Path | Sequence[str | Path] = (),
    model: str | Path = "default",
    job: str | Path | Job = "gaia-dr3-giants",
    scheduler: str | None = None,
    workers: int | None = None,
    device: str = "auto",
    progress: Progress | None = None,
    announce: Announce | None = None,
) -> Account:
    """Turn XP spectra into a catalog. The same call again goes on where it stopped.

    Without ``scheduler``, worker processes are started, which import the script that calls
    this: there it must stand under ``if __name__ == "__main__":``. A notebook needs nothing.

    Parameters
    ----------
    input, gaia_source
        Files, globs, folders or addresses (s3://…): of spectra, and of what is joined to them
        by source_id.
    output
        The folder or address that is to hold the catalog; see :func:`catalogproc.open_catalog`.
    model
        The name of one that ships, or a bundle's folder.
    job
        What is computed: the name of one that ships, a TOML file, or a Job.
    scheduler
        A Dask scheduler that stands, as tcp://…
    workers, device
        Of the embedded cluster: how many, and auto, cpu or cuda.
    progress
        Called with (stars done, stars to do or None, a note).
    announce
        Called with a line for the user.

    Returns
    -------
    Account
        What was done and what failed; ``exit_code`` is 0 where everything is done.

    Raises
    ------
    Refusal
        What can be refused before anything starts.
    WorkerError
        No worker has a working model.

    Examples
    --------
    >>> import catalogproc
    >>> account = catalogproc.run("examples/gaia_xp", "output/demo", job="demo")  # doctest: +SKIP
    >>> account.rows_written                                                      # doctest: +SKIP
    1500
    """
    where = Where(scheduler=scheduler, workers=workers, device=device)
    with kept(output, announce) as folder:
        plan = make_plan(
            _listed(input), folder, _listed(gaia_source), model, job, announce=announce
        )
        account = run_plan(plan, where, progress=progress, announce=announce)
        if account.chunks_run or not (folder / REPORT_FILE).is_file():
            write_report(folder, model=plan.bundle.path)
    return account


def _listed(given: str | Path | Sequence[str | Path]) -> list[str | Path]:
    return [given] if isinstance(given, str | Path) else list(given)
