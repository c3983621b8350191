"""Table formats: each is read as a stream of Arrow batches.

Nothing of Gaia is known here. The format is recognised by the content of a file; a file whose name
says another one is refused.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from catalogproc.errors import InputError
from catalogproc.readers.formats.base import Rows, Table, check_regular, reading
from catalogproc.readers.formats.fits import open_fits
from catalogproc.readers.formats.parquet import ParquetTable, open_parquet
from catalogproc.readers.formats.stream import head
from catalogproc.readers.formats.text import open_text
from catalogproc.readers.formats.votable import open_votable

__all__ = ["SUFFIXES", "ParquetTable", "Rows", "Table", "has_known_suffix", "open_table"]

_PARQUET, _TEXT, _FITS, _VOTABLE = "Parquet", "CSV or ECSV", "FITS", "VOTable"
_OPENERS: dict[str, Callable[[Path], Table]] = {
    _PARQUET: open_parquet,
    _TEXT: open_text,
    _FITS: open_fits,
    _VOTABLE: open_votable,
}
SUFFIXES = {
    ".parquet": _PARQUET, ".pq": _PARQUET, ".parq": _PARQUET,
    ".csv": _TEXT, ".ecsv": _TEXT,
    ".fits": _FITS, ".fit": _FITS,
    ".xml": _VOTABLE, ".vot": _VOTABLE, ".votable": _VOTABLE,
}  # fmt: skip
"""File name endings that are read; all but those of Parquet may be followed by .gz."""

# How the formats, and some that are mistaken for them, begin.
_BEGINNINGS = (
    (b"PAR1", _PARQUET),
    (b"SIMPLE  =", _FITS),
    (b"# %ECSV", _TEXT),
    (b"<!doctype html", "a web page"),
    (b"<html", "a web page"),
    (b"<?xml", _VOTABLE),
    (b"<votable", _VOTABLE),
    (b"<!--", _VOTABLE),
    (b"obj\x01", "Avro"),
    (b"\x89hdf", "HDF5"),
    (b"pk\x03\x04", "a zip archive"),
    (b"bzh", "bzip2"),
    (b"\xfd7zxz", "xz"),
    (b"\x1f\x8b", "gzip inside of gzip"),
    (b"(\xb5/\xfd", "zstd"),
    (b"arrow1", "Arrow IPC"),
)


def has_known_suffix(path: Path) -> bool:
    """Return whether the name of a file has an ending of a format that is read.

    Parameters
    ----------
    path
        The file; it need not exist.
    """
    return _promised(path) is not None


def open_table(path: Path) -> Table:
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
        found = _found(head(path))
    if found not in _OPENERS or (promised is not None and found != promised):
        raise InputError(
            "the file is not what its name says" if promised else "the format is not read",
            wanted=promised or ", ".join(_OPENERS),
            found=found,
            where=path,
            advice="give it the ending of what it is, or fetch it again",
        )
    return _OPENERS[found](path)


def _promised(path: Path) -> str | None:
    """Return the format that the name says; None where it says none."""
    name = path.name.lower()
    plain = name.removesuffix(".gz")
    kind = SUFFIXES.get(Path(plain).suffix)
    return None if kind == _PARQUET and plain != name else kind


def _found(content: bytes) -> str:
    """Return the name of the format of a file that starts with these bytes."""
    if not content:
        return "an empty file"
    # A byte-order mark or blanks may come first.
    plain = content.removeprefix(b"\xef\xbb\xbf").lstrip()
    for begin, kind in _BEGINNINGS:
        if content.lower().startswith(begin.lower()) or plain.lower().startswith(begin.lower()):
            return kind
    return "binary data of no known format" if b"\0" in content else _TEXT
