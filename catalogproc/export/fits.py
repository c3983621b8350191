"""A FITS binary table, written as a stream.

FITS 4.0 (Pence et al. 2010, A&A 524, A42; version 4.0, 2018). astropy makes the headers. The
rows are written batch by batch, because astropy holds the whole table in memory. STILTS and
TOPCAT read UCDs and descriptions from the cards TUCD and TCOMM, which astropy's Table.write
does not write.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from catalogproc.contract import Column
from catalogproc.export.binary_rows import RecordTable, null_integer, record_dtype, to_records
from catalogproc.io.atomic import AtomicFile

BLOCK = 2880
CARD_ROOM = 64
"""Characters of a card for value and comment, without quotes and separators."""

_FORMATS = {
    "int64": ("K", "I20"),
    "int32": ("J", "I11"),
    "int16": ("I", "I6"),
    "float64": ("D", "G23.16"),
    "float32": ("E", "G14.7"),
    "bool": ("L", "L1"),
}


def write_fits(
    file: AtomicFile, table: RecordTable, cards: Mapping[str, tuple[str | int, str]]
) -> None:
    """Write a table as the first extension of a FITS file.

    Each column gets TTYPE, TFORM, TUNIT, TUCD, TCOMM and TDISP, and TNULL if it is an integer
    that may be null.

    Parameters
    ----------
    file
        Where to write.
    table
        Columns and rows.
    cards
        More cards of the table's header: keyword to (value, comment).
    """
    from astropy.io import fits

    contract = table.contract
    dtype = record_dtype(contract, table.widths)
    header = _table_header(table, dtype.itemsize)
    for keyword, (value, comment) in cards.items():
        header[keyword] = _card(value, comment)
    file.write(fits.PrimaryHDU().header.tostring().encode("ascii"))
    file.write(header.tostring().encode("ascii"))
    for batch in table.batches:
        file.write(to_records(batch, contract, dtype).data)
    file.write(bytes(-table.rows * dtype.itemsize % BLOCK))


def _table_header(table: RecordTable, row_bytes: int) -> Any:
    from astropy.io import fits

    contract = table.contract
    columns = [_column(column, table.widths) for column in contract.columns]
    header = fits.BinTableHDU.from_columns(columns, nrows=0, name=contract.name.upper()).header
    header["NAXIS1"], header["NAXIS2"] = row_bytes, table.rows
    for number, column in enumerate(contract.columns, start=1):
        last = max(
            (f"{word}{number}" for word in ("TTYPE", "TFORM", "TUNIT", "TNULL", "TDISP")),
            key=lambda keyword: header.index(keyword) if keyword in header else -1,
        )
        for keyword, value, comment in reversed(contract.fits_cards(number, column.name)):
            header.insert(last, (keyword, value, comment), after=True)
    return header


def _card(value: str | int, comment: str) -> tuple[str | int, str]:
    """Return a card's value in ASCII, and its comment if there is room for it."""
    if isinstance(value, str):
        value = value.encode("ascii", "replace").decode()
    return value, comment if len(str(value)) + len(comment) <= CARD_ROOM else ""


def _column(column: Column, widths: Mapping[str, int]) -> Any:
    from astropy.io import fits

    if column.type == "string":
        letters = widths[column.name]
        form, display = f"{letters}A", f"A{letters}"
    else:
        form, display = _FORMATS[column.type]
    return fits.Column(
        column.name, form, unit=column.unit or None, null=null_integer(column), disp=display
    )
