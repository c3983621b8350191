"""catalogproc run on SLURM: workers by dask-jobqueue, one a job, each with a GPU or with cores.

    python deploy/slurm/run.py --workers 32 --partition gpu --gpu -- \\
        --input 'gaia_xp/*.parquet' --output DIR

What stands after ``--`` goes to ``catalogproc run``. ``--show`` prints the job script and
submits nothing. It needs ``pip install 'catalogproc[deploy]'``, and a folder that all nodes see.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Sequence
from typing import Any


def options(words: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """What is SLURM's, and what is the run's."""
    words = list(words)
    cut = words.index("--") if "--" in words else len(words)
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--workers", type=int, required=True, help="SLURM jobs, a worker each")
    parser.add_argument("--partition", help="as sbatch --partition")
    parser.add_argument("--account", help="as sbatch --account")
    parser.add_argument("--cores", type=int, default=8, help="cores of a worker")
    parser.add_argument("--memory", default="16GB", help="of a worker")
    parser.add_argument("--walltime", default="04:00:00")
    parser.add_argument("--gpu", action="store_true", help="a GPU for each worker")
    parser.add_argument("--interface", help="network interface that nodes reach each other by")
    parser.add_argument("--log", default="slurm-logs", help="folder of the workers' logs")
    parser.add_argument("--directive", action="append", default=[], help="any other #SBATCH line")
    parser.add_argument("--show", action="store_true", help="print the job script and stop")
    return parser.parse_args(words[:cut]), words[cut + 1 :]


def cluster(chosen: argparse.Namespace, **more: Any) -> Any:
    """dask-jobqueue's cluster: no job is submitted yet."""
    from dask_jobqueue import SLURMCluster

    directives = list(chosen.directive)
    if chosen.gpu:
        directives.append("--gres=gpu:1")
    threads = [f"export {name}={chosen.cores}" for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")]
    settings: dict[str, Any] = {
        "queue": chosen.partition,
        "account": chosen.account,
        "cores": 1,  # one chunk at a time: the network uses the device, or the threads
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
    """Start the workers, carry out the run, and end them; the run's exit code."""
    chosen, asked = options(words)
    with cluster(chosen, **more) as jobs:
        if chosen.show:
            print(jobs.job_script())
            return 0
        jobs.scale(jobs=chosen.workers)
        device = ["--device", "cuda"] if chosen.gpu and "--device" not in asked else []
        command = [sys.executable, "-m", "catalogproc", "run", *asked, *device]
        return subprocess.call([*command, "--scheduler", jobs.scheduler_address])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
