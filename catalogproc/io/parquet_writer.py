"""Parquet files of a table contract, written in batches and atomically, with their metadata."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from catalogproc.contract import Contract
from catalogproc.io.atomic import BUFFER, AtomicFile
from catalogproc.io.votable_header import dataless_votable

ROW_GROUP = 65_536
"""Number of rows of a row group."""


@dataclass(frozen=True)
class Part:
    """A finished file of a catalog.

    Attributes
    ----------
    path
        Relative to the output folder.
    rows, bytes
        Number of rows and of bytes.
    sha256
        Hash (hex) of its content.
    """

    path: str
    rows: int
    sha256: str
    bytes: int


class TableWriter:
    """A Parquet file of a contract, written in batches and atomically.

    Rows are collected into row groups of ``row_group`` rows, so memory holds one row group
    and one batch, whatever the size of the file. The bytes depend on the rows only, not on
    how they are divided into batches.

    Parameters
    ----------
    path
        The file.
    contract
        The contract that each batch is checked against and that describes the columns.
    metadata
        Further metadata: model, run, provenance. Nothing in it may change between two tries,
        or the same rows give other bytes.
    allow_empty
        Whether a file without rows is written.
    overwrite
        Whether a file of that name may be replaced.

    Attributes
    ----------
    row_group
        Number of rows of a row group.
    rows
        Number of rows so far.
    written
        Whether the file exists under its name.

    Raises
    ------
    CatalogprocError
        The file cannot be written. Nothing is left behind.
    ContractError
        A batch breaks the contract.
    """

    row_group = ROW_GROUP

    def __init__(
        self,
        path: Path,
        contract: Contract,
        metadata: Mapping[str, str] | None = None,
        *,
        allow_empty: bool = True,
        overwrite: bool = True,
    ) -> None:
        self.contract = contract
        self.rows = 0
        self.written = False
        self._metadata = dict(metadata or {})
        self._allow_empty = allow_empty
        self._waiting: list[pa.Table] = []
        self._waiting_rows = 0
        self._schema = contract.arrow_schema()
        self._widths = {f.name: 1 for f in self._schema if pa.types.is_string(f.type)}
        self._file = AtomicFile(path, overwrite=overwrite)
        self._parquet: Any

    def __enter__(self) -> Self:
        self._file.__enter__()
        # The schema is stored when the file is complete: see _final_metadata.
        self._parquet = parquet_writer(self._file, self._schema, store_schema=False)
        return self

    def write(self, table: pa.Table) -> None:
        """Append rows.

        Parameters
        ----------
        table
            Rows of the contract, in any number.

        Raises
        ------
        ContractError
            They break the contract.
        """
        self.contract.check(table, where=self._file.path)
        self._waiting.append(pa.Table.from_arrays(table.columns, schema=self._schema))
        self._waiting_rows += table.num_rows
        self.rows += table.num_rows
        for name, width in self._widths.items():
            longest = pc.max(pc.utf8_length(table.column(name))).as_py()
            self._widths[name] = max(width, longest or 0)
        if self._waiting_rows >= self.row_group:
            self._write_groups(self._waiting_rows // self.row_group * self.row_group)

    def _write_groups(self, rows: int) -> None:
        waiting = pa.concat_tables(self._waiting)
        # One chunk per column, else the pages would depend on the batches.
        group = waiting.slice(0, rows).combine_chunks()
        self._parquet.write_table(group, row_group_size=self.row_group)
        rest = waiting.slice(rows)
        self._waiting, self._waiting_rows = [rest], rest.num_rows

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is not None or not (self.rows or self._allow_empty):
            self._discard()
            return
        try:
            if self._waiting_rows:
                self._write_groups(self._waiting_rows)
            self._parquet.add_key_value_metadata(self._final_metadata())
            self._parquet.close()
        except BaseException:
            self._discard()
            raise
        self._file.commit()
        self.written = True

    def _final_metadata(self) -> dict[bytes, bytes]:
        """Return the file's metadata and its Arrow schema, with the widths of the strings.

        astropy looks for the widths in the VOTable document and in the Arrow schema; pyarrow
        would store the schema at the start, when the widths are unknown.
        """
        schema = described_schema(self.contract, self._metadata, self._widths)
        stored = base64.b64encode(schema.serialize().to_pybytes())
        return dict(schema.metadata) | {b"ARROW:schema": stored}

    def _discard(self) -> None:
        # Else pyarrow would try to write a footer when the writer is garbage-collected.
        self._parquet.is_open = False
        self._file.discard()


class PartWriter(TableWriter):
    """A part of a catalog: ``<contract's name>/<stem>.parquet`` in the output folder.

    Parameters
    ----------
    folder
        The output folder.
    stem
        The file's name without its suffix.
    contract, metadata, allow_empty
        As for :class:`TableWriter`.
    """

    def __init__(
        self,
        folder: Path,
        stem: str,
        contract: Contract,
        metadata: Mapping[str, str] | None = None,
        *,
        allow_empty: bool = True,
    ) -> None:
        self._path = f"{contract.name}/{stem}.parquet"
        super().__init__(Path(folder) / self._path, contract, metadata, allow_empty=allow_empty)

    @property
    def part(self) -> Part | None:
        """The finished part; None before the end, and where no file was written."""
        if not self.written:
            return None
        return Part(self._path, self.rows, self._file.sha256, self._file.bytes)


def described_schema(
    contract: Contract, metadata: Mapping[str, str], widths: Mapping[str, int]
) -> pa.Schema:
    """Return a contract's Arrow schema with the metadata of VOParquet and astropy.

    VOParquet (IVOA note, version 1.0) has a VOTable without data in the file's metadata;
    astropy reads units, UCDs and descriptions from it with ``format="parquet.votable"``.

    Parameters
    ----------
    contract
        The table contract.
    metadata
        Further metadata of the file.
    widths
        Number of characters of each string column.
    """
    voparquet = {
        "IVOA.VOTable-Parquet.version": "1.0",
        "IVOA.VOTable-Parquet.content": dataless_votable(contract, widths, metadata),
    }
    astropy = {f"table::len::{name}": str(width) for name, width in widths.items()}
    return contract.arrow_schema(voparquet | astropy | dict(metadata))


def parquet_writer(
    sink: Any, schema: pa.Schema, *, store_schema: bool = True, split_floats: bool = False
) -> Any:
    """Return a pyarrow ParquetWriter with this project's settings.

    Parameters
    ----------
    sink
        A path, or a file open for writing.
    schema
        The Arrow schema.
    store_schema
        Whether the Arrow schema is stored at once in the file's metadata.
    split_floats
        Whether floating-point columns are split into byte streams: arrays of coefficients
        compress best so.
    """
    strings = [field.name for field in schema if pa.types.is_string(field.type)]
    floats = [
        f"{field.name}.list.element" if pa.types.is_list(field.type) else field.name
        for field in schema
        if pa.types.is_floating(getattr(field.type, "value_type", field.type))
    ]
    return pq.ParquetWriter(
        sink,
        schema,
        compression="zstd",
        store_schema=store_schema,
        # The other columns hardly repeat a value.
        use_dictionary=strings,
        column_encoding=dict.fromkeys(floats, "BYTE_STREAM_SPLIT") if split_floats else None,
        write_page_checksum=True,
        data_page_size=BUFFER,
    )
