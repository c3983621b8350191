"""HATS catalogs as input: folders of partitions of the sky, local or at an address."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TypeVar

from catalogproc.errors import JobError
from catalogproc.io.remote import Address, Entry

_PARTITION = re.compile(r"Norder=(\d+)/Dir=\d+/Npix=(\d+)(\.\w+|/.*)$")
_ORDER = 29
_DIRECTORY = 10_000
_PROPERTIES = ("hats.properties", "properties")
_COLLECTION, _INDEX = "collection.properties", "partition_info.csv"
_T = TypeVar("_T")


def partition_of(path: str) -> tuple[int, int] | None:
    """Return order and pixel of a partition of a HATS catalog; None for another file.

    Parameters
    ----------
    path
        The file's path or address, with slashes.
    """
    found = _PARTITION.search(path)
    return None if found is None else (int(found[1]), int(found[2]))


def hats_files(folder: Path) -> list[Path] | None:
    """Return the partitions of a HATS catalog, in the order of their pixels on the sky.

    Parameters
    ----------
    folder
        A catalog, or a collection, of which the primary catalog is read: margins hold stars
        a second time.

    Returns
    -------
    list of Path or None
        None where the folder is not a HATS catalog.

    Raises
    ------
    JobError
        The catalog has no partition, or the collection no primary catalog.
    """

    def read(name: str) -> str | None:
        path = folder / name
        return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else None

    place = _catalog(read, str(folder))
    if place is None:
        return None
    found = (folder / place / "dataset").rglob("*.parquet")
    return _in_order(((path.as_posix(), path) for path in found), str(folder))


def hats_entries(address: Address) -> list[Entry] | None:
    """Return the partitions of a HATS catalog at an address, as :func:`hats_files`.

    A web server lists no files: there they are those of partition_info.csv.

    Parameters
    ----------
    address
        The catalog, or the collection.

    Raises
    ------
    JobError
        As of :func:`hats_files`.
    CatalogprocError
        The address cannot be read.
    """

    def read(name: str) -> str | None:
        found = address.read(name)
        return None if found is None else found[0].decode("utf-8", "replace")

    place = _catalog(read, str(address))
    if place is None:
        return None
    inside = f"{place}/" if place else ""
    if not address.is_web:
        base = f"{address.path}/{inside}dataset/"
        found = [entry for entry in address.files() if entry.path.startswith(base)]
        parquet = (entry for entry in found if entry.path.endswith(".parquet"))
        return _in_order(((entry.path, entry) for entry in parquet), str(address))
    lines = (read(f"{inside}{_INDEX}") or "").splitlines()
    paths = [f"{address.path}/{inside}{_path(line)}" for line in lines[1:] if line.strip()]
    return _in_order(((path, Entry(path, 0, 0)) for path in paths), str(address))


def _path(line: str) -> str:
    """Return the file of a partition by its line of partition_info.csv: order, pixel, …"""
    order, pixel = (int(word) for word in line.split(",")[:2])
    folder = pixel // _DIRECTORY * _DIRECTORY
    return f"dataset/Norder={order}/Dir={folder}/Npix={pixel}.parquet"


def _catalog(read: Callable[[str], str | None], where: str) -> str | None:
    """Return the folder of the catalog in a place, empty for itself; None where there is none."""
    collection = read(_COLLECTION)
    if collection is None:
        return "" if any(read(name) is not None for name in _PROPERTIES) else None
    primary = _property(collection, "hats_primary_table_url")
    if not primary or all(read(f"{primary}/{name}") is None for name in _PROPERTIES):
        raise JobError(
            "the HATS collection lacks its primary catalog",
            wanted=primary or "hats_primary_table_url", found="no such folder", where=where,
        )  # fmt: skip
    return primary.strip("/")


def _in_order(files: Iterable[tuple[str, _T]], where: str) -> list[_T]:
    """Return the files that are partitions, by their pixels."""
    found: list[tuple[int, str, _T]] = []
    for path, file in files:
        partition = partition_of(path)
        if partition is not None:
            order, pixel = partition
            found.append((pixel << 2 * (_ORDER - order), path, file))
    if not found:
        raise JobError("the HATS catalog holds no partition", where=where)
    return [file for _, _, file in sorted(found, key=lambda one: one[:2])]


def beside_partitions(path: Path) -> bool:
    """Return whether a file of a HATS catalog is not one of its partitions.

    Parameters
    ----------
    path
        A file that a glob has found. Metadata and maps are no partitions, nor are the files of
        margin caches, whose stars the main catalog holds too.
    """
    for folder in path.parents:
        for name in _PROPERTIES:
            if (folder / name).is_file():
                text = (folder / name).read_text(encoding="utf-8", errors="replace")
                margin = _property(text, "dataproduct_type") == "margin"
                return margin or partition_of(path.as_posix()) is None
    return False


def disjoint_partitions(paths: Sequence[str]) -> list[tuple[int, int]]:
    """Return order and pixel of files that are all partitions of the sky without overlap.

    Parameters
    ----------
    paths
        Files as they were named.

    Returns
    -------
    list of (int, int)
        By their place on the sky; empty where a file is no partition, or two overlap.
    """
    found = {partition_of(path) for path in paths}
    known = [partition for partition in found if partition is not None]
    if len(known) < len(found):
        return []
    spans = sorted(
        (pixel << 2 * (_ORDER - order), (pixel + 1) << 2 * (_ORDER - order), order, pixel)
        for order, pixel in known
    )
    if any(one[1] > other[0] for one, other in pairwise(spans)):
        return []
    return [(order, pixel) for _, _, order, pixel in spans]


def _property(text: str, name: str) -> str:
    """Return a value of a Java properties file; empty where it has none."""
    for line in text.splitlines():
        key, _, value = line.partition("=")
        if key.strip() == name:
            return value.strip()
    return ""
