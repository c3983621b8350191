"""Soak test: two thousand chunks of simulated stars. Does memory grow, what does a chunk cost?

    make soak

It runs them on worker processes, measures memory and open files of the driver (with the scheduler
in it) and of each worker about every second, and fails if they grow or if a chunk costs more than
OVERHEAD in addition to the work on it.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

import psutil  # type: ignore[import-untyped]
import pyarrow as pa
import pyarrow.parquet as pq
from support.bundles import tiny_bundle
from support.runs import WORKERS, workers_of

from catalogproc.cluster.plan import make_plan
from catalogproc.cluster.run import run
from catalogproc.cluster.spec import ClusterConfig, RunSpec
from catalogproc.rundir.receipts import iterate_receipts
from catalogproc.rundir.verify import verify
from catalogproc.simulation.simulator import Simulator, write_stars

FILES, ROWS = 4, 10
OVERHEAD = 0.030
"""Seconds that a chunk may cost a worker in addition to the work on it."""
GROWTH = 0.05
"""Memory of the last quarter may be larger than of the second by this fraction."""
MIB = 2**20

Sample = tuple[float, int, int]
"""Seconds since the first, bytes resident, open files."""

JOB = f"""\
kind = "run"
description = "a soak test"
chunk_rows = {ROWS}
labels = ["teff", "logg", "m_h", "mass", "log_age"]
inputs = ["bprp"]
propagation = "none"
"""


def simulated_spectra(folder: Path, chunks: int) -> Path:
    """Write simulated stars in files of many small row groups."""
    inputs = folder / "xp"
    inputs.mkdir()
    for number in range(FILES):
        drawn = Simulator().draw(chunks // FILES * ROWS, seed=number)
        written = write_stars(drawn, folder / f"stars-{number}")
        (spectra,) = (path for path in written if "xp" in path.name)
        table = pq.read_table(spectra)
        # Each simulation numbers its stars from 1.
        ids = pa.array(range(number * 10**9 + 1, number * 10**9 + 1 + len(table)), pa.int64())
        table = table.set_column(table.column_names.index("source_id"), "source_id", ids)
        pq.write_table(table, inputs / f"xp_{number}.parquet", row_group_size=ROWS)
    (folder / "soak.toml").write_text(JOB)
    return inputs


class Watch:
    """Measure the driver and its workers, at most once per second; a progress callback."""

    def __init__(self) -> None:
        self.samples: dict[str, list[Sample]] = defaultdict(list)
        self._start = self._last = time.monotonic()

    def __call__(self, rows: int, total: int | None, note: str) -> None:
        now = time.monotonic()
        if not rows or now - self._last < 1.0:
            return
        self._last = now
        processes = {"driver and scheduler": psutil.Process()}
        processes |= {f"worker {n}": p for n, p in enumerate(workers_of(os.getpid()))}
        for name, process in processes.items():
            state = (process.memory_info().rss, process.num_fds())
            self.samples[name].append((now - self._start, *state))


def quarters(samples: Sequence[Sample], place: int) -> tuple[float, float]:
    """Return the means over the second and the last quarter."""
    step = max(len(samples) // 4, 1)
    before, after = samples[step : 2 * step], samples[-step:]
    return fmean(sample[place] for sample in before), fmean(sample[place] for sample in after)


def soak(folder: Path, chunks: int) -> list[str]:
    """Return what failed; print the numbers."""
    inputs = simulated_spectra(folder, chunks)
    bundle = tiny_bundle(folder / "bundle")
    cluster = ClusterConfig(workers=WORKERS, device="cpu", dashboard="127.0.0.1:0")
    spec = RunSpec(inputs, folder / "out", (), bundle.path, folder / "soak.toml", cluster=cluster)
    plan = make_plan(spec)
    assert len(plan.chunks) == chunks, len(plan.chunks)
    watch, faults = Watch(), []
    result = run(plan, progress=watch)
    work = fmean(receipt.seconds for receipt in iterate_receipts(folder / "out"))
    overhead = WORKERS * result.seconds / chunks - work
    print(
        f"{result.chunks_run:,} chunks of {ROWS} stars in {result.seconds:.0f} s on {WORKERS} "
        f"workers; {1000 * work:.1f} ms of work per chunk, and {1000 * overhead:.1f} ms in addition"
    )
    if result.exit_code or not verify(folder / "out"):
        faults.append("the run is not complete")
    if overhead > OVERHEAD:
        faults.append(f"a chunk costs {overhead:.4f} s in addition to the work on it")
    for name, samples in sorted(watch.samples.items()):
        before, after = quarters(samples, 1)
        files, files_after = quarters(samples, 2)
        print(
            f"{name}: {before / MIB:.0f} MiB in the second quarter, {after / MIB:.0f} in the last; "
            f"{files:.0f} open files, {files_after:.0f} in the last ({len(samples)} samples)"
        )
        if after > before * (1 + GROWTH):
            faults.append(f"the memory of the {name} grows")
        if files_after > files + 2:
            faults.append(f"the open files of the {name} grow")
    return faults


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as place:
        found = soak(Path(place), int(sys.argv[1]) if len(sys.argv) > 1 else 2000)
    sys.exit("; ".join(found) or 0)
