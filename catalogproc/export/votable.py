"""VOTable with BINARY2 data, written as a stream.

VOTable 1.4 (IVOA Recommendation 2019). astropy is not used because it builds the whole table
in memory, and gives bool columns the datatype "bit", on which STILTS and TOPCAT stop with a
ClassCastException.
"""

from __future__ import annotations

import binascii
from collections.abc import Mapping

from catalogproc.export.binary_rows import RecordTable, record_dtype, to_records
from catalogproc.io.atomic import AtomicFile
from catalogproc.io.votable_header import votable_frame

LINE = 49_152
"""Bytes per line of base64: a multiple of three, so that no line is padded."""


def write_votable(file: AtomicFile, table: RecordTable, infos: Mapping[str, str]) -> None:
    """Write a table as a VOTable in BINARY2.

    Parameters
    ----------
    file
        Where to write.
    table
        Columns and rows.
    infos
        INFO elements of the RESOURCE.
    """
    contract = table.contract
    head, tail = votable_frame(contract, widths=table.widths, infos=infos, rows=table.rows)
    file.write(f'{head}<DATA><BINARY2><STREAM encoding="base64">\n'.encode())
    dtype = record_dtype(contract, table.widths, null_bytes=-(-len(contract.columns) // 8))
    rest = b""
    for batch in table.batches:
        data = rest + to_records(batch, contract, dtype).tobytes()
        full_lines = len(data) // LINE * LINE
        for start in range(0, full_lines, LINE):
            file.write(binascii.b2a_base64(data[start : start + LINE]))
        rest = data[full_lines:]
    file.write(binascii.b2a_base64(rest) if rest else b"")
    file.write(f"</STREAM></BINARY2></DATA>\n{tail}".encode())
