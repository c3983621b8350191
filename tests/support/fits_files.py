"""FITS files that astropy does not write: ASCII tables of every kind, and tables by columns."""

from __future__ import annotations

import io
from collections.abc import Iterable
from typing import Any

import numpy as np


def ascii_table(rows: list[str], cards: dict[str, object]) -> bytes:
    """An ASCII table from its rows, written from the standard without astropy."""

    def padded(lines: list[str], fill: bytes = b" ") -> bytes:
        content = "".join(line.ljust(80) for line in lines).encode()
        return content + fill * (-len(content) % 2880)

    def card(name: str, value: object) -> str:
        shown = f"'{value:<8}'" if isinstance(value, str) else {True: "T"}.get(value, value)
        return f"{name:<8}= {shown:>20}"

    primary = {"SIMPLE": True, "BITPIX": 8, "NAXIS": 0}
    head = {"XTENSION": "TABLE", "BITPIX": 8, "NAXIS": 2, "NAXIS1": len(rows[0]),
            "NAXIS2": len(rows), "PCOUNT": 0, "GCOUNT": 1, **cards}  # fmt: skip
    data = "".join(rows).encode()
    return (
        padded([card(*item) for item in primary.items()] + ["END"])
        + padded([card(*item) for item in head.items()] + ["END"])
        + data + b" " * (-len(data) % 2880)
    )  # fmt: skip


def colfits(
    columns: Iterable[tuple[str, str, np.ndarray, np.ndarray]], *, plus: bool = False
) -> bytes:
    """A table as STIL writes colfits: one row, each field an array over all stars.

    Of each column: name, unit, values (N,) or (N, C), and which of them are missing.
    """
    from astropy.io import fits

    made = []
    for name, unit, values, hidden in columns:
        more: dict[str, Any] = {"unit": unit} if unit else {}
        count, wide = len(values), 1
        if values.dtype.kind in "UO":
            plain = np.where(hidden, "", values.astype(str)).astype("S")
            values, wide, code = plain, plain.dtype.itemsize, "A"
        elif values.dtype.kind == "i":
            code, more["null"] = "K", -99
            values = np.where(hidden, -99, values).astype(np.int64)
        else:
            code, values = "D", np.where(hidden, np.nan, values)
            wide = values.shape[1] if values.ndim == 2 else 1
        if wide > 1:
            more["dim"] = f"({wide},{count})"
        made.append(fits.Column(name, f"{wide * count}{code}", array=values[None], **more))
    primary = fits.PrimaryHDU(np.frombuffer(b"<VOTABLE/>", np.uint8) if plus else None)
    primary.header["COLFITS"] = True
    out = io.BytesIO()
    fits.HDUList([primary, fits.BinTableHDU.from_columns(made)]).writeto(out)
    return out.getvalue()
