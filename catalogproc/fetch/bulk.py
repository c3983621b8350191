"""Whole tables of a release, or parts of the sky, from the archive's files."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import closing
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from catalogproc.errors import (
    CatalogprocError,
    DiskFullError,
    JobError,
    did_you_mean,
    plural,
)
from catalogproc.fetch.disk_budget import DiskBudget
from catalogproc.fetch.http import HttpClient, forget
from catalogproc.fetch.partition import PARTIAL, Fetcher, Place
from catalogproc.fetch.partitions import (
    Partition,
    choose,
    parse_checksums,
    parse_pixels,
    published,
    table_url,
    with_stars,
)
from catalogproc.fetch.receipts import FetchReceipt, finished
from catalogproc.fetch.retries import Retries, Stopped
from catalogproc.fetch.tally import Progress, Tally
from catalogproc.io.free_space import format_bytes
from catalogproc.io.hashes import sha256
from catalogproc.io.locks import Lock
from catalogproc.io.temporary_files import remove_stale
from catalogproc.readers.sorted_tables import Ids
from catalogproc.release import Release, load_release

TABLES = ("xp_continuous", "gaia_source")
PARALLEL = 4
"""Downloads at a time: what a public server bears from one user."""
KEEP_FREE = 2 << 30
"""Bytes of the disk that stay free."""

_GIVE_UP = 8
"""Partitions that fail one after the other before a call ends: the server is gone."""


@dataclass(frozen=True)
class BulkSpec:
    """What is fetched, and how.

    Attributes
    ----------
    output
        The folder for one table.
    release
        The release.
    table
        One of TABLES.
    healpix
        Pixels of the archive's level, "0-3111,5264"; None for the whole sky.
    base_url
        A mirror with the archive's layout.
    correlations
        Whether to keep the correlations of the coefficients, 15 times the size.
    all_sources
        Whether to keep the rows of gaia_source that have no spectrum.
    parallel
        Downloads at a time.
    disk_budget
        Bytes that the folder may hold; downloads wait while it is full. None for no limit.
    keep_free
        Bytes of the disk that stay free.
    retries
        How patient the downloads are.
    stars
        source_id of the stars that are kept (N,), in any order; None for all. Files without one
        are not fetched.
    """

    output: Path
    release: Release = field(default_factory=load_release)
    table: str = "xp_continuous"
    healpix: str | None = None
    base_url: str | None = None
    correlations: bool = False
    all_sources: bool = False
    parallel: int = PARALLEL
    disk_budget: int | None = None
    keep_free: int = KEEP_FREE
    retries: Retries = field(default_factory=Retries)
    stars: Ids | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        if self.table not in TABLES:
            raise JobError(
                "no such table", wanted=" | ".join(TABLES), found=self.table, where="--table",
                advice=did_you_mean(self.table, TABLES),
            )  # fmt: skip

    @property
    def place(self) -> Place:
        """What all partitions have in common."""
        _, files = published(self.release, self.table)
        keep = None if self.all_sources else files.keep
        settings = {"table": self.table, "release": self.release.name, "rows": keep or "all"}
        if self.table == "xp_continuous":
            settings["correlations"] = "kept" if self.correlations else "left out"
        stars = None if self.stars is None else np.unique(self.stars)
        if stars is not None:
            settings["stars"] = sha256([stars.tobytes()])
        return Place(
            self.output, table_url(self.release, self.table, self.base_url), self.release,
            self.table, self.correlations, keep, settings, stars,
        )  # fmt: skip


@dataclass(frozen=True)
class BulkPlan:
    """The partitions that are asked for: those that are done, and those to fetch."""

    spec: BulkSpec
    done: tuple[FetchReceipt, ...]
    missing: tuple[Partition, ...]

    def lines(self) -> list[str]:
        """Return the plan as lines of text."""
        all_files = plural(len(self.done) + len(self.missing), "file")
        return [f"{self.spec.place.url}: {all_files}, {len(self.done):,} of them done"]

    def to_dict(self) -> dict[str, Any]:
        """Return the plan for programs."""
        missing = [one.name for one in self.missing]
        return {"url": self.spec.place.url, "done": len(self.done), "missing": missing}


@dataclass(frozen=True)
class BulkResult:
    """What a call did.

    Attributes
    ----------
    folder
        The output folder.
    kept, fetched
        Receipts of partitions that were there, and of those that came now.
    failed
        By name of a partition: why it did not come.
    stopped
        Why partitions were not tried; empty where all were.
    left
        Number of partitions that were not tried.
    """

    folder: Path
    kept: tuple[FetchReceipt, ...]
    fetched: tuple[FetchReceipt, ...]
    failed: dict[str, str]
    stopped: str = ""
    left: int = 0

    @property
    def exit_code(self) -> int:
        """0 where every partition that was asked for is there, else 1."""
        return 1 if self.failed or self.left else 0

    @property
    def rows(self) -> int:
        """Number of rows in the folder, of the partitions that were asked for."""
        return sum(one.rows_written for one in (*self.kept, *self.fetched))

    def lines(self) -> list[str]:
        """Return the result as lines of text."""
        came, files = sum(one.bytes for one in self.fetched), plural(len(self.fetched), "file")
        rejected = sum(one.rows_rejected for one in (*self.kept, *self.fetched))
        lines = [
            f"{self.folder}: {files} fetched ({format_bytes(came)}), {len(self.kept):,} were there",
            f"{plural(self.rows, 'star')}, {plural(rejected, 'row')} rejected",
        ]
        lines += [f"failed: {name}: {why}" for name, why in sorted(self.failed.items())]
        if self.stopped:
            lines.append(f"stopped: {self.stopped}; {plural(self.left, 'file')} not tried")
        if self.exit_code:
            lines.append("the same command again fetches what is missing")
        return lines

    def to_dict(self) -> dict[str, Any]:
        """Return the result for programs."""
        return {
            "folder": str(self.folder), "kept": len(self.kept), "fetched": len(self.fetched),
            "bytes": sum(one.bytes for one in self.fetched), "rows": self.rows,
            "failed": self.failed, "stopped": self.stopped, "left": self.left,
        }  # fmt: skip


def plan_bulk(spec: BulkSpec) -> BulkPlan:
    """Read the archive's list of files, and compare it with what is there.

    Parameters
    ----------
    spec
        What is asked for.

    Raises
    ------
    DownloadError
        The list cannot be had, or names no file of the table.
    JobError
        The pixels are none, or the folder holds something else.
    ReleaseError
        The release does not say where the table is published.
    """
    archive, _ = published(spec.release, spec.table)
    ranges = parse_pixels(spec.healpix, archive.healpix_level) if spec.healpix else ()
    with closing(HttpClient(spec.retries)) as client:
        wanted = choose(_list(spec, client), ranges)
    place = spec.place
    if place.stars is not None:
        wanted = with_stars(wanted, place.stars, archive.healpix_level)
    settings, done, missing = place.settings, [], []
    for one in wanted:
        receipt = finished(spec.output, one.stem, one.md5, settings)
        if receipt is None:
            missing.append(one)
        else:
            done.append(receipt)
    return BulkPlan(spec, tuple(done), tuple(missing))


def _list(spec: BulkSpec, client: HttpClient) -> tuple[Partition, ...]:
    archive, files = published(spec.release, spec.table)
    url = f"{spec.place.url}/{archive.checksums}"
    return parse_checksums(client.text(url), files.prefix, url)


def fetch_bulk(
    spec: BulkSpec,
    progress: Progress | None = None,
    announce: Callable[[str], None] = lambda line: None,
) -> BulkResult:
    """Fetch what is missing of a table into a folder of Parquet files.

    Each file of the archive becomes one Parquet file of the contract, with a receipt, or is not
    there; files that fail do not stop others. At any time at most ``parallel`` of the archive's
    own files are on the disk.

    Parameters
    ----------
    spec
        What is fetched, and how.
    progress
        Called as bytes and stars come (see :mod:`catalogproc.fetch.tally`).
    announce
        Is told of pauses and of files that fail.

    Raises
    ------
    LockedError
        Another process fetches into this folder.
    DiskFullError
        There is no space left.
    CatalogprocError
        As of :func:`plan_bulk`.
    """
    spec.output.mkdir(parents=True, exist_ok=True)
    with Lock(spec.output / "_fetch.lock"):
        remove_stale([spec.output, spec.output / "_receipts"])
        plan = plan_bulk(spec)
        for receipt in plan.done:  # left where a call was killed just before its end
            partial = spec.output / PARTIAL
            forget(partial / receipt.url.rsplit("/", 1)[1])
            shutil.rmtree(partial / receipt.file.removesuffix(".parquet"), ignore_errors=True)
        for line in plan.lines():
            announce(line)
        stop = threading.Event()
        budget = DiskBudget(spec.output, spec.disk_budget, spec.keep_free, announce, stop)
        fetcher = Fetcher(
            spec.place, lambda: HttpClient(spec.retries, stop), budget,
            Tally(len(plan.missing), progress), lambda: _sums(spec, stop),
        )  # fmt: skip
        return _fetch_all(plan, fetcher, announce)


def _sums(spec: BulkSpec, stop: threading.Event) -> dict[str, str]:
    with closing(HttpClient(spec.retries, stop)) as client:
        return {one.name: one.md5 for one in _list(spec, client)}


def _fetch_all(plan: BulkPlan, fetcher: Fetcher, announce: Callable[[str], None]) -> BulkResult:
    """Fetch partitions in threads until all are done, or it makes no sense to go on."""
    result = BulkResult(plan.spec.output, plan.done, (), {})
    in_a_row = 0
    stop, budget = fetcher.budget.stop, fetcher.budget
    with ThreadPoolExecutor(plan.spec.parallel, "fetch") as pool:
        try:
            for one, future in _as_done(pool, plan, fetcher):
                receipt, why = _outcome(future)
                fetcher.tally.finished()
                if receipt is not None:
                    in_a_row, result = 0, replace(result, fetched=(*result.fetched, receipt))
                    continue
                in_a_row += 1
                announce(f"{one.name}: {why}")
                result = replace(result, failed=result.failed | {one.name: why})
                if in_a_row >= _GIVE_UP:
                    tried = len(result.fetched) + len(result.failed)
                    left = len(plan.missing) - tried
                    why = f"{in_a_row} files failed one after the other"
                    return replace(result, stopped=why if left else "", left=left)
        finally:  # also after Ctrl-C and on a full disk
            stop.set()
            budget.wake()
    return result


def _outcome(future: Future[FetchReceipt]) -> tuple[FetchReceipt | None, str]:
    """Return the receipt of a partition, or why it failed. Raise what concerns all of them."""
    try:
        return future.result(), ""
    except DiskFullError:
        raise
    except CatalogprocError as error:
        return None, error.text(advice=False).replace("\n ", ";")
    except Stopped:
        return None, "stopped"


def _as_done(
    pool: ThreadPoolExecutor, plan: BulkPlan, fetcher: Fetcher
) -> Iterator[tuple[Partition, Future[FetchReceipt]]]:
    """Yield partitions as they end; a few wait in the pool, not thousands."""
    waiting = iter(plan.missing)
    running: dict[Future[FetchReceipt], Partition] = {}
    while True:
        for one in islice(waiting, plan.spec.parallel - len(running)):
            running[pool.submit(fetcher.fetch, one)] = one
        if not running:
            return
        for future in wait(running, return_when=FIRST_COMPLETED).done:
            yield running.pop(future), future
