"""Runs on real spectra in many small chunks, for tests of what drives them."""

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

from catalogproc.cluster.dask_cluster import Where
from catalogproc.cluster.plan import Plan, make_plan
from catalogproc.cluster.result import Account
from catalogproc.cluster.run import run
from catalogproc.errors import CatalogprocError

ROWS = 25
CHUNKS = 60
# The last digits of the network's answers depend on a worker's threads, hence on how many
# workers share the cores: runs that are compared bit for bit are made alike.
WORKERS = 2
ANYWHERE = Where(workers=WORKERS, device="cpu", dashboard="127.0.0.1:0")

SECRET = "tell-nobody-3f9c"
"""What stands in the environment of the undisturbed run."""
SPOILT = 15
"""Rows of the input, one in a hundred, that have no coefficients, and are rejected."""

JOB = f"""\
kind = "run"
description = "many small chunks"
chunk_rows = {ROWS}
propagation = "none"
"""


def ruwe_of(stars: NDArray[np.int64]) -> NDArray[np.float32]:
    """A made-up number that tells each star's row from every other's."""
    return (1.0 + stars % 9973 / 1e4).astype(np.float32)


def _spoilt(spectra: pa.Table) -> pa.Table:
    """The spectra with every hundredth without its coefficients."""
    lost = pa.array(np.arange(len(spectra)) % 100 == 50)
    for name in ("bp_coefficients", "rp_coefficients"):
        place, column = spectra.column_names.index(name), spectra.column(name)
        nothing = pa.scalar(None, column.type)
        spectra = spectra.set_column(place, name, pc.if_else(lost, nothing, column))
    return spectra


@dataclass(frozen=True)
class Kit:
    """What a run takes: three files of 500 real spectra in row groups of 25, a companion that
    must be put in order first, a job and a model."""

    inputs: Path
    companion: Path
    job: Path
    bundle: Path

    @classmethod
    def laid_out(cls, folder: Path, bundle: Path) -> Kit:
        inputs, companion, job = folder / "xp", folder / "gaia.csv", folder / "small.toml"
        inputs.mkdir(parents=True)
        for path in sorted(EXAMPLES.glob("*.parquet")):
            pq.write_table(_spoilt(pq.read_table(path)), inputs / path.name, row_group_size=ROWS)
        stars = pq.read_table(inputs, columns=["source_id"])["source_id"].to_numpy()
        csv.write_csv(pa.table({"source_id": stars, "ruwe": ruwe_of(stars)}), companion)
        job.write_text(JOB)
        return cls(inputs, companion, job, bundle)

    def plan(self, output: Path, **changed: Any) -> Plan:
        asked: dict[str, Any] = {
            "inputs": [self.inputs],
            "output": output,
            "companions": [self.companion],
            "model": self.bundle,
            "job": self.job,
        }
        return make_plan(**(asked | changed))

    def run(self, output: Path, where: Where = ANYWHERE, **more: Any) -> Account:
        return run(self.plan(output), where, **more)


@dataclass
class Undisturbed:
    """A finished run, and what it told and served on the way."""

    output: Path
    account: Account
    told: list[str] = field(default_factory=list)
    reports: list[tuple[int, int | None, str]] = field(default_factory=list)
    pages: dict[str, str] = field(default_factory=dict)
    refusals: list[str] = field(default_factory=list)


def tables(output: Path) -> dict[str, pa.Table]:
    """The catalog and the rejected rows, each in the order of source_id, file and row.

    Of the rejected rows' files the names are kept, not where they lie.
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
    output: Path, reference: Path, lost: Collection[int] = (), unlike: Collection[str] = ()
) -> None:
    """Row for row and bit for bit the same catalog and rejected rows; NaN equals NaN.

    ``lost`` are stars of the reference that are not to be there; ``unlike`` are columns that
    follow from the names of the input files.
    """
    ours, theirs = tables(output), tables(reference)
    assert ours.keys() == theirs.keys()
    missing = pa.array(list(lost), pa.int64())
    for name, table in ours.items():
        wanted = theirs[name].filter(pc.invert(pc.is_in(theirs[name]["source_id"], missing)))
        assert table.schema.equals(wanted.schema)
        if unlike:
            table, wanted = (side.sort_by("source_id") for side in (table, wanted))
        for column in (name for name in table.column_names if name not in unlike):
            one, other = table[column].combine_chunks(), wanted[column].combine_chunks()
            if pa.types.is_floating(one.type):
                one, other = (pa.array(_bits(side)) for side in (one, other))
            assert one.equals(other), f"{name}.{column}"


def _bits(values: pa.Array) -> NDArray[np.integer]:
    return values.to_numpy().view(f"i{values.type.bit_width // 8}")  # type: ignore[no-any-return]


def stamps(output: Path) -> dict[str, tuple[int, int]]:
    """When each part and receipt was written, and its inode: both change if it is again."""
    names = ("catalog", "rejected", "receipts")
    files = [path for name in names for path in sorted((output / name).glob("[!.]*"))]
    return {path.name: (path.stat().st_mtime_ns, path.stat().st_ino) for path in files}


def workers_of(pid: int) -> list[psutil.Process]:
    """The Dask worker processes that a process started, and that have not just ended."""
    found = []
    for child in psutil.Process(pid).children(recursive=True):
        with suppress(psutil.NoSuchProcess):  # a zombie is one of these
            if "spawn_main" in " ".join(child.cmdline()):
                found.append(child)
    return found


def at_first_star(deed: Callable[[], None]) -> Callable[[int, int | None, str], None]:
    """A progress callback that does something once: when the first chunk is done."""
    done: list[int] = []

    def progress(rows: int, total: int | None, note: str) -> None:
        if rows and not done:
            done.append(rows)
            deed()

    return progress


def main(words: Iterable[str]) -> None:
    """A run in a process of its own, which meets the end that it is told."""
    # A process that was started in the background ignores Ctrl-C, and its children with it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    output, inputs, companion, job, bundle, end = words
    plan = Kit(Path(inputs), Path(companion), Path(job), Path(bundle)).plan(Path(output))

    def die() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def deed() -> None:
        word, _, value = end.rpartition(" ")
        if word == "clock":
            Path(os.environ["CATALOGPROC_CLOCK"]).write_text(value)
        if end == "killed at first star":
            die()
        if end not in signal.Signals.__members__:
            return
        print(json.dumps([worker.pid for worker in workers_of(os.getpid())]), flush=True)
        if end == "SIGINT":  # as a terminal does it: to the workers too
            os.killpg(os.getpgid(0), signal.SIGINT)
        else:
            os.kill(os.getpid(), signal.Signals[end])

    def named(before: object, after: object) -> None:
        if end == f"killed at {Path(str(after)).name}":
            die()
        real_replace(before, after)  # type: ignore[arg-type]

    def linked(before: object, after: object) -> None:
        if end == f"killed at {Path(str(after)).name}":
            die()
        real_link(before, after)  # type: ignore[arg-type]

    # A name is given by a link where nothing may be overwritten, else by a rename.
    real_replace, os.replace = os.replace, named  # type: ignore[assignment]
    real_link, os.link = os.link, linked  # type: ignore[assignment]
    try:
        run(plan, ANYWHERE, progress=at_first_star(deed))
    except KeyboardInterrupt:
        sys.exit(130)
    except CatalogprocError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main(sys.argv[1:])
