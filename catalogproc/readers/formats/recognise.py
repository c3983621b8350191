"""Recognise the format of a file by its first bytes, also where it is none that is read.

For a format that is not read, the advice says how to make a file of it that is.
"""

from __future__ import annotations

from dataclasses import dataclass

PARQUET, TEXT, FITS, VOTABLE = "Parquet", "CSV or ECSV", "FITS", "VOTable"


@dataclass(frozen=True)
class Content:
    """What a file holds.

    Attributes
    ----------
    kind
        The format, in words.
    advice
        What the user can do about a format that is not read; empty for those that are.
    """

    kind: str
    advice: str = ""


_FETCH_AGAIN = "fetch the file again"
_UNPACK = "unpack it, and give the files in it"
_DATALINK = "ask for another format: votable, ecsv, csv or fits (FORMAT of a DataLink request)"

# Beginnings of files; longer ones come before shorter ones that they start with. They are
# compared in small letters.
_BEGINNINGS = (
    (b"par1", Content(PARQUET)),
    (b"pare", Content("encrypted Parquet", "write it without encryption")),
    (b"simple  =", Content(FITS)),
    (b"xtension=", Content("a FITS extension without its file", "write the whole FITS file")),
    (b"# %ecsv", Content(TEXT)),
    (b"<!doctype html", Content("a web page", "a server sent an error page: open the file in a "
                                "browser to read it, then " + _FETCH_AGAIN)),
    (b"<html", Content("a web page", "a server sent an error page: open the file in a "
                       "browser to read it, then " + _FETCH_AGAIN)),
    (b"<?xml", Content(VOTABLE)),
    (b"<votable", Content(VOTABLE)),
    (b"<!--", Content(VOTABLE)),
    (b"version https://git-lfs.github.com/spec/", Content(
        "a pointer of Git LFS, not the file itself", "fetch the file: git lfs pull")),
    (b"/annex/objects/", Content(
        "a pointer of git-annex, not the file itself", "fetch the file: git annex get")),
    (b"obj\x01", Content("Avro", "write it as Parquet, with fastavro and pyarrow")),
    (b"\x89hdf", Content("HDF5", "write it as Parquet or FITS: pandas.read_hdf, vaex or "
                         "astropy.table.Table.read read HDF5")),
    (b"arrow1", Content("Arrow IPC (Feather)",
                        "write it as Parquet: pyarrow.feather.read_table, then "
                        "pyarrow.parquet.write_table")),
    (b"\xff\xff\xff\xff", Content("an Arrow IPC stream",
                                  "write it as Parquet: pyarrow.ipc.open_stream, then "
                                  "pyarrow.parquet.write_table")),
    (b"fea1", Content("Feather, version 1", "write it as Parquet: pyarrow.feather.read_table, "
                      "then pyarrow.parquet.write_table")),
    (b"orc", Content("ORC", "write it as Parquet: pyarrow.orc.read_table, then "
                     "pyarrow.parquet.write_table")),
    (b"\x93numpy", Content("an array of NumPy (.npy)",
                           "write a table with named columns, as Parquet or FITS")),
    (b"sqlite format 3", Content("a SQLite database", "write the table as CSV or Parquet")),
    (b"\xd0\xcf\x11\xe0", Content("an Excel workbook (.xls)", "save the sheet as CSV, with "
                                  "source_id as text: Excel keeps 15 digits of a number")),
    (b"%pdf", Content("a PDF document", "give the table itself")),
    (b"bzh", Content("bzip2", "decompress it: bunzip2 FILE")),
    (b"\xfd7zxz", Content("xz", "decompress it: unxz FILE")),
    (b"\x1f\x8b", Content("gzip inside of gzip", "decompress it once: gunzip FILE")),
    (b"(\xb5/\xfd", Content("zstd", "decompress it: unzstd FILE")),
    (b"7z\xbc\xaf\x27\x1c", Content("a 7z archive", _UNPACK)),
    (b"rar!", Content("a RAR archive", _UNPACK)),
    (b"{", Content("JSON", _DATALINK)),
    (b"[{", Content("JSON", _DATALINK)),
)  # fmt: skip

# ZIP files, by names that stand in their first bytes.
_ZIPPED = (
    (b".npy", Content("arrays of NumPy (.npz)",
                      "write a table with named columns, as Parquet or FITS")),
    (b"[Content_Types].xml", Content("an Excel workbook (.xlsx)", "save the sheet as CSV, with "
                                     "source_id as text: Excel keeps 15 digits of a number")),
    (b"xl/", Content("an Excel workbook (.xlsx)", "save the sheet as CSV, with source_id as text: "
                     "Excel keeps 15 digits of a number")),
    (b"mimetypeapplication/vnd.oasis", Content("an OpenDocument sheet", "save it as CSV, with "
                                               "source_id as text")),
    (b"/data.pkl", Content("a file of PyTorch", "write a table with named columns, as Parquet")),
    (b".zgroup", Content("Zarr", "write the table as Parquet")),
    (b"", Content("a ZIP archive", "unpack it, or give it the ending .zip")),
)  # fmt: skip

_PICKLE = Content("a pickle of Python", "load it with the program that wrote it and write the "
                  "table as Parquet; a pickle can run code, so none is opened here")  # fmt: skip


NOT_READ = tuple(dict.fromkeys(found.kind for _, found in (*_BEGINNINGS, *_ZIPPED) if found.advice))
"""Formats that are recognised and not read."""


def recognise(content: bytes) -> Content:
    """Return what a file holds.

    Parameters
    ----------
    content
        Its first bytes, decompressed if they were compressed by gzip.
    """
    if not content:
        return Content("an empty file", _FETCH_AGAIN)
    # A byte-order mark or blanks may come first.
    plain = content.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if content.startswith(b"PK\x03\x04"):
        return next(kind for word, kind in _ZIPPED if word in content)
    if content[:1] == b"\x80" and 2 <= content[1] <= 5:
        return _PICKLE
    for begin, kind in _BEGINNINGS:
        if content.lower().startswith(begin) or plain.startswith(begin):
            return kind
    if content[257:262] == b"ustar":
        return Content("a tar archive", _UNPACK)
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        return Content("text in UTF-16", "save it as CSV in UTF-8")
    if b"\0" in content:
        return Content("binary data of no known format", "write the table as Parquet or FITS")
    return Content(TEXT)
