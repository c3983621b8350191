"""A table in memory, read as those of files are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import pyarrow as pa
import pyarrow.compute as pc

from catalogproc.io.remote_file import File
from catalogproc.readers.formats import Rows, Table
from catalogproc.readers.formats.nested import nested_fields
from catalogproc.readers.formats.stated_units import schema_units


@dataclass(frozen=True)
class MemoryTable(Table):
    """A table of Arrow; ``path`` is a name for messages."""

    path: File
    content: pa.Table
    kind: str = "a table in memory"

    @property
    def rows(self) -> int:
        return int(self.content.num_rows)

    @cached_property
    def units(self) -> Mapping[str, str]:  # type: ignore[override]
        return schema_units(self.content.schema)

    @cached_property
    def nested(self) -> Mapping[str, tuple[str, str]]:
        """Columns that are fields of a struct; see :func:`nested_fields`."""
        schema = self.content.schema
        return nested_fields(zip(schema.names, schema.types, strict=True))

    @cached_property
    def stored_types(self) -> Mapping[str, pa.DataType]:
        schema = self.content.schema
        own = dict(zip(schema.names, schema.types, strict=True))
        return own | {
            name: own[column].field(child).type for name, (column, child) in self.nested.items()
        }

    def stored_batches(
        self, names: Sequence[str], *, batch_rows: int, first: int = 0, stop: int | None = None
    ) -> Iterator[Rows]:
        end = self.rows if stop is None else min(stop, self.rows)
        columns = [self._column(name) for name in names]
        for row in range(first, end, batch_rows):
            count = min(batch_rows, end - row)
            arrays = [column.slice(row, count).combine_chunks() for column in columns]
            yield Rows(row, pa.RecordBatch.from_arrays(arrays, names=list(names)))

    def _column(self, name: str) -> pa.ChunkedArray:
        if name not in self.nested:
            return self.content.column(name)
        column, child = self.nested[name]
        return pc.struct_field(self.content.column(column), child)
