"""Some listed stars: their auxiliary table, their spectra, and what became of each of them."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from catalogproc.errors import CatalogprocError, DiskFullError, DownloadError, InputError
from catalogproc.fetch.adql import auxiliary_query, services
from catalogproc.fetch.convert_partition import convert_auxiliary, convert_spectra
from catalogproc.fetch.http import HttpClient
from catalogproc.fetch.retries import Retries
from catalogproc.fetch.tap import tap_query
from catalogproc.io.archives import unpack
from catalogproc.io.parquet_writer import parquet_writer
from catalogproc.readers.formats import has_known_suffix, open_table
from catalogproc.readers.sorted_tables import Ids
from catalogproc.release import Release

FOUND, NO_SPECTRUM, UNKNOWN, FAILED = "found", "no_xp", "unknown", "failed"
STATUSES = (FOUND, NO_SPECTRUM, UNKNOWN, FAILED)
"""What becomes of a star: its spectrum is there; the archive has none of it; it is no source of
the release; the archive did not hand its spectrum out, or it cannot be read."""

_UNPACKED_TRIES = 3


@dataclass(frozen=True)
class Query:
    """Where stars are asked for, and how.

    Attributes
    ----------
    release
        The release.
    tap, datalink
        Addresses of the services.
    correlations
        Whether to keep the correlations.
    retries
        How patient the requests are.
    """

    release: Release
    tap: str
    datalink: str
    correlations: bool
    retries: Retries


@dataclass(frozen=True)
class StarBatch:
    """What came of some stars.

    Attributes
    ----------
    status, reason
        By source_id: one of STATUSES; why a star failed.
    spectra, auxiliary
        Parquet files, None where no star has the one or the other.
    """

    status: Mapping[int, str]
    reason: Mapping[int, str]
    spectra: Path | None = None
    auxiliary: Path | None = None


def fetch_stars(ids: Ids, query: Query, scratch: Path) -> StarBatch:
    """Ask for some stars.

    Parameters
    ----------
    ids
        source_id (N,), each once, no more than the archive takes at once.
    query
        Where, and how.
    scratch
        An empty folder.

    Raises
    ------
    DiskFullError
        There is no space left. Whatever else fails is the status of the stars.
    """
    known = services(query.release)
    try:
        answer = scratch / "auxiliary.vot"
        adql = auxiliary_query(query.release)
        status = {int(star): UNKNOWN for star in ids}
        if not tap_query(query.tap, adql, answer, query.retries, ids):
            return StarBatch(status, {})
        status |= _have_spectra(answer, known.has_spectra)
        keep = known.has_spectra
        auxiliary = convert_auxiliary(
            answer, scratch / "auxiliary", query.release, keep, lambda rows: None
        ).path
    except DiskFullError:
        raise
    except CatalogprocError as error:
        return _all_failed(ids, error)
    wanted = np.array([star for star, what in status.items() if what == FOUND], np.int64)
    if not len(wanted):
        return StarBatch(status, {})
    try:
        spectra, reason = _spectra(wanted, query, scratch)
    except DiskFullError:
        raise
    except CatalogprocError as error:
        failed = _all_failed(wanted, error)
        return StarBatch(status | dict(failed.status), failed.reason, None, auxiliary)
    return StarBatch(status | dict.fromkeys(reason, FAILED), reason, spectra, auxiliary)


def _have_spectra(answer: Path, column: str) -> dict[int, str]:
    """Return of each source of an answer whether it has a spectrum."""
    status: dict[int, str] = {}
    for part in open_table(answer).batches(["source_id", column], batch_rows=1 << 16):
        ids, has = part.columns.columns
        words = pc.utf8_lower(has.cast(pa.string()))
        true = pc.is_in(words, pa.array(["true", "t", "1"])).to_pylist()
        for star, spectrum in zip(ids.to_pylist(), true, strict=True):
            status[int(star)] = FOUND if spectrum else NO_SPECTRUM
    return status


def _spectra(ids: Ids, query: Query, scratch: Path) -> tuple[Path | None, dict[int, str]]:
    """Return a file of the spectra of stars, and why those are missing that are not in it."""
    read = [
        convert_spectra(file, scratch / f"spectra-{number}", query.release, query.correlations,
                        lambda rows: None)
        for number, file in enumerate(_handed_out(ids, query, scratch))
    ]  # fmt: skip
    reason = {int(star): "DataLink did not hand it out" for star in ids}
    tables = []
    for part in read:
        table = pq.read_table(part.path)
        tables.append(table.filter(pc.is_in(table.column("source_id"), pa.array(ids))))
        if part.rejected is not None:
            rows = pq.read_table(part.rejected, columns=["source_id", "detail"]).to_pylist()
            reason |= {r["source_id"]: r["detail"] for r in rows if r["source_id"] in reason}
    if not tables or not sum(map(len, tables)):
        return None, reason
    whole = pa.concat_tables(tables).sort_by("source_id")
    stars = whole.column("source_id").to_pylist()
    if len(set(stars)) != len(stars):
        raise InputError("DataLink handed a star out twice", where=query.datalink)
    path = scratch / "spectra.parquet"
    with parquet_writer(path, whole.schema, split_floats=True) as writer:
        writer.write_table(whole)
    return path, {star: why for star, why in reason.items() if star not in set(stars)}


def _handed_out(ids: Ids, query: Query, scratch: Path) -> list[Path]:
    """Return the files of spectra in DataLink's answer for some stars."""
    known = services(query.release)
    form = {
        "ID": ",".join(map(str, ids)), "RELEASE": known.release, "FORMAT": known.format,
        "RETRIEVAL_TYPE": known.product, "DATA_STRUCTURE": known.structure,
        "USE_ZIP_ALWAYS": "true", "VALID_DATA": "false",
    }  # fmt: skip
    archive = scratch / "spectra.zip"
    for number in range(_UNPACKED_TRIES):
        with closing(HttpClient(query.retries)) as client:
            client.post(query.datalink, form, archive)
        try:
            members = unpack(archive, scratch / f"unpacked-{number}")
            return [path for path in members if has_known_suffix(path)]
        except InputError as error:  # an answer that is no ZIP archive, or half of one
            found = error
    raise DownloadError(
        "DataLink's answer is no ZIP archive, several times", found=found.found,
        where=query.datalink, advice="run the same command again later",
    ) from found  # fmt: skip


def _all_failed(ids: Ids, error: CatalogprocError) -> StarBatch:
    text = error.text(advice=False).replace("\n ", ";")
    return StarBatch({int(star): FAILED for star in ids}, {int(star): text for star in ids})
