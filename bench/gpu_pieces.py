"""A folder as a few files of limited size, and back: what a machine without network gives back.

Two sets of pieces alternate, and the list of the pieces of the last complete set is written last:
a machine that is taken away while a set is written leaves the one before.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from catalogproc.errors import InputError
from catalogproc.io.atomic import write_atomic
from catalogproc.io.hashes import sha256

LIST = "model.json"
SIZE = 15 * 2**20
"""Largest size of a piece, in bytes."""
MOST = 8
"""Largest number of pieces, of both sets."""
SETS = ("a", "b")


def write_pieces(folder: Path, output: Path, facts: dict[str, Any], size: int = SIZE) -> list[Path]:
    """Write the files of a folder as pieces, beside those of the call before.

    Parameters
    ----------
    folder
        The folder; its subfolders are left out.
    output
        Where the pieces and their list are written.
    facts
        Further content of the list.
    size
        Largest size of a piece, in bytes.

    Returns
    -------
    The pieces.

    Raises
    ------
    InputError
        The folder is too large.
    """
    whole = io.BytesIO()
    with tarfile.open(fileobj=whole, mode="w") as archive:
        for path in sorted(path for path in folder.iterdir() if path.is_file()):
            archive.add(path, path.name)
    content = whole.getbuffer()
    blocks = [bytes(content[start : start + size]) for start in range(0, len(content), size)]
    if len(blocks) * len(SETS) > MOST:
        raise InputError(
            "the folder does not fit into the pieces",
            wanted=f"up to {MOST // len(SETS) * size:,} bytes", found=f"{len(content):,}",
            where=folder,
        )  # fmt: skip
    last = json.loads((output / LIST).read_text())["set"] if (output / LIST).is_file() else SETS[1]
    name = SETS[1 - SETS.index(last)]
    output.mkdir(parents=True, exist_ok=True)
    for path in output.glob(f"model-{name}-*.part"):
        path.unlink()
    pieces = []
    for number, block in enumerate(blocks):
        path = output / f"model-{name}-{number}.part"
        write_atomic(path, block)
        pieces.append({"file": path.name, "sha256": sha256([block])})
    text = json.dumps({"set": name, "pieces": pieces, **facts}, indent=1) + "\n"
    write_atomic(output / LIST, text.encode())
    return [output / piece["file"] for piece in pieces]


def join_pieces(found: Path, folder: Path) -> dict[str, Any]:
    """Write the files of the last complete set into a folder, and return the list's content.

    Parameters
    ----------
    found
        Folder that holds the pieces, also in a subfolder.
    folder
        Where the files are written.

    Raises
    ------
    InputError
        There is no list of pieces, or a piece is missing or damaged.
    """
    lists = sorted(found.rglob(LIST))
    if len(lists) != 1:
        raise InputError(
            f"one {LIST} is needed", found=", ".join(map(str, lists)) or "none", where=found
        )
    listed: dict[str, Any] = json.loads(lists[0].read_text())
    content = b"".join(_checked(lists[0].parent, listed["pieces"]))
    folder.mkdir(parents=True, exist_ok=True)
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        archive.extractall(folder, filter="data")
    return listed


def _checked(folder: Path, pieces: list[dict[str, str]]) -> Iterator[bytes]:
    for piece in pieces:
        path = folder / piece["file"]
        if not path.is_file():
            raise InputError("a piece of the model is missing", where=path)
        block = path.read_bytes()
        if sha256([block]) != piece["sha256"]:
            raise InputError(
                "a piece of the model is damaged", wanted=piece["sha256"], found=sha256([block]),
                where=path,
            )  # fmt: skip
        yield block
