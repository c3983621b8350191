"""Runs on real spectra in many small chunks, for tests of catalogproc.cluster."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil  # type: ignore[import-untyped]
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pyarrow import csv
from support.paths import EXAMPLES

from catalogproc.cluster.plan import Plan, make_plan
from catalogproc.cluster.result import RunResult
from catalogproc.cluster.run import run
from catalogproc.cluster.spec import ClusterConfig, RunSpec
from catalogproc.errors import CatalogprocError

ROWS = 25
CHUNKS = 60
# The last digits of the network's predictions depend on a worker's number of threads, hence on
# how many workers share the cores: runs that are compared bit for bit have the same number.
WORKERS = 2
LOCAL = ClusterConfig(workers=WORKERS, device="cpu", dashboard="127.0.0.1:0")

SECRET = "secret-3f9c"
"""A credential in the environment of the uninterrupted run."""
REJECTED = 15
"""Rows of the input, one in a hundred, that have no coefficients and are rejected."""

JOB = f"""\
kind = "run"
description = "many small chunks"
chunk_rows = {ROWS}
propagation = "none"
"""


def ruwe_of(stars: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return a made-up RUWE that differs between the stars."""
    return (1.0 + stars % 9973 / 1e4).astype(np.float32)


def _without_coefficients(spectra: pa.Table) -> pa.Table:
    """Return the spectra, every hundredth of them without its coefficients."""
    chosen = pa.array(np.arange(len(spectra)) % 100 == 50)
    for name in ("bp_coefficients", "rp_coefficients"):
        place, column = spectra.column_names.index(name), spectra.column(name)
        nothing = pa.scalar(None, column.type)
        spectra = spectra.set_column(place, name, pc.if_else(chosen, nothing, column))
    return spectra


@dataclass(frozen=True)
class Kit:
    """The files of a run: three of 500 real spectra in row groups of 25, a gaia_source table that
    must be sorted first, a job and a model."""

    inputs: Path
    gaia_source: Path
    job: Path
    bundle: Path

    @classmethod
    def written(cls, folder: Path, bundle: Path) -> Kit:
        """Write the files into a folder."""
        inputs, gaia_source, job = folder / "xp", folder / "gaia.csv", folder / "small.toml"
        inputs.mkdir(parents=True)
        for path in sorted(EXAMPLES.glob("*.parquet")):
            spectra = _without_coefficients(pq.read_table(path))
            pq.write_table(spectra, inputs / path.name, row_group_size=ROWS)
        stars = pq.read_table(inputs, columns=["source_id"])["source_id"].to_numpy()
        csv.write_csv(pa.table({"source_id": stars, "ruwe": ruwe_of(stars)}), gaia_source)
        job.write_text(JOB)
        return cls(inputs, gaia_source, job, bundle)

    def spec(self, output: Path, cluster: ClusterConfig = LOCAL, **changed: Any) -> RunSpec:
        """Return a run of these files; ``changed`` replaces fields of the RunSpec."""
        fields: dict[str, Any] = {
            "input": self.inputs,
            "gaia_source": self.gaia_source,
            "model": self.bundle,
            "job": self.job,
        }
        return RunSpec(output=output, cluster=cluster, **(fields | changed))

    def plan(self, output: Path, cluster: ClusterConfig = LOCAL, **changed: Any) -> Plan:
        """Plan :meth:`spec`."""
        return make_plan(self.spec(output, cluster, **changed))

    def run(self, output: Path, cluster: ClusterConfig = LOCAL, **more: Any) -> RunResult:
        """Plan and run; ``more`` are arguments of :func:`catalogproc.cluster.run.run`."""
        return run(self.plan(output, cluster), **more)


@dataclass
class Uninterrupted:
    """A finished run, with what it announced, reported and served meanwhile."""

    output: Path
    result: RunResult
    lines: list[str] = field(default_factory=list)
    progress: list[tuple[int, int | None, str]] = field(default_factory=list)
    pages: dict[str, str] = field(default_factory=dict)
    refusals: list[str] = field(default_factory=list)
    counted: list[tuple[RunResult, set[str]]] = field(default_factory=list)


def tables(output: Path) -> dict[str, pa.Table]:
    """Return the catalog and the rejected rows, in the order of source_id, or of file and row.

    The files of rejected rows are reduced to their names.
    """
    keys = {"catalog": ["source_id"], "rejected": ["file", "row"]}
    found = {
        name: pa.concat_tables(
            pq.read_table(path).replace_schema_metadata()
            for path in sorted((output / name).glob("*.parquet"))
        )
        for name in keys
        if any((output / name).glob("*.parquet"))
    }
    if "rejected" in found:
        names = pc.replace_substring_regex(found["rejected"]["file"], "^.*/", "")
        place = found["rejected"].column_names.index("file")
        found["rejected"] = found["rejected"].set_column(place, "file", names)
    return {
        name: table.sort_by([(key, "ascending") for key in keys[name]])
        for name, table in found.items()
    }


def assert_same(
    output: Path, reference: Path, missing: Collection[int] = (), differing: Collection[str] = ()
) -> None:
    """Assert that two runs have the same catalog and rejected rows, bit for bit.

    ``missing`` are stars of the reference that the output must not have; ``differing`` are
    columns that depend on the names of the input files. NaN equals NaN.
    """
    found, expected = tables(output), tables(reference)
    assert found.keys() == expected.keys()
    left_out = pa.array(list(missing), pa.int64())
    for name, table in found.items():
        stars = expected[name]["source_id"]
        wanted = expected[name].filter(pc.invert(pc.is_in(stars, left_out)))
        assert table.schema.equals(wanted.schema)
        if differing:
            table, wanted = (side.sort_by("source_id") for side in (table, wanted))
        for column in (name for name in table.column_names if name not in differing):
            one, other = table[column].combine_chunks(), wanted[column].combine_chunks()
            if pa.types.is_floating(one.type):
                one, other = (pa.array(_bits(side)) for side in (one, other))
            assert one.equals(other), f"{name}.{column}"


def _bits(values: pa.Array) -> NDArray[np.integer]:
    return values.to_numpy().view(f"i{values.type.bit_width // 8}")  # type: ignore[no-any-return]


def stamps(output: Path) -> dict[str, tuple[int, int]]:
    """Return time and inode of each part and receipt: both change if it is written again."""
    names = ("catalog", "rejected", "receipts")
    files = [path for name in names for path in sorted((output / name).glob("[!.]*"))]
    return {path.name: (path.stat().st_mtime_ns, path.stat().st_ino) for path in files}


def workers_of(pid: int) -> list[psutil.Process]:
    """Return the Dask worker processes that a process started and that have not ended."""
    found = []
    for child in psutil.Process(pid).children(recursive=True):
        with suppress(psutil.NoSuchProcess):  # a zombie is one of these
            if "spawn_main" in " ".join(child.cmdline()):
                found.append(child)
    return found


def at_first_chunk(action: Callable[[], None]) -> Callable[[int, int | None, str], None]:
    """Return a progress callback that calls ``action`` once, when the first chunk is done."""
    done: list[int] = []

    def progress(rows: int, total: int | None, note: str) -> None:
        if not note.startswith("chunk 0 ") and not done:
            done.append(rows)
            action()

    return progress


def main(words: Iterable[str]) -> None:
    """Do a run in a process of its own, which ends in the way that the last word names."""
    # A process that was started in the background ignores Ctrl-C, and so do its children.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    output, inputs, gaia_source, job, bundle, end = words
    kit = Kit(Path(inputs), Path(gaia_source), Path(job), Path(bundle))
    plan = kit.plan(Path(output))

    def die() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def act() -> None:
        word, _, value = end.rpartition(" ")
        if word == "clock":
            Path(os.environ["CATALOGPROC_CLOCK"]).write_text(value)
        if end == "killed at first chunk":
            die()
        if end not in signal.Signals.__members__:
            return
        print(json.dumps([worker.pid for worker in workers_of(os.getpid())]), flush=True)
        if end == "SIGINT":  # a terminal sends it to the workers too
            os.killpg(os.getpgid(0), signal.SIGINT)
        else:
            os.kill(os.getpid(), signal.Signals[end])

    def replace(before: object, after: object) -> None:
        if end == f"killed at {Path(str(after)).name}":
            die()
        real_replace(before, after)  # type: ignore[arg-type]

    def link(before: object, after: object) -> None:
        if end == f"killed at {Path(str(after)).name}":
            die()
        real_link(before, after)  # type: ignore[arg-type]

    # A file gets its name by a link if nothing may be overwritten, else by a rename.
    real_replace, os.replace = os.replace, replace  # type: ignore[assignment]
    real_link, os.link = os.link, link  # type: ignore[assignment]
    try:
        run(plan, progress=at_first_chunk(act))
    except KeyboardInterrupt:
        sys.exit(130)
    except CatalogprocError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main(sys.argv[1:])
