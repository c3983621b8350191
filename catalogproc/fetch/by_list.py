"""Stars of a list, or of a condition: spectra by DataLink, the auxiliary table by TAP."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from catalogproc.errors import JobError, plural
from catalogproc.fetch.adql import auxiliary_query, selection_query, services
from catalogproc.fetch.partitions import parse_pixels
from catalogproc.fetch.receipts import FOLDER
from catalogproc.fetch.retries import Retries
from catalogproc.fetch.star_batch import (
    FAILED,
    FOUND,
    STATUSES,
    Query,
    StarBatch,
    fetch_stars,
)
from catalogproc.fetch.star_list import read_ids, selected_ids
from catalogproc.io.atomic import as_json, publish, scratch_folder, write_atomic
from catalogproc.io.locks import Lock
from catalogproc.io.parquet_writer import parquet_writer
from catalogproc.io.temporary_files import remove_stale
from catalogproc.readers.sorted_tables import Ids
from catalogproc.release import Release, load_release

SPECTRA, AUXILIARY, STARS = "xp_continuous", "gaia_source", "stars.parquet"
"""What is written into the output folder: two folders of Parquet, and what became of each star."""

_ROWS = 1 << 16

Progress = Callable[[int, int | None, str], None]


@dataclass(frozen=True)
class ListSpec:
    """Which stars are fetched, and how.

    Attributes
    ----------
    output
        The output folder.
    ids
        A table in any format with source_id; None where ``select`` is given.
    select
        A condition in ADQL on gaia_source, or the name of a ready one of the release.
    healpix
        Pixels that ``select`` is limited to, "0-3111,5264".
    release
        The release.
    correlations
        Whether to keep the correlations.
    tap, datalink
        Other addresses than the release's.
    retries
        How patient the requests are.
    """

    output: Path
    ids: Path | None = None
    select: str | None = None
    healpix: str | None = None
    release: Release = field(default_factory=load_release)
    correlations: bool = False
    tap: str | None = None
    datalink: str | None = None
    retries: Retries = field(default_factory=Retries)

    def __post_init__(self) -> None:
        if (self.ids is None) == (self.select is None):
            raise JobError("which stars?", wanted="either --ids or --select", found="both or none")

    @property
    def query(self) -> Query:
        """Where the stars are asked for."""
        known = services(self.release)
        tap, datalink = self.tap or known.tap, self.datalink or known.datalink
        return Query(self.release, tap, datalink, self.correlations, self.retries)

    def stars(self) -> Ids:
        """Return the source_id of the stars that are asked for, in the order of the list.

        Raises
        ------
        InputError, DownloadError, JobError
            As of :func:`fetch_list`.
        """
        if self.ids is not None:
            return read_ids(self.ids, self.release)
        return selected_ids(self.query.tap, self.selection(), self.output, self.retries)

    def adql(self) -> list[str]:
        """Return the queries that are sent."""
        queries = [] if self.select is None else [self.selection()]
        return [*queries, auxiliary_query(self.release)]

    def selection(self) -> str:
        """Return the query for the stars of ``select``."""
        archive = self.release.archive
        level = 8 if archive is None else archive.healpix_level
        pixels = parse_pixels(self.healpix, level) if self.healpix else ()
        return selection_query(self.release, self.select or "", pixels)


@dataclass(frozen=True)
class ListResult:
    """What became of the stars: by status, their number.

    ``repeated`` is how many rows of the list named a star again.
    """

    folder: Path
    stars: dict[str, int]
    repeated: int

    @property
    def exit_code(self) -> int:
        """1 where stars failed."""
        return 1 if self.stars[FAILED] else 0

    def lines(self) -> list[str]:
        """Return the result as lines of text."""
        words = ", ".join(f"{name} {count:,}" for name, count in self.stars.items())
        total = plural(sum(self.stars.values()), "star")
        repeated = f" ({plural(self.repeated, 'repeated row')})" if self.repeated else ""
        lines = [f"{total}{repeated}: {words}", f"{self.folder / STARS} says it of each star"]
        if self.stars[FOUND]:
            place = f"--input {self.folder / SPECTRA} --gaia-source {self.folder / AUXILIARY}"
            lines.append(f"catalogproc run {place}")
        if self.exit_code:
            lines.append("the same command again fetches those that failed")
        return lines

    def to_dict(self) -> dict[str, Any]:
        """Return the result for programs."""
        return {"folder": str(self.folder), "stars": self.stars, "repeated": self.repeated}


def fetch_list(
    spec: ListSpec,
    progress: Progress | None = None,
    announce: Callable[[str], None] = lambda line: None,
) -> ListResult:
    """Fetch listed stars; what an earlier call has finished is kept.

    Parameters
    ----------
    spec
        Which stars, and how.
    progress
        Called with (stars that are done, all stars, a note).
    announce
        Is told of what failed.

    Raises
    ------
    DownloadError
        The query for the stars of a condition failed.
    InputError
        The list cannot be read.
    JobError
        The condition is none, or the folder holds stars of another list.
    """
    spec.output.mkdir(parents=True, exist_ok=True)
    with Lock(spec.output / "_fetch.lock"):
        remove_stale([spec.output, *(spec.output / name for name in (SPECTRA, AUXILIARY))])
        given = spec.stars()
        stars = np.unique(given)
        size, done = services(spec.release).ids_per_call, 0
        batches = [stars[start : start + size] for start in range(0, len(stars), size)]
        _refuse_others(spec, {_stem(batch, spec) for batch in batches})
        tables = []
        for batch in batches:
            tables.append(_batch(batch, spec, announce))
            done += len(batch)
            if progress is not None:
                progress(done, len(stars), "")
        counts = _write_stars(spec, tables)
    return ListResult(spec.output, counts, len(given) - len(stars))


def _stem(ids: Ids, spec: ListSpec) -> str:
    """Return the name of a batch, by its stars and by what is asked of them."""
    asked = f"{spec.release.hash} {spec.correlations} {auxiliary_query(spec.release)}"
    return "stars-" + hashlib.sha256(asked.encode() + ids.tobytes()).hexdigest()[:16]


def _batch(ids: Ids, spec: ListSpec, announce: Callable[[str], None]) -> pa.Table:
    """Fetch a batch unless it is done, and return what became of its stars."""
    stem = _stem(ids, spec)
    receipt = spec.output / FOLDER / f"{stem}.json"
    known = _done(spec, stem, receipt)
    if known is not None:
        return known
    with scratch_folder(spec.output, stem) as scratch:
        batch = fetch_stars(ids, spec.query, scratch)
        for path, place in ((batch.spectra, SPECTRA), (batch.auxiliary, AUXILIARY)):
            if path is not None:
                publish(path, spec.output / place / f"{stem}.parquet")
    table = _told(batch)
    counts = Counter(batch.status.values())
    if counts[FAILED]:
        reasons = Counter(batch.reason.values()).most_common(3)
        announce(
            f"{plural(counts[FAILED], 'star')} failed: " + "; ".join(why for why, _ in reasons)
        )
        return table
    files = {
        place: (spec.output / place / f"{stem}.parquet").stat().st_size
        for path, place in ((batch.spectra, SPECTRA), (batch.auxiliary, AUXILIARY))
        if path is not None
    }
    content = {"stars": table.to_pydict(), "files": files, "query": auxiliary_query(spec.release)}
    write_atomic(receipt, as_json(content))
    return table


def _done(spec: ListSpec, stem: str, receipt: Path) -> pa.Table | None:
    """Return what became of the stars of a batch that is there whole."""
    with contextlib.suppress(OSError, ValueError, KeyError):
        content = json.loads(receipt.read_bytes())
        for place, size in content["files"].items():
            if (spec.output / place / f"{stem}.parquet").stat().st_size != size:
                return None
        return pa.table(content["stars"], schema=_SCHEMA)
    return None


_SCHEMA = pa.schema(
    [
        pa.field("source_id", pa.int64()),
        pa.field("status", pa.string()),
        pa.field("reason", pa.string()),
    ]
)


def _told(batch: StarBatch) -> pa.Table:
    stars = sorted(batch.status)
    columns = {
        "source_id": stars,
        "status": [batch.status[star] for star in stars],
        "reason": [batch.reason.get(star) for star in stars],
    }
    return pa.table(columns, schema=_SCHEMA)


def _write_stars(spec: ListSpec, tables: list[pa.Table]) -> dict[str, int]:
    """Write what became of each star, and return the numbers."""
    whole = pa.concat_tables(tables) if tables else _SCHEMA.empty_table()
    with scratch_folder(spec.output, "stars") as scratch:
        path = scratch / STARS
        with parquet_writer(path, _SCHEMA) as writer:
            writer.write_table(whole)
        publish(path, spec.output / STARS)
    counts = Counter(whole.column("status").to_pylist())
    return {name: counts[name] for name in STATUSES}


def _refuse_others(spec: ListSpec, stems: set[str]) -> None:
    """Refuse a folder with stars of another list: they would be in the catalog too."""
    others = [path for path in _batches(spec) if path.stem not in stems]
    if others:
        raise JobError(
            "the folder holds stars of another list, or fetched with other options",
            found=plural(len(others), "file"), where=others[0],
            advice="choose another folder, or remove it",
        )  # fmt: skip


def _batches(spec: ListSpec) -> Iterator[Path]:
    for place in (SPECTRA, AUXILIARY):
        yield from (spec.output / place).glob("stars-*.parquet")
    yield from (spec.output / FOLDER).glob("stars-*.json")
