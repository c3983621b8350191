"""Which chunks of a run are done, by the receipts in its folder.

A chunk of several files that failed was divided, so that a run folder may hold receipts of parts
of a planned chunk. What counts is therefore which files a receipt names: a file with a valid
receipt is done, whichever chunk it was in.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterator, Mapping, Sequence
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
        Identifiers of those that were divided; what is not done of them is listed file by
        file, as is what remains of a chunk some files of which are done.
    """
    paths = receipt_files(output)
    pieces = (piece for chunk in chunks for piece in chunk.pieces)
    planned = {(piece.fingerprint, piece.first_row, piece.rows): piece for piece in pieces}

    def covered(rows: FileRows) -> Piece:
        """Return the piece whose rows a receipt counts; KeyError where there is none."""
        place = rows.fingerprint, rows.first_row
        return planned.get((*place, rows.rows_read)) or planned[*place, None]

    def proven(path: Path) -> Chunk | None:
        """Return the chunk that a receipt proves to be done, None if it proves nothing."""
        try:
            receipt = read_receipt(path)
            files = [covered(one) for one in receipt.each_file()]
        except (InputError, KeyError):
            return None
        chunk, marks = Chunk(tuple(files)), [piece.fingerprint for piece in files]
        hashes = identity.job_hash, identity.model_hash
        good = chunk.id == receipt.chunk_id and is_valid(receipt, output, *hashes, marks)
        return chunk if good else None

    proofs = [chunk for chunk in map_parallel(proven, paths) if chunk is not None]
    owners: dict[str, Chunk] = {}
    # A worker that was believed dead may have finished a chunk that was divided meanwhile.
    for chunk in sorted(proofs, key=lambda one: (-len(one.pieces), one.id)):
        if not any(piece.id in owners for piece in chunk.pieces):
            owners.update((piece.id, chunk) for piece in chunk.pieces)
    listed = tuple(_listed(chunks, owners, divided))
    done = frozenset(chunk.id for chunk in owners.values())
    known = {chunk.id for chunk in listed}
    return ChunkStates(listed, done, frozenset(p.stem for p in paths if p.stem in known) - done)


def _listed(
    chunks: Sequence[Chunk], owners: Mapping[str, Chunk], divided: Container[str]
) -> Iterator[Chunk]:
    """Yield the planned chunks; in place of one that is done in part, its parts."""
    given = set()
    for chunk in chunks:
        whole = chunk.id not in divided and not any(piece.id in owners for piece in chunk.pieces)
        for part in [chunk] if whole else [owners.get(p.id, Chunk((p,))) for p in chunk.pieces]:
            if part.id not in given:
                given.add(part.id)
                yield part


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
