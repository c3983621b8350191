"""HATS catalogs as input: folders of partitions of the sky."""

from __future__ import annotations

import re
from pathlib import Path

from catalogproc.errors import JobError

_PARTITION = re.compile(r"Norder=(\d+)/Dir=\d+/Npix=(\d+)(\.\w+|/.*)$")
_ORDER = 29
_PROPERTIES = ("hats.properties", "properties")


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
    properties = folder / "collection.properties"
    if properties.is_file():
        primary = _property(properties, "hats_primary_table_url")
        if not primary or not (folder / primary).is_dir():
            raise JobError(
                "the HATS collection lacks its primary catalog",
                wanted=primary or "hats_primary_table_url", found="no such folder", where=folder,
            )  # fmt: skip
        folder = folder / primary
    elif not any((folder / name).is_file() for name in _PROPERTIES):
        return None
    found = []
    for path in (folder / "dataset").rglob("*.parquet"):
        match = _PARTITION.search(path.as_posix())
        if match:
            order, pixel = int(match[1]), int(match[2])
            found.append((pixel << 2 * (_ORDER - order), path))
    if not found:
        raise JobError("the HATS catalog holds no partition", where=folder)
    return [path for _, path in sorted(found)]


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
                margin = _property(folder / name, "dataproduct_type") == "margin"
                return margin or not _PARTITION.search(path.as_posix())
    return False


def _property(path: Path, name: str) -> str:
    """Return a value of a Java properties file; empty where it has none."""
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        key, _, value = line.partition("=")
        if key.strip() == name:
            return value.strip()
    return ""
