"""Table formats: each is read as a stream of Arrow batches.

Nothing of Gaia is known here. The format is recognised by the content of a file; a file whose name
says another one is refused.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path, PurePath

from catalogproc.errors import InputError
from catalogproc.io.remote_file import File, RemoteFile
from catalogproc.readers.formats.base import Rows, Table, check_regular, reading
from catalogproc.readers.formats.fits import open_fits
from catalogproc.readers.formats.parquet import ParquetTable, is_remote_parquet, open_parquet
from catalogproc.readers.formats.recognise import FITS, PARQUET, TEXT, VOTABLE, Content, recognise
from catalogproc.readers.formats.stream import head
from catalogproc.readers.formats.text import open_text
from catalogproc.readers.formats.votable import open_votable

__all__ = [
    "READ_FILES", "SUFFIXES", "ParquetTable", "Rows", "Table", "advice_for", "has_known_suffix",
    "is_named_parquet", "open_table",
]  # fmt: skip

_OPENERS: dict[str, Callable[[File], Table]] = {
    PARQUET: open_parquet,
    TEXT: open_text,
    FITS: open_fits,
    VOTABLE: open_votable,
}
SUFFIXES = {
    ".parquet": PARQUET, ".pq": PARQUET, ".parq": PARQUET,
    ".csv": TEXT, ".tsv": TEXT, ".ecsv": TEXT,
    ".fits": FITS, ".fit": FITS,
    ".xml": VOTABLE, ".vot": VOTABLE, ".votable": VOTABLE,
}  # fmt: skip
"""File name endings that are read; all but those of Parquet may be followed by .gz."""

READ_FILES = f"files that end in {', '.join(SUFFIXES)}, or in one of them and .gz"
"""These endings in words."""


def has_known_suffix(path: PurePath | RemoteFile) -> bool:
    """Return whether the name of a file has an ending of a format that is read.

    Parameters
    ----------
    path
        The file; it need not exist.
    """
    return _promised(path) is not None


def open_table(path: File) -> Table:
    """Open the table in a file of any format that is read.

    Parameters
    ----------
    path
        The file.

    Raises
    ------
    InputError
        The file is missing, not a regular one, empty, damaged, of a format that is not read, or
        of another format than its name says.
    """
    check_regular(path)
    promised = _promised(path)
    with reading(path, promised or "a table"):
        known = promised == PARQUET and is_remote_parquet(path)
        found = Content(PARQUET) if known else recognise(head(path))
    if found.kind not in _OPENERS or (promised is not None and found.kind != promised):
        raise InputError(
            "the file is not what its name says" if promised else "the format is not read",
            wanted=promised or ", ".join(_OPENERS),
            found=found.kind,
            where=path,
            advice=found.advice or f"give it the ending of {found.kind}, or fetch it again",
        )
    return _OPENERS[found.kind](path)


def is_named_parquet(path: PurePath | RemoteFile) -> bool:
    """Return whether the name of a file says that it is Parquet.

    Parameters
    ----------
    path
        The file; it need not exist.
    """
    return _promised(path) == PARQUET


def advice_for(path: File) -> str | None:
    """Return what to do about a file of a format that is not read; None where that is unknown.

    Parameters
    ----------
    path
        The file; it need not exist.
    """
    try:
        found = recognise(head(path)) if path.is_file() else None
    except Exception:  # damaged in any way
        return None
    if found is None or not found.advice:
        return None
    return f"{path.name} is {found.kind}: {found.advice}"


def _promised(path: PurePath | RemoteFile) -> str | None:
    """Return the format that the name says; None where it says none."""
    name = path.name.lower()
    plain = name.removesuffix(".gz")
    kind = SUFFIXES.get(Path(plain).suffix)
    return None if kind == PARQUET and plain != name else kind
