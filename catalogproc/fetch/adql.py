"""Queries to the archive in ADQL: the auxiliary table of listed stars; stars by a condition."""

from __future__ import annotations

from collections.abc import Sequence

from catalogproc.errors import JobError
from catalogproc.fetch.partitions import pixel_size
from catalogproc.release import Release
from catalogproc.release_parts import Services

UPLOAD = "ids"
"""Name of the uploaded table of source_id."""


def services(release: Release) -> Services:
    """Return the services of a release's archive.

    Parameters
    ----------
    release
        The release.

    Raises
    ------
    ReleaseError
        They are not known.
    """
    if release.archive is None or release.archive.services is None:
        lines = ('tap = "…"', 'datalink = "…"')
        raise release.unknown("the services of its archive", "archive.services", *lines)
    return release.archive.services


def auxiliary_query(release: Release) -> str:
    """Return the query for the auxiliary table of the stars in an uploaded table.

    Parameters
    ----------
    release
        The release. Columns are those that it names, of the sources and of the tables that are
        joined to them.
    """
    known = services(release)
    columns = [f"g.{name}" for name in release.columns["gaia_source"].values()]
    columns.append(f"g.{known.has_spectra}")
    columns += [
        f"{table}.{name}" for table in known.joins for name in release.columns[table].values()
    ]
    lines = [
        "SELECT " + ",\n  ".join(columns),
        f"FROM tap_upload.{UPLOAD} AS u",
        f"JOIN {known.source} AS g ON g.source_id = u.source_id",
        *(join.strip() for join in known.joins.values()),
        "ORDER BY g.source_id",
    ]
    return "\n".join(lines)


def selection_query(
    release: Release, condition: str, pixels: Sequence[tuple[int, int]] = ()
) -> str:
    """Return the query for the stars with spectra that a condition selects.

    Parameters
    ----------
    release
        The release.
    condition
        A condition on the columns of gaia_source, or the name of a ready one.
    pixels
        Ranges of HEALPix pixels of the archive's level; none for the whole sky.

    Raises
    ------
    JobError
        It is no single condition.
    """
    known = services(release)
    condition = known.selections.get(condition, condition).strip()
    if not condition or ";" in condition or _unbalanced(condition):
        raise JobError(
            "no condition",
            wanted=" | ".join([*known.selections, "phot_g_mean_mag < 15 AND parallax > 1"]),
            found=condition or "nothing",
            where="--select",
        )
    where = [f"g.{known.has_spectra} = 't'", f"({condition})"]
    if pixels:
        assert release.archive is not None
        size = pixel_size(release.archive.healpix_level)
        ranges = (f"g.source_id BETWEEN {a * size} AND {(b + 1) * size - 1}" for a, b in pixels)
        where.append(f"({' OR '.join(ranges)})")
    return f"SELECT g.source_id\nFROM {known.source} AS g\nWHERE " + "\n  AND ".join(where)


def _unbalanced(text: str) -> bool:
    """Return whether brackets close more, or less, than they open."""
    depth = 0
    for letter in text:
        depth += (letter == "(") - (letter == ")")
        if depth < 0:
            return True
    return depth != 0
