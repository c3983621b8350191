"""Which chunks of a run are done, by the receipts in its folder.

A chunk of several files that failed was divided, and one for which memory did not suffice was
halved, so that a run folder may hold receipts of parts of a planned chunk. What counts is therefore
which rows of which files a receipt names: these are done, whichever chunk they were in.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from catalogproc.cluster.parallel import map_parallel
from catalogproc.errors import InputError
from catalogproc.readers.chunks import Chunk
from catalogproc.rundir.manifest import FOLDERS
from catalogproc.rundir.receipts import FileRows, is_valid, read_receipt, receipt_files

if TYPE_CHECKING:
    from catalogproc.readers.pieces import Piece
    from catalogproc.rundir.manifest import RunIdentity

_OF_CHUNK = re.compile(r"(?:.*-)?([0-9a-f]{8})(?:[0-9a-f]{8}\.json|\.parquet)")
"""Names of receipts and parts; the group is the begin of the chunk's identifier."""


@dataclass(frozen=True)
class ChunkStates:
    """The chunks of a run, and which of them are done.

    Attributes
    ----------
    chunks
        All chunks, in the order of the files and of their rows.
    done, invalid
        Identifiers of the chunks with a valid receipt, and with an invalid one.
    """

    chunks: tuple[Chunk, ...]
    done: frozenset[str]
    invalid: frozenset[str]


def chunk_states(
    output: Path, identity: RunIdentity, chunks: Sequence[Chunk], divided: Container[str] = ()
) -> ChunkStates:
    """Return which chunks of a run are done.

    Parameters
    ----------
    output
        The run's folder.
    identity
        The run, whose job and model a valid receipt names.
    chunks
        The planned chunks.
    divided
        Identifiers of those that were divided; what is not done of them is listed as it was
        divided, as is what remains of a chunk some rows of which are done.
    """
    paths = receipt_files(output)
    planned = _by_file(piece for chunk in chunks for piece in chunk.pieces)

    def proven(path: Path) -> Chunk | None:
        """Return the chunk that a receipt proves to be done, None if it proves nothing."""
        try:
            receipt = read_receipt(path)
        except InputError:
            return None
        found = [_covered(one, planned) for one in receipt.each_file()]
        pieces = tuple(piece for piece in found if piece is not None)
        chunk, marks = Chunk(pieces), [piece.fingerprint for piece in pieces]
        hashes = identity.job_hash, identity.model_hash
        good = len(pieces) == len(found) and chunk.id == receipt.chunk_id
        return chunk if good and is_valid(receipt, output, *hashes, marks) else None

    proofs = [chunk for chunk in map_parallel(proven, paths) if chunk is not None]
    owners: dict[str, Chunk] = {}
    whole = {piece.id for pieces in planned.values() for piece in pieces}
    parts: dict[str, list[Piece]] = {}  # of planned pieces, by file
    # A worker that was believed dead may have finished a chunk that was divided meanwhile.
    for chunk in sorted(proofs, key=lambda one: (-len(one.pieces), -(one.rows or 0), one.id)):
        if any(piece.id in owners for piece in chunk.pieces):
            continue
        new = [piece for piece in chunk.pieces if piece.id not in whole]
        if any(_is_taken(piece, planned, owners, parts) for piece in new):
            continue
        owners.update((piece.id, chunk) for piece in chunk.pieces)
        for piece in new:
            parts.setdefault(piece.fingerprint, []).append(piece)
    listed = tuple(_listed(chunks, owners, parts, divided))
    done = frozenset(chunk.id for chunk in owners.values())
    known = {chunk.id for chunk in listed}
    return ChunkStates(listed, done, frozenset(p.stem for p in paths if p.stem in known) - done)


def _by_file(pieces: Iterable[Piece]) -> dict[str, list[Piece]]:
    found: dict[str, list[Piece]] = {}
    for piece in pieces:
        found.setdefault(piece.fingerprint, []).append(piece)
    return found


def _covered(rows: FileRows, planned: Mapping[str, Sequence[Piece]]) -> Piece | None:
    """Return the planned piece whose rows a receipt counts, or its part; None without one."""
    for piece in planned.get(rows.fingerprint, ()):
        if piece.rows is None:
            if rows.first_row == piece.first_row:
                return piece
        elif _within(rows.first_row, rows.rows_read, piece):
            return piece.part(rows.first_row, rows.rows_read)
    return None


def _within(first: int, count: int, piece: Piece) -> bool:
    end = piece.first_row + (piece.rows or 0)
    return piece.first_row <= first and first + count <= end


def _is_taken(
    piece: Piece,
    planned: Mapping[str, Sequence[Piece]],
    owners: Mapping[str, Chunk],
    parts: Mapping[str, Sequence[Piece]],
) -> bool:
    """Return whether rows of a part of a planned piece are done already."""
    before = [one for one in planned[piece.fingerprint] if one.id in owners]
    return any(_overlap(piece, one) for one in (*before, *parts.get(piece.fingerprint, ())))


def _overlap(one: Piece, other: Piece) -> bool:
    """Return whether two pieces of a file have rows in common."""
    if one.rows is None or other.rows is None:
        return True
    begin = max(one.first_row, other.first_row)
    return begin < min(one.first_row + one.rows, other.first_row + other.rows)


def _listed(
    chunks: Sequence[Chunk],
    owners: Mapping[str, Chunk],
    parts: Mapping[str, Sequence[Piece]],
    divided: Container[str],
) -> Iterator[Chunk]:
    """Yield the planned chunks; in place of one that is done in part, its parts."""
    given = set()
    for chunk in chunks:
        for leaf in _leaves(chunk, divided):
            for part in _parts(leaf, owners, parts):
                if part.id not in given:
                    given.add(part.id)
                    yield part


def _leaves(chunk: Chunk, divided: Container[str]) -> Iterator[Chunk]:
    """Yield the chunks into which one was divided, as the scheduler did."""
    parts = chunk.divided() if len(chunk.pieces) > 1 else chunk.halved(1)
    if chunk.id not in divided or len(parts) == 1:
        yield chunk
        return
    for part in parts:
        yield from _leaves(part, divided)


def _parts(
    chunk: Chunk, owners: Mapping[str, Chunk], parts: Mapping[str, Sequence[Piece]]
) -> Iterator[Chunk]:
    """Yield a chunk, or what is done of it and what remains."""
    known = {
        piece.id: [piece]
        if piece.id in owners
        else [one for one in parts.get(piece.fingerprint, ()) if _overlap(piece, one)]
        for piece in chunk.pieces
    }
    if not any(known.values()):
        yield chunk
        return
    for piece in chunk.pieces:
        place = piece.first_row
        for one in sorted(known[piece.id], key=lambda one: one.first_row):
            if one.first_row > place:
                yield Chunk((piece.part(place, one.first_row - place),))
            yield owners[one.id]
            place = max(place, one.first_row + (one.rows or 0))
        end = place if piece.rows is None else piece.first_row + piece.rows
        if not known[piece.id]:
            yield Chunk((piece,))
        elif place < end:
            yield Chunk((piece.part(place, end - place),))


def remove_leftovers(output: Path, chunks: Sequence[Chunk]) -> None:
    """Remove the receipts and parts of chunks that are not of a finished run.

    Where a chunk was divided, or a worker that was believed dead finished it, there may be
    such files; all their rows are in the parts of the run's chunks.

    Parameters
    ----------
    output
        The run's folder.
    chunks
        The run's chunks; each is done.
    """
    known = {chunk.id[:8] for chunk in chunks}
    for folder in reversed(FOLDERS):  # receipts first: none may be left without its parts
        for path in (output / folder).glob("[!.]*"):
            found = _OF_CHUNK.fullmatch(path.name)
            if found and found[1] not in known:
                path.unlink(missing_ok=True)
