"""VOTable: TABLEDATA, BINARY and BINARY2, streamed.

The file passes through expat a block at a time. astropy's reader holds the whole table as
Python objects, which for the Gaia archive's largest results takes more memory than a worker
has; and it follows a STREAM's href to any address, which no file may make us do.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any
from xml.parsers import expat

import pyarrow as pa

from catalogproc.errors import InputError
from catalogproc.io.remote_file import File
from catalogproc.readers.formats.base import Rows, Table, reading, unique_names
from catalogproc.readers.formats.binary import Decoder, Field
from catalogproc.readers.formats.stream import blocks

_BLOCK = 1 << 20
_DATA = ("TABLEDATA", "BINARY", "BINARY2")
_BLANKS = re.compile(r"\s+")


@dataclass(frozen=True)
class VOTable(Table):
    """The tables of a VOTable document, one after the other; all have the same columns."""

    path: File
    fields: tuple[Field, ...]
    data: str  # TABLEDATA, BINARY or BINARY2
    units: Mapping[str, str]
    kind: str = "VOTable"
    rows: int | None = None

    @cached_property
    def stored_types(self) -> Mapping[str, pa.DataType]:
        if self.data == "TABLEDATA":
            return {field.name: _text_type(field) for field in self.fields}
        return {field.name: field.type for field in self.fields}

    def stored_batches(
        self, names: Sequence[str], *, batch_rows: int, first: int = 0, stop: int | None = None
    ) -> Iterator[Rows]:
        wanted = [self._index(name) for name in names]
        row = 0
        with reading(self.path, self.kind):
            for columns in self._columns(wanted, batch_rows):
                batch = pa.RecordBatch.from_arrays(columns, names=list(names))
                begin = max(first - row, 0)
                end = len(batch) if stop is None else min(len(batch), stop - row)
                if begin < end:
                    yield Rows(row + begin, batch.slice(begin, end - begin))
                row += len(batch)
                if stop is not None and row >= stop:
                    return

    def _index(self, name: str) -> int:
        return [field.name for field in self.fields].index(name)

    def _columns(self, wanted: Sequence[int], batch_rows: int) -> Iterator[list[pa.Array]]:
        """Columns of consecutive rows, as they come off the document."""
        parser = _Parser(self.path, frozenset(wanted))
        if self.data == "TABLEDATA":
            for _ in parser.steps():
                while len(parser.rows) >= batch_rows or (parser.done and parser.rows):
                    rows, parser.rows = parser.rows[:batch_rows], parser.rows[batch_rows:]
                    yield [self._text_column(rows, index) for index in wanted]
            return
        decoder = Decoder(self.fields, wanted, masked=self.data == "BINARY2")
        rest, stream = "", 1
        for _ in parser.steps():
            for number, text in parser.take_streams():
                if number != stream:  # that of a further table
                    _feed(decoder, rest)
                    yield from decoder.rows(batch_rows)
                    decoder.finish()
                    rest, stream = "", number
                rest += _BLANKS.sub("", text)
                whole = len(rest) - len(rest) % 4
                _feed(decoder, rest[:whole])
                rest = rest[whole:]
                yield from decoder.rows(batch_rows)
        _feed(decoder, rest)
        yield from decoder.rows(batch_rows)
        decoder.finish()

    def _text_column(self, rows: Sequence[Sequence[str]], index: int) -> pa.Array:
        null = self.fields[index].null_text
        cells = (row[index].strip() for row in rows)
        return pa.array([cell if cell and cell != null else None for cell in cells], pa.string())


def _feed(decoder: Decoder, text: str) -> None:
    decoder.feed(base64.b64decode(text, validate=True))


def open_votable(path: File) -> VOTable:
    """Read a VOTable document up to the data of its first table.

    Parameters
    ----------
    path
        The document. Further tables with the same columns are read as its continuation.

    Raises
    ------
    InputError
        The document is damaged, or has no table with data. That a further table has other
        columns is found while the rows are read.
    """
    with reading(path, "VOTable"):
        parser = _Parser(path)
        for _ in parser.steps(only_head=True):
            pass
        if parser.data is None:
            raise parser.no_table()
        unique_names([field.name for field in parser.fields], path)
        return VOTable(path, tuple(parser.fields), parser.data, parser.units)


def _text_type(field: Field) -> pa.DataType:
    """TABLEDATA is text; but that a column is declared a float must not be lost."""
    return field.type if field.type in (pa.float32(), pa.float64()) else pa.string()


class _Parser:
    """The handlers of expat: they collect the FIELDs, then rows of cells or the text of streams.

    Parameters
    ----------
    path
        The document.
    wanted
        Numbers of the columns of which TABLEDATA's cells are kept.
    """

    def __init__(self, path: File, wanted: frozenset[int] = frozenset()) -> None:
        self.path = path
        self.fields: list[Field] = []
        self.units: dict[str, str] = {}
        self.data: str | None = None  # the element that holds the first table's data
        self.status = ""  # the service's QUERY_STATUS, if not OK
        self.rows: list[list[str]] = []  # of TABLEDATA, not yet taken
        self.done = False  # the document has been parsed to its end
        self._wanted = wanted
        self._fields: list[Field] = []  # of the current table, and their units
        self._units: dict[str, str] = {}
        self._row: list[str] = []
        self._text: list[str] = []  # of the current cell
        self._streams: list[tuple[int, str]] = []  # not yet taken
        self._stream = 0  # number of the current stream, from 1
        self._listening = False
        self._in_fits = self._in_status = False
        self._root = ""
        self._message: list[str] = []  # what the service says of its status
        self._expat = expat.ParserCreate()
        self._expat.buffer_text = True
        self._expat.buffer_size = _BLOCK
        self._expat.StartElementHandler = self._start
        self._expat.EndElementHandler = self._end
        self._expat.CharacterDataHandler = self._characters
        self._expat.EntityDeclHandler = self._entity

    def steps(self, only_head: bool = False) -> Iterator[None]:
        """Parse, and yield after each block.

        What follows the last table is parsed too: there the archive states that a result was
        truncated, and there a document that breaks off is noticed.
        """
        for block in blocks(self.path, _BLOCK):
            self._expat.Parse(block.tobytes(), False)
            yield
            if only_head and self.data is not None:
                return
        self._expat.Parse(b"", True)
        self.done = True
        yield

    def no_table(self) -> InputError:
        """Return the error for a document without a table with data."""
        if self._root.upper() != "VOTABLE":
            return InputError(
                "the XML document is no VOTable", wanted="VOTABLE", found=self._root,
                where=self.path, advice="open it in a text editor: it may hold the message of a "
                "server; then fetch the file again",
            )  # fmt: skip
        said = " ".join("".join(self._message).split())[:300]
        return InputError(
            "the VOTable holds no table with data",
            wanted="a TABLE with TABLEDATA, BINARY or BINARY2",
            found=f"query status {self.status}: {said}".rstrip(": ") if self.status else "none",
            where=self.path,
            advice="the service did not do what it was asked for: see what was found"
            if self.status.upper() == "ERROR"
            else None,
        )

    def take_streams(self) -> list[tuple[int, str]]:
        """Return the numbers of streams and their texts since the last call."""
        taken, self._streams = self._streams, []
        return taken

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        name = name.rpartition(":")[2]
        self._root = self._root or name
        if name == "INFO" and attributes.get("name") == "QUERY_STATUS":
            self._query_status(attributes.get("value", ""))
        if name == "TD":
            self._text.clear()
            self._listening = len(self._row) in self._wanted
        elif name == "TR":
            self._row = []
        elif name == "TABLE":
            self._fields, self._units = [], {}
        elif name == "FIELD":
            self._fields.append(_field(attributes))
            if attributes.get("unit"):
                self._units[self._fields[-1].name] = attributes["unit"]
        elif name == "VALUES" and "null" in attributes and self._fields:
            self._fields[-1] = self._fields[-1].with_null(attributes["null"])
        elif name in _DATA:
            self._start_data(name)
        elif name == "STREAM" and self._in_fits:
            self._refuse_fits(attributes.get("href", ""))
        elif name == "STREAM":
            self._start_stream(attributes)
        elif name == "FITS":
            self._in_fits = True

    def _start_data(self, name: str) -> None:
        if self.data is None:
            self.data, self.fields, self.units = name, self._fields, self._units
        elif (self.data, self.fields, self.units) != (name, self._fields, self._units):
            raise InputError(
                "the VOTable holds a second table with other columns",
                wanted="one table, or several with the same columns",
                found=", ".join(field.name for field in self._fields[:8]),
                where=self.path,
                advice="write each table to a file of its own",
            )

    def _query_status(self, status: str) -> None:
        if status.upper() == "OVERFLOW":
            raise InputError(
                "the archive cut this result short",
                wanted="QUERY_STATUS OK",
                found="QUERY_STATUS OVERFLOW",
                where=self.path,
                advice="ask for fewer rows at a time",
            )
        self.status = status
        self._in_status = True

    def _entity(self, name: str, *_: object) -> None:
        raise ValueError(f"a document that declares the entity {name!r}, which no VOTable needs")

    def _refuse_fits(self, href: str) -> None:
        raise InputError(
            "the VOTable holds FITS",
            wanted="TABLEDATA, BINARY or BINARY2",
            found=f"FITS, at {href}" if href else "FITS",
            where=self.path,
            advice=f"give the FITS file itself: {href}"
            if href
            else "write the table as FITS: stilts tcopy FILE out.fits, or save it with TOPCAT",
        )

    def _start_stream(self, attributes: dict[str, str]) -> None:
        if "href" in attributes:
            raise InputError(
                "the data of the VOTable lie at another address, which is not followed",
                wanted="the data in the file",
                found=attributes["href"],
                where=self.path,
                advice="write the table with its data inside: stilts tcopy FILE out.vot",
            )
        encoding = attributes.get("encoding", "none")
        if encoding != "base64":
            raise ValueError(f"a stream encoded as {encoding!r}, not base64")
        self._stream += 1
        self._listening = True

    def _end(self, name: str) -> None:
        name = name.rpartition(":")[2]
        if name == "TD":
            self._row.append("".join(self._text))
            self._text.clear()
            self._listening = False
        elif name == "TR":
            if len(self._row) != len(self.fields):
                raise ValueError(f"a row with {len(self._row)} cells, not {len(self.fields)}")
            self.rows.append(self._row)
        elif name == "STREAM":
            self._listening = False
        elif name == "INFO":
            self._in_status = False

    def _characters(self, text: str) -> None:
        if self._listening and self.data == "TABLEDATA":
            self._text.append(text)
        elif self._listening:
            self._streams.append((self._stream, text))
        elif self._in_status:
            self._message.append(text)


def _field(attributes: Mapping[str, Any]) -> Field:
    return Field.declared(
        attributes.get("name") or attributes.get("ID") or "",
        attributes.get("datatype", ""),
        attributes.get("arraysize", ""),
    )
