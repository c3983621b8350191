"""Input files: found, fingerprinted, and cut into chunks.

A chunk is the work of one task: whole row groups of a Parquet file, a complete file of another
format, or several small files. Its id depends on the content of the files and the rows, not on
the files' place.
"""

from __future__ import annotations

import glob
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path, PurePath, PurePosixPath

from catalogproc.errors import InputError, JobError, Refusal, plural
from catalogproc.io.archives import is_archive
from catalogproc.io.hashes import file_blocks, sha256
from catalogproc.io.remote import Address, Entry, is_address
from catalogproc.io.remote_file import File, RemoteFile, as_file
from catalogproc.io.staging import fetch
from catalogproc.readers.datalink import not_read, spectra_in
from catalogproc.readers.formats import READ_FILES, SUFFIXES, advice_for, has_known_suffix
from catalogproc.readers.formats.stream import head
from catalogproc.readers.hats import beside_partitions, hats_entries, hats_files, partition_of
from catalogproc.readers.pieces import ALL_ROWS, Piece, pieces_of
from catalogproc.readers.xp_sampled import is_sampling_file

SMALL = 0.1
"""A file of at most this part of a chunk's rows shares a chunk with its neighbours."""
GROUP_FILES = 500
"""Number of files that share a chunk at most; they have at most half of a chunk's rows."""

_ENDS = 64 << 10
_THREADS = 32

# Bytes by which a file and a compressed one are compared.
_COMPARED = 1 << 20


@dataclass(frozen=True)
class Chunk:
    """The work of one task: rows of one input file, or several small files.

    Attributes
    ----------
    pieces
        The rows of each file, in the order of the input.
    """

    pieces: tuple[Piece, ...]

    @cached_property
    def id(self) -> str:
        """Hash (16 hex digits) of the content of the files and the rows, not of their place."""
        if len(self.pieces) == 1:
            return self.pieces[0].id
        return sha256("\n".join(piece.id for piece in self.pieces).encode())[:16]

    @property
    def rows(self) -> int | None:
        """Number of rows; None where only reading a file tells."""
        counts = [piece.rows for piece in self.pieces if piece.rows is not None]
        return sum(counts) if len(counts) == len(self.pieces) else None

    def divided(self) -> tuple[Chunk, ...]:
        """Return the chunk as two of half of its files; a chunk of one file is not divided."""
        half = len(self.pieces) // 2
        return (Chunk(self.pieces[:half]), Chunk(self.pieces[half:])) if half else (self,)

    def halved(self, smallest: int) -> tuple[Chunk, ...]:
        """Return a chunk of one file as two of half of its rows.

        Parameters
        ----------
        smallest
            A chunk of at most so many rows, or of an unknown number, is not halved.
        """
        piece = self.pieces[0]
        if len(self.pieces) > 1 or piece.rows is None or piece.rows <= smallest:
            return (self,)
        first, half = piece.first_row, piece.rows // 2
        parts = piece.part(first, half), piece.part(first + half, piece.rows - half)
        return tuple(Chunk((part,)) for part in parts)

    def below(self, folder: Path) -> Chunk:
        """Return the chunk with its relative paths below a folder.

        Parameters
        ----------
        folder
            The folder.
        """
        return Chunk(
            tuple(
                replace(piece, file=folder / piece.file) if isinstance(piece.file, Path) else piece
                for piece in self.pieces
            )
        )


def expand(
    inputs: Iterable[str | Path], announce: Callable[[str], None] | None = None
) -> list[File]:
    """Return the files that paths, quoted globs (``**`` too), folders and addresses stand for.

    Parameters
    ----------
    inputs
        A folder stands for the files in it with a known ending, without those whose names begin
        with a dot or an underscore; a HATS catalog or collection for the files of its
        partitions; a ZIP archive for its spectra. Files at an address (``s3://…``) are read where
        they lie; ZIP archives there are fetched.
    announce
        Is told of what is at an address, and of whatever part of the input is not read.

    Returns
    -------
    list of Path or RemoteFile
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
    found: dict[tuple[int, int] | str, File] = {}
    for word in inputs:
        far = is_address(word)
        matches = _at_address(Address(str(word)), say) if far else _matches(Path(word), say)
        for path in matches:
            inside = isinstance(path, Path) and is_archive(path) and spectra_in(path, say)
            files: Sequence[File] = inside or [path]
            for file in files:
                found.setdefault(_identity(file), file)
    return _without_copies(_without_sampling(list(found.values()), say), say)


def _without_sampling(files: list[File], say: Callable[[str], None]) -> list[File]:
    """The files without those that hold the wavelengths of another one."""
    names = {str(path) for path in files}
    kept = [path for path in files if not _is_sampling_file(path, names)]
    for path in files:
        if path not in kept:
            say(f"{path}: the wavelengths of the sampled spectra beside it")
    return kept


def _is_sampling_file(path: File, names: Container[str]) -> bool:
    if isinstance(path, Path):
        return is_sampling_file(path)
    stem = str(path).removesuffix("_sampling.csv")
    return stem != str(path) and any(f"{stem}{suffix}" in names for suffix in SUFFIXES)


def _without_copies(files: list[File], say: Callable[[str], None]) -> list[File]:
    """The files without each NAME.gz whose content is that of NAME, which is there too."""
    plain = {str(path): path for path in files if path.suffix != ".gz"}
    kept = []
    for path in files:
        other = plain.get(str(path).removesuffix(".gz"))
        if path.suffix == ".gz" and other is not None and _same_start(path, other):
            say(f"{path}: not read, it is {other.name}, compressed")
        else:
            kept.append(path)
    return kept


def _same_start(one: File, other: File) -> bool:
    try:
        return head(one, _COMPARED) == head(other, _COMPARED)
    except Exception:  # a damaged file is read, and fails by its own name
        return False


def fingerprint(path: str | File, *, now: bool = True) -> str:
    """Return a hash (hex) that changes with a file: of its size and its content or version.

    Of a local file its size, its first and its last 64 KiB are hashed; of a file at an address its
    size and what the store says of its version.

    Parameters
    ----------
    path
        The file.
    now
        Whether a store is asked again, or the file is as it was when it was listed.

    Raises
    ------
    InputError
        The file cannot be read.
    """
    file = as_file(path)
    if isinstance(file, RemoteFile):
        return (file.now() if now else file).fingerprint
    try:
        size = file.stat().st_size
        ends = [(start, start + _ENDS) for start in (0, max(size - _ENDS, 0))]
        return sha256([f"{size}\n".encode(), *file_blocks(file, ends)])
    except OSError as error:
        raise InputError(
            "the file cannot be read", wanted="a file", found=error, where=path
        ) from error


def cut(
    files: Sequence[str | File], chunk_rows: int, unreadable: Container[File] = ()
) -> list[Chunk]:
    """Cut input files into chunks, in their order.

    A large file is divided, and small ones that follow each other share a chunk: to start a
    task and to write its part takes much longer than to process a star. How files are
    grouped depends on nothing but the files and ``chunk_rows``. A partition of a HATS catalog is
    a chunk, whatever its size.

    Parameters
    ----------
    files
        The files. One that cannot be opened is a chunk too, which fails with its cause while
        the others are processed.
    chunk_rows
        Approximate number of rows of a chunk. Row groups are not divided: a larger one is a
        chunk of its own.
    unreadable
        Files of which it is known that they cannot be read; each is a chunk of its own.

    Raises
    ------
    Refusal
        Two files have the same content: each of their stars would be in the catalog twice.
    """
    groups: list[list[Piece]] = []
    group: list[Piece] = []
    size, last = 0, None
    for path, pieces in _pieces(files, chunk_rows):
        partition = _partition(path)
        if partition is not None:
            groups += [[]] if partition != last else []
            groups[-1] += pieces
            group, last = [], partition
            continue
        last = None
        rows = pieces[0].probable_rows
        fails = path in unreadable or not pieces[0].opened
        if fails or len(pieces) > 1 or rows > SMALL * chunk_rows:
            groups += [[piece] for piece in pieces]
            group = group if fails else []  # the files around one that fails are neighbours
            continue
        if not group or len(group) == GROUP_FILES or 2 * (size + rows) > chunk_rows:
            group, size = [], 0
            groups.append(group)
        group.append(pieces[0])
        size += rows
    return [Chunk(tuple(pieces)) for pieces in groups]


def _pieces(files: Sequence[str | File], chunk_rows: int) -> Iterator[tuple[File, list[Piece]]]:
    """Yield each file with its pieces. Raise Refusal where two have the same content."""
    seen: dict[str, File] = {}
    with ThreadPoolExecutor(_THREADS) as pool:
        paths = [as_file(path) for path in files]
        for path, (unique, pieces) in zip(
            paths, pool.map(lambda path: _divided(path, chunk_rows), paths), strict=True
        ):
            if unique in seen:
                raise Refusal(
                    "two input files have the same content: each star would be in the catalog "
                    "twice",
                    wanted="each file once",
                    found=f"{seen[unique]} and {path}",
                    advice="leave one of them out",
                )
            seen[unique] = path
            yield path, pieces


def _divided(path: File, chunk_rows: int) -> tuple[str, list[Piece]]:
    """Return what identifies a file by its content, and its pieces."""
    try:
        mark = fingerprint(path, now=False)
        empty = path.stat().st_size == 0
    except (InputError, OSError):
        mark, empty = "", True
    # Empty files have the same content; each of them fails by its own name.
    place = path.resolve() if isinstance(path, Path) else path
    unique = mark if not empty else f"{mark} {place}"
    rows = chunk_rows if _partition(path) is None else ALL_ROWS
    return unique, pieces_of(path, mark, unique, rows)


def _partition(path: File) -> str | None:
    """Return what names the partition of a HATS catalog that a file is of; None for another."""
    text = path.as_posix()
    if partition_of(text) is None:
        return None
    return text[: text.rindex("/Npix=")] + "/" + text[text.rindex("/Npix=") + 1 :].split("/")[0]


def _at_address(address: Address, say: Callable[[str], None]) -> list[File]:
    """Return the files of an address; ZIP archives among them are fetched."""
    single = _has_input_name(PurePosixPath(address.path)) or glob.has_magic(address.path)
    partitions = None if single else hats_entries(address)
    files = address.files() if partitions is None else partitions
    if partitions is None and [entry.path for entry in files] != [address.path]:
        files = [entry for entry in files if _has_input_name(PurePosixPath(entry.path))]
    if not files:
        raise JobError(
            "no file at the address can be read",
            wanted=READ_FILES,
            found="none",
            where=address,
        )

    def opened(entry: Entry) -> File:
        if is_archive(PurePosixPath(entry.path)):
            return fetch(address, [entry])[0]
        return RemoteFile.of(address, entry)

    with ThreadPoolExecutor(_THREADS) as pool:
        found = list(pool.map(opened, files))
    size = sum(file.stat().st_size for file in found) / 1e6
    say(f"{address}: {plural(len(found), 'file')}, {size:,.1f} MB, read where they lie")
    return found


def _matches(word: Path, say: Callable[[str], None]) -> Sequence[File]:
    """The local files that one input stands for."""
    if word.is_dir():
        found = hats_files(word)
        return _in_folder(word, say) if found is None else found
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
        say(f"{word}: {len(partitions)} of {plural(len(found), 'file')} read" + not_read(others))
        found = partitions
    if not found:
        raise JobError(
            "nothing matches",
            wanted=f"files like {word}",
            found="none",
            where=Path.cwd() if not word.is_absolute() else None,
        )
    return found


def _in_folder(folder: Path, say: Callable[[str], None]) -> list[Path]:
    """The input files in a folder; what else there is, is named."""
    inside = [path for path in sorted(folder.iterdir()) if path.name[0] not in "._"]
    found = [path for path in inside if _is_input(path)]
    known = set(found)
    others = [path for path in inside if path not in known]
    names = [path.name + "/" * path.is_dir() for path in others]
    if not found:
        raise JobError(
            "the folder holds no file that can be read",
            wanted=READ_FILES,
            found=", ".join(names[:10]) or "no files",
            where=folder,
            advice=next((advice for path in others[:10] if (advice := advice_for(path))), None),
        )
    if others:
        say(f"{folder}: {len(found)} of {plural(len(inside), 'file')} read" + not_read(names))
    return found


def _is_input(path: Path) -> bool:
    return _has_input_name(path) and not path.is_dir()


def _has_input_name(path: PurePath) -> bool:
    return path.name[0] not in "._" and (has_known_suffix(path) or is_archive(path))


def _identity(path: File) -> tuple[int, int] | str:
    """Return what identifies a file, by whatever path it is named."""
    if isinstance(path, RemoteFile):
        return str(path)
    try:
        status = path.stat()
    except OSError:
        return str(path.absolute())
    return status.st_dev, status.st_ino
