"""The files of a table in the archive: which there are, and which pixels of the sky they hold."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from catalogproc.errors import DownloadError, JobError
from catalogproc.readers.sorted_tables import Ids
from catalogproc.release import Release
from catalogproc.release_parts import Archive, ArchiveTable

_LINE = re.compile(r"^(?P<md5>[0-9a-fA-F]{32})\s+\*?(?:\./)?(?P<name>\S+)\s*$")
_SUFFIX = ".csv.gz"


@dataclass(frozen=True)
class Partition:
    """A file of a table.

    Attributes
    ----------
    name
        Its name.
    md5
        MD5 sum (hex) that the archive states.
    first, last
        Range of its HEALPix pixels (nested, of the archive's level), both included.
    """

    name: str
    md5: str
    first: int
    last: int

    @property
    def stem(self) -> str:
        """The name without its ending."""
        return self.name.removesuffix(_SUFFIX)


@dataclass(frozen=True)
class PartitionList:
    """The files of a table: their address, and one entry each."""

    url: str
    partitions: tuple[Partition, ...]


def published(release: Release, table: str) -> tuple[Archive, ArchiveTable]:
    """Return the archive of a release, and a table that it publishes as files.

    Parameters
    ----------
    release
        The release.
    table
        Our name of the table's contract: xp_continuous, gaia_source.

    Raises
    ------
    ReleaseError
        The release does not say where it is published.
    """
    if release.archive is None or table not in release.archive.tables:
        lines = ('folder = "…"', 'prefix = "…"')
        raise release.unknown(f"where {table} is published", f"archive.tables.{table}", *lines)
    return release.archive, release.archive.tables[table]


def table_url(release: Release, table: str, base_url: str | None = None) -> str:
    """Return the address of a table's folder.

    Parameters
    ----------
    release
        The release.
    table
        xp_continuous or gaia_source.
    base_url
        A mirror with the archive's layout, in place of the archive.

    Raises
    ------
    ReleaseError
        The release does not say where the table is published.
    """
    archive, place = published(release, table)
    return f"{(base_url or archive.files).rstrip('/')}/{place.folder}"


def parse_checksums(text: str, prefix: str, where: str) -> tuple[Partition, ...]:
    """Return the partitions that a list of MD5 sums names, by pixel.

    Parameters
    ----------
    text
        Lines of MD5 sum and name. Other files are left out: the archive's list names itself.
    prefix
        The start of the partitions' names.
    where
        The list's address, for messages.

    Raises
    ------
    DownloadError
        It names no partition, or one of them twice.
    """
    shape = re.compile(re.escape(prefix) + r"(\d+)-(\d+)" + re.escape(_SUFFIX))
    found: dict[str, Partition] = {}
    for line in text.splitlines():
        match = _LINE.match(line)
        pixels = match and shape.fullmatch(match["name"])
        if match is None or pixels is None:
            continue
        name, md5 = match["name"], match["md5"].lower()
        if found.get(name, md5) != md5 and found[name].md5 != md5:
            raise DownloadError("the list of MD5 sums has two sums of a file", found=name,
                                where=where)  # fmt: skip
        found[name] = Partition(name, md5, int(pixels[1]), int(pixels[2]))
    if not found:
        raise DownloadError(
            "this is no list of MD5 sums of the table",
            wanted=f"lines like 0123456789abcdef0123456789abcdef  {prefix}000000-003111{_SUFFIX}",
            found=text[:100] or "nothing",
            where=where,
            advice="check --base-url: it stands for the folder that holds those of the tables",
        )
    return tuple(sorted(found.values(), key=lambda one: one.first))


def parse_pixels(text: str, level: int) -> tuple[tuple[int, int], ...]:
    """Return ranges of pixels: "0-3111,5000" are those from 0 to 3111, and 5000.

    Parameters
    ----------
    text
        Ranges between commas.
    level
        HEALPix level, which limits them.

    Raises
    ------
    JobError
        A range is none, or leaves the sky.
    """
    count = 12 * 4**level
    ranges = []
    for word in text.split(","):
        match = re.fullmatch(r"\s*(\d+)(?:-(\d+))?\s*", word)
        low, high = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        if not low <= high < count:
            raise JobError(
                "no range of HEALPix pixels",
                wanted=f"pixels of level {level}, 0 to {count - 1}: 0-3111,5264",
                found=word,
                where="--healpix",
            )
        ranges.append((low, high))
    return tuple(ranges)


def choose(
    partitions: Sequence[Partition], ranges: Sequence[tuple[int, int]]
) -> tuple[Partition, ...]:
    """Return the partitions that overlap ranges of pixels, whole; all of them without ranges.

    Parameters
    ----------
    partitions
        The partitions.
    ranges
        (first, last) pixels.
    """
    return tuple(
        one
        for one in partitions
        if not ranges or any(low <= one.last and one.first <= high for low, high in ranges)
    )


def with_stars(partitions: Sequence[Partition], ids: Ids, level: int) -> tuple[Partition, ...]:
    """Return the partitions whose pixels have some of the stars.

    Parameters
    ----------
    partitions
        The partitions.
    ids
        source_id (N,), sorted.
    level
        HEALPix level of the partitions' pixels.
    """
    size = pixel_size(level)
    return tuple(
        one
        for one in partitions
        if np.searchsorted(ids, one.first * size) < np.searchsorted(ids, (one.last + 1) * size)
    )


def pixel_size(level: int) -> int:
    """Return how many values of source_id a HEALPix pixel has.

    Parameters
    ----------
    level
        Its level: source_id / 2^35 is the pixel of level 12, each level has four times as many.
    """
    return 1 << (35 + 2 * (12 - level))
