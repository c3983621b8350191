"""Run catalogproc on SLURM: dask-jobqueue starts the workers, one per job, with a GPU or cores.

    python deploy/slurm/run.py --workers 32 --partition gpu --gpu -- \\
        --input 'gaia_xp/*.parquet' --output DIR

Arguments after ``--`` are passed to ``catalogproc run``. ``--show`` prints the job script and
submits nothing. Needs ``pip install 'catalogproc[deploy]'``, and a folder that all nodes see.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Sequence
from typing import Any


def options(words: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """Return the options of this script, and the arguments of the run."""
    words = list(words)
    split = words.index("--") if "--" in words else len(words)
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--workers", type=int, required=True, help="number of SLURM jobs, one worker each"
    )
    parser.add_argument("--partition", help="as sbatch --partition")
    parser.add_argument("--account", help="as sbatch --account")
    parser.add_argument("--cores", type=int, default=8, help="cores per worker")
    parser.add_argument("--memory", default="16GB", help="memory per worker")
    parser.add_argument("--walltime", default="04:00:00")
    parser.add_argument("--gpu", action="store_true", help="one GPU per worker")
    parser.add_argument("--interface", help="network interface between the nodes")
    parser.add_argument("--log", default="slurm-logs", help="folder of the workers' logs")
    parser.add_argument("--directive", action="append", default=[], help="another #SBATCH line")
    parser.add_argument("--show", action="store_true", help="print the job script and stop")
    return parser.parse_args(words[:split]), words[split + 1 :]


def cluster(chosen: argparse.Namespace, **more: Any) -> Any:
    """Return the dask-jobqueue cluster; no job is submitted yet."""
    from dask_jobqueue import SLURMCluster

    directives = list(chosen.directive)
    if chosen.gpu:
        directives.append("--gres=gpu:1")
    threads = [f"export {name}={chosen.cores}" for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")]
    settings: dict[str, Any] = {
        "queue": chosen.partition,
        "account": chosen.account,
        "cores": 1,  # one chunk at a time: the network uses the GPU or all threads
        "job_cpu": chosen.cores,
        "processes": 1,
        "memory": chosen.memory,
        "walltime": chosen.walltime,
        "job_extra_directives": directives,
        "job_script_prologue": threads,
        "interface": chosen.interface,
        "log_directory": chosen.log,
        "worker_extra_args": ["--no-dashboard"],
        "python": sys.executable,
    }
    return SLURMCluster(**(settings | more))


def main(words: Sequence[str], **more: Any) -> int:
    """Start the workers, run, and end them; return the exit code of the run."""
    chosen, arguments = options(words)
    with cluster(chosen, **more) as jobs:
        if chosen.show:
            print(jobs.job_script())
            return 0
        jobs.scale(jobs=chosen.workers)
        device = ["--device", "cuda"] if chosen.gpu and "--device" not in arguments else []
        command = [sys.executable, "-m", "catalogproc", "run", *arguments, *device]
        return subprocess.call([*command, "--scheduler", jobs.scheduler_address])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
