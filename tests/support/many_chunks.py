"""A run folder with many chunks, made in seconds, for tests and for measurements."""

from __future__ import annotations

import hashlib
import os
import shutil
from dataclasses import asdict
from pathlib import Path

from support.catalogs import catalog_table, identity, write_chunk

from catalogproc.io.atomic import as_json
from catalogproc.rundir.manifest import open_run
from catalogproc.rundir.summary import write_summary


def many_chunks(folder: Path, chunks: int, rows: int = 20, *, link: bool = True) -> None:
    """Write a finished run of one input file, each chunk with the same stars.

    Parameters
    ----------
    folder
        The run folder; it must not exist.
    chunks
        How many parts and receipts.
    rows
        Stars of each part.
    link
        Whether the parts are hard links to one file, which needs less space on the disk.
    """
    run = identity(1, chunks * rows)
    open_run(folder, run)
    first = write_chunk(folder, run, 0, run.inputs[0], 0, catalog_table(rows, run_id=run.run_id))
    part = folder / first.catalog_part
    copy = os.link if link else shutil.copyfile
    for number in range(1, chunks):
        chunk = hashlib.sha256(str(number).encode()).hexdigest()[:16]
        path = f"catalog/{chunk}.parquet"
        copy(part, folder / path)
        receipt = asdict(first) | {
            "chunk_id": chunk, "first_row": number * rows, "catalog_part": path,
        }  # fmt: skip
        (folder / "receipts" / f"{chunk}.json").write_bytes(as_json(receipt))
    write_summary(folder)
