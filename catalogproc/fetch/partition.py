"""One partition: fetched, checked, converted, recorded, and the archive's file dropped."""

from __future__ import annotations

import contextlib
import hashlib
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from catalogproc import __version__
from catalogproc.errors import DownloadError
from catalogproc.fetch.convert_partition import (
    ConvertedPartition,
    convert_auxiliary,
    convert_spectra,
    keep_stars,
)
from catalogproc.fetch.disk_budget import DiskBudget
from catalogproc.fetch.http import HttpClient, forget
from catalogproc.fetch.partitions import Partition
from catalogproc.fetch.receipts import FetchReceipt, write_receipt
from catalogproc.fetch.tally import Tally
from catalogproc.io.atomic import publish, write_error
from catalogproc.io.hashes import file_sha256
from catalogproc.io.http import ServedFile
from catalogproc.readers.sorted_tables import Ids
from catalogproc.release import Release

PARTIAL, REJECTED = "_partial", "_rejected"
"""Folders of what is being fetched, and of rows that cannot be read."""

# Of a file's size: the file, and the Parquet file that is made of it.
_SPARE, _CORRELATED = 1.2, 2.0


@dataclass(frozen=True)
class Place:
    """What all partitions of a call have in common.

    Attributes
    ----------
    folder
        The output folder.
    url
        Address of the partitions' folder.
    release, table, correlations
        What they are, and whether correlations are kept.
    keep
        A column that is true in the rows that are kept.
    settings
        What was asked for, for the receipts.
    stars
        source_id of the stars that are kept (N,), sorted; None for all.
    """

    folder: Path
    url: str
    release: Release
    table: str
    correlations: bool
    keep: str | None
    settings: dict[str, str]
    stars: Ids | None = None


@dataclass(frozen=True)
class Fetcher:
    """Fetches partitions, several at a time, each in a thread of its own.

    Attributes
    ----------
    place
        What they have in common.
    client
        Makes a client for a thread.
    budget, tally
        Space and progress, which all share.
    checksums
        Reads the list of MD5 sums again: name to sum.
    """

    place: Place
    client: Callable[[], HttpClient]
    budget: DiskBudget
    tally: Tally
    checksums: Callable[[], dict[str, str]]

    def fetch(self, one: Partition) -> FetchReceipt:
        """Fetch a partition, and return its receipt, which is written last.

        Parameters
        ----------
        one
            The partition.

        Raises
        ------
        DownloadError
            It is not to be had, or has another MD5 sum.
        CatalogprocError
            It cannot be read or written.
        Stopped
            The caller asked to stop; what came is kept.
        """
        folder = self.place.folder
        partial_file = folder / PARTIAL / one.name
        partial_file.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.closing(self.client()) as client:
            size = client.size(self._address(one)) or 0
            spare = _CORRELATED if self.place.correlations else _SPARE
            with self.budget.room(round(spare * size)):
                remote, md5 = self._checked(client, one, partial_file)
                scratch = folder / PARTIAL / one.stem
                shutil.rmtree(scratch, ignore_errors=True)
                try:
                    found = self._convert(partial_file, scratch)
                    receipt = self._publish(one, found, remote, md5)
                    write_receipt(folder, one.stem, receipt)
                    forget(partial_file)
                except OSError as error:
                    raise write_error(error, folder) from error
                finally:
                    shutil.rmtree(scratch, ignore_errors=True)
        return receipt

    def _address(self, one: Partition) -> str:
        return f"{self.place.url}/{one.name}"

    def _checked(self, client: HttpClient, one: Partition, path: Path) -> tuple[ServedFile, str]:
        """Download a file whose MD5 sum is the stated one, which may change meanwhile."""
        stated = one.md5
        for last in (False, True):
            watch = partial(self.tally.fetched, one.name)
            remote = client.download(self._address(one), path, watch)
            with path.open("rb") as file:
                found = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False))
            if found.hexdigest() == stated:
                return remote, stated
            # Damaged on its way, or the archive has replaced it since the list was read.
            stated = self.checksums().get(one.name, stated)
            if found.hexdigest() == stated:
                return remote, stated
            forget(path)
            if last:
                raise DownloadError(
                    "a file of the archive has another MD5 sum than stated, twice",
                    wanted=stated,
                    found=found.hexdigest(),
                    where=self._address(one),
                    advice="run the same command again later; tell the archive if it stays so",
                )
        raise AssertionError

    def _convert(self, file: Path, scratch: Path) -> ConvertedPartition:
        place, watch = self.place, partial(self.tally.converted, file.name)
        if place.table == "xp_continuous":
            found = convert_spectra(file, scratch, place.release, place.correlations, watch)
        else:
            found = convert_auxiliary(file, scratch, place.release, place.keep, watch)
        return found if place.stars is None else keep_stars(found, place.stars)

    def _publish(
        self, one: Partition, found: ConvertedPartition, remote: ServedFile, md5: str
    ) -> FetchReceipt:
        place = self.place
        if found.rejected is not None:
            publish(found.rejected, place.folder / REJECTED / f"{one.stem}.parquet")
        archive_file = place.folder / PARTIAL / one.name
        receipt = FetchReceipt(
            url=self._address(one), md5=md5, bytes=archive_file.stat().st_size,
            etag=remote.etag, modified=remote.modified,
            file=f"{one.stem}.parquet", file_bytes=found.path.stat().st_size,
            sha256=file_sha256(found.path),
            rows_read=found.rows_read, rows_written=found.rows_written,
            rows_rejected=found.rows_rejected, rows_left_out=found.rows_left_out,
            settings=place.settings, release=place.release.name,
            release_hash=place.release.hash, version=__version__,
            fetched=datetime.now(UTC).isoformat(timespec="seconds"),
        )  # fmt: skip
        publish(found.path, place.folder / receipt.file)
        return receipt
