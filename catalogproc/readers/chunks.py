"""Input files: found, fingerprinted, and cut into chunks.

A chunk is the work of one task: whole row groups of a Parquet file, or a complete file of another
format, which can only be read from its start. The id of a chunk depends on the content of the file
and the rows, not on the file's place.
"""

from __future__ import annotations

import glob
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from catalogproc.errors import InputError, JobError, Refusal
from catalogproc.io.archives import is_archive
from catalogproc.io.hashes import file_blocks, sha256
from catalogproc.io.remote import Address, is_address
from catalogproc.io.staging import fetch, stage
from catalogproc.readers import coerce
from catalogproc.readers.column_lookup import source_id_column
from catalogproc.readers.datalink import not_read, spectra_in
from catalogproc.readers.formats import SUFFIXES, ParquetTable, has_known_suffix, open_table
from catalogproc.readers.formats.parquet import byte_range
from catalogproc.readers.formats.stream import head
from catalogproc.readers.hats import beside_partitions, hats_files
from catalogproc.readers.xp import read_spectra

_ENDS = 64 << 10

# Bytes by which a file and a compressed one are compared.
_COMPARED = 1 << 20


@dataclass(frozen=True)
class Chunk:
    """Some rows of one input file.

    Attributes
    ----------
    id
        Hash (16 hex digits) of the file's fingerprint and the rows.
    fingerprint
        Of the file when it was planned; empty where the file could not be read.
    first_row, rows
        The rows of the file, from 0; ``rows`` is None where only reading the file tells.
    row_groups
        The Parquet row groups that hold them, begin and end; None for other formats.
    """

    id: str
    file: Path
    fingerprint: str
    first_row: int
    rows: int | None
    row_groups: tuple[int, int] | None


def expand(
    inputs: Iterable[str | Path], announce: Callable[[str], None] | None = None
) -> list[Path]:
    """Return the files that paths, quoted globs (``**`` too), folders and addresses stand for.

    Parameters
    ----------
    inputs
        A folder stands for the files in it with a known ending, without those whose names begin
        with a dot or an underscore; a HATS catalog or collection for the files of its
        partitions; a ZIP archive for its spectra. Files at an address (``s3://…``) are staged
        first.
    announce
        Is told of what is staged, and of whatever part of the input is not read.

    Returns
    -------
    list of Path
        In the order of the inputs; within a glob or folder by name, within HATS by pixel. A file
        that is named twice is kept once; so is one that is there with and without .gz.

    Raises
    ------
    JobError
        An input stands for no file.
    CatalogprocError
        An address or an archive cannot be read.
    """
    say = announce or (lambda line: None)
    found: dict[tuple[int, int] | Path, Path] = {}
    for word in inputs:
        far = is_address(word)
        matches = _staged(Address(str(word)), announce) if far else _matches(Path(word), say)
        for path in matches:
            for file in spectra_in(path, say) if is_archive(path) else [path]:
                found.setdefault(_identity(file), file)
    return _without_copies(list(found.values()), say)


def _without_copies(files: list[Path], say: Callable[[str], None]) -> list[Path]:
    """The files without each NAME.gz whose content is that of NAME, which is there too."""
    plain = {path for path in files if path.suffix != ".gz"}
    kept = []
    for path in files:
        other = path.with_suffix("")
        if path.suffix == ".gz" and other in plain and _same_start(path, other):
            say(f"{path}: not read, it is {other.name}, compressed")
        else:
            kept.append(path)
    return kept


def _same_start(one: Path, other: Path) -> bool:
    try:
        return head(one, _COMPARED) == head(other, _COMPARED)
    except Exception:  # a damaged file is read, and fails by its own name
        return False


def fingerprint(path: str | Path) -> str:
    """Return the SHA-256 (hex) of a file's size, its first and its last 64 KiB.

    Parameters
    ----------
    path
        The file.

    Raises
    ------
    InputError
        The file cannot be read.
    """
    try:
        size = Path(path).stat().st_size
        ends = [(start, start + _ENDS) for start in (0, max(size - _ENDS, 0))]
        return sha256([f"{size}\n".encode(), *file_blocks(Path(path), ends)])
    except OSError as error:
        raise InputError(
            "the file cannot be read", wanted="a file", found=error, where=path
        ) from error


def cut(files: Sequence[str | Path], chunk_rows: int) -> list[Chunk]:
    """Cut input files into chunks, in their order.

    Parameters
    ----------
    files
        The files. One that cannot be read is a chunk too, which fails with its cause while the
        others are processed.
    chunk_rows
        Approximate number of rows of a chunk. Row groups are not divided: a larger one is a
        chunk of its own.

    Raises
    ------
    Refusal
        Two files have the same content: each of their stars would be in the catalog twice.
    """
    seen: dict[str, Path] = {}
    chunks: list[Chunk] = []
    for path in map(Path, files):
        try:
            mark = fingerprint(path)
            empty = path.stat().st_size == 0
        except (InputError, OSError):
            mark, empty = "", True
        # Empty files have the same content; each of them fails by its own name.
        unique = mark if not empty else f"{mark} {path.resolve()}"
        if unique in seen:
            raise Refusal(
                "two input files have the same content: each star would be in the catalog twice",
                wanted="each file once",
                found=f"{seen[unique]} and {path}",
                advice="leave one of them out",
            )
        seen[unique] = path
        for first, rows, groups in _pieces(path, chunk_rows):
            named = sha256(f"{unique}\n{first}\n{rows}".encode())[:16]
            chunks.append(Chunk(named, path, mark, first, rows, groups))
    return chunks


def content_sha256(chunk: Chunk) -> str:
    """Return the SHA-256 (hex) of the bytes of a chunk.

    Parameters
    ----------
    chunk
        Of a Parquet file, the footer and the chunk's row groups are hashed; of any other, all.

    Raises
    ------
    InputError
        The file cannot be read.
    """
    try:
        groups = chunk.row_groups
        spans = None if groups is None else byte_range(chunk.file, *groups)
        return sha256(file_blocks(chunk.file, spans))
    except OSError as error:
        raise InputError("the file cannot be read", found=error, where=chunk.file) from error


def spectra(
    chunk: Chunk, *, correlations: bool = False, batch_rows: int = 8192, own: bool = False
) -> Iterator[pa.RecordBatch]:
    """Yield the spectra of a chunk; see :func:`~catalogproc.readers.xp.read_spectra`.

    Parameters
    ----------
    chunk
        The rows of a file.
    correlations, batch_rows, own
        As of ``read_spectra``.
    """
    return read_spectra(
        chunk.file,
        correlations=correlations,
        batch_rows=batch_rows,
        skip=chunk.first_row,
        rows=chunk.rows,
        own=own,
    )


def source_ids_before(chunk: Chunk) -> pa.Array:
    """Return the source_ids (int64) of the rows of the file before a chunk.

    With them a star that is twice in a file is found where its rows are in two chunks.

    Parameters
    ----------
    chunk
        The rows of a file.

    Raises
    ------
    InputError
        The file cannot be read.
    """
    if chunk.first_row == 0:
        return pa.array([], pa.int64())
    table = open_table(chunk.file)
    name = source_id_column(table)
    parts = [
        coerce.identifiers(part.columns.column(0))[0]
        for part in table.batches([name], batch_rows=1 << 20, stop=chunk.first_row)
    ]
    return pa.concat_arrays(parts) if parts else pa.array([], pa.int64())


def _pieces(
    path: Path, chunk_rows: int
) -> Iterator[tuple[int, int | None, tuple[int, int] | None]]:
    """Yield first row, number of rows and row groups of each chunk of a file."""
    try:
        table = open_table(path)
    except InputError:
        yield 0, None, None
        return
    if not isinstance(table, ParquetTable):
        yield 0, table.rows, None
        return
    ends = np.cumsum((0, *table.row_groups), dtype=np.int64)
    begin = 0
    while begin < len(table.row_groups) or begin == 0:
        # As many row groups as fit into the wanted rows, and at least one.
        wanted = ends[begin] + chunk_rows
        end = int(np.searchsorted(ends, wanted, side="right")) - 1
        end = min(max(end, begin + 1), len(table.row_groups))
        yield int(ends[begin]), int(ends[end] - ends[begin]), (begin, end)
        begin = max(end, begin + 1)


def _staged(address: Address, announce: Callable[[str], None] | None) -> list[Path]:
    """Return the staged files of an address."""
    files = address.files()
    if [entry.path for entry in files] != [address.path]:
        files = [entry for entry in files if _has_input_name(Path(entry.path))]
    if not files:
        raise JobError(
            "no file at the address can be read",
            wanted=f"files that end in {', '.join(SUFFIXES)}, or in one of them and .gz",
            found="none",
            where=address,
        )
    if announce is not None:
        size = sum(entry.size for entry in files) / 1e6
        announce(f"{address}: {len(files)} files, {size:,.1f} MB, staged in {stage()}")
    return fetch(address, files)


def _matches(word: Path, say: Callable[[str], None]) -> list[Path]:
    """The local files that one input stands for."""
    if word.is_dir():
        found = hats_files(word)
        if found is None:
            found = [path for path in sorted(word.iterdir()) if _is_input(path)]
        if not found:
            raise JobError(
                "the folder holds no file that can be read",
                wanted=f"files that end in {', '.join(SUFFIXES)}, or in one of them and .gz",
                found=f"{sum(1 for _ in word.iterdir())} other files",
                where=word,
            )
        return found
    if word.exists() or word.is_symlink() or not glob.has_magic(str(word)):
        if not word.exists() and not word.is_symlink():
            raise JobError("no such file", wanted=str(word), found="nothing", where=word.parent)
        return [word]
    found = [Path(name) for name in sorted(glob.glob(str(word), recursive=True))]
    found = [path for path in found if not path.is_dir()]
    partitions = [
        path for path in found if path.name[0] not in "._" and not beside_partitions(path)
    ]
    others = [path.name for path in found if path not in partitions]
    if others and partitions:
        say(f"{word}: {len(partitions)} of {len(found)} files are read" + not_read(others))
        found = partitions
    if not found:
        raise JobError(
            "nothing matches",
            wanted=f"files like {word}",
            found="none",
            where=Path.cwd() if not word.is_absolute() else None,
        )
    return found


def _is_input(path: Path) -> bool:
    return _has_input_name(path) and not path.is_dir()


def _has_input_name(path: Path) -> bool:
    return path.name[0] not in "._" and (has_known_suffix(path) or is_archive(path))


def _identity(path: Path) -> tuple[int, int] | Path:
    """Return what identifies a file, by whatever path it is named."""
    try:
        status = path.stat()
    except OSError:
        return path.absolute()
    return status.st_dev, status.st_ino
