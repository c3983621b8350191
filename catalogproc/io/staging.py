"""The folder of local copies, $CATALOGPROC_STAGE: runs at addresses, and unpacked ZIP archives.

A run whose output is at an address is written here and uploaded. Input at an address is read where
it lies (remote_file.py), except for ZIP archives.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath

from catalogproc.errors import InputError, plural
from catalogproc.io.archives import SCHEME, is_archive, unpack
from catalogproc.io.free_space import require_space
from catalogproc.io.remote import Address, Entry, is_address
from catalogproc.io.remote_file import File, RemoteFile

STAGE = "CATALOGPROC_STAGE"
THREADS = 8


def stage() -> Path:
    """Return the folder for staged files: $CATALOGPROC_STAGE, or one in the user's caches.

    On a cluster of several hosts it must be on storage that they share.
    """
    caches = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(os.environ.get(STAGE) or f"{caches}/catalogproc").expanduser()


def named(path: File) -> str:
    """Return a file's name as the user gave it: for one at an address or a staged one, the address.

    Parameters
    ----------
    path
        The file.
    """
    if isinstance(path, RemoteFile) or not path.is_relative_to(stage()):
        return str(path)
    scheme, *rest = path.relative_to(stage()).parts
    return f"{scheme}://{'/'.join(rest)}"


def located(name: str | Path) -> File:
    """Return the file of a name, as :func:`named` gives it.

    Parameters
    ----------
    name
        A path or an address.

    Raises
    ------
    CatalogprocError
        The address cannot be read, or has no file.
    """
    if not is_address(name):
        return Path(name).expanduser()
    if str(name).startswith(f"{SCHEME}://"):
        return _member(str(name).removeprefix(f"{SCHEME}://"))
    address = Address(str(name))
    found = address.files()
    if len(found) != 1:
        raise InputError("no such file at an address", found=plural(len(found), "file"), where=name)
    return RemoteFile.of(address, found[0])


def _member(name: str) -> Path:
    """The unpacked file of a ZIP archive, by the name that :func:`named` gives it."""
    path = stage() / SCHEME / name
    above = (Path("/", *parent.parts) for parent in PurePosixPath(name).parents)
    archive = next((parent for parent in above if is_archive(parent)), None)
    if not path.is_file() and archive is not None and archive.is_file():
        unpack(archive, stage())
    if not path.is_file():
        raise InputError(
            "the ZIP archive of a file is gone", wanted=f"/{name}", found="nothing", where=archive
        )
    return path


def staged_folder(address: Address) -> Path:
    """Return the local folder or file in which an address is staged.

    Parameters
    ----------
    address
        The address.
    """
    return stage().joinpath(*address.steps(address.path))


def fetch(address: Address, entries: Sequence[Entry]) -> list[Path]:
    """Stage files, unless a local file has the same size and time of change.

    Parameters
    ----------
    address
        The address.
    entries
        Some of its files.

    Returns
    -------
    list of Path
        The local files, in order.

    Raises
    ------
    CatalogprocError
        The remote side refuses, or there is too little space.
    """
    paths = [stage().joinpath(*address.steps(entry.path)) for entry in entries]
    missing = [
        (entry, path) for entry, path in zip(entries, paths, strict=True)
        if not is_current(path, entry)
    ]  # fmt: skip
    _check_space(address, sum(entry.size for entry, _ in missing))
    with ThreadPoolExecutor(THREADS) as pool:
        for _ in pool.map(lambda one: address.download(*one), missing):
            pass
    return paths


def is_current(path: Path, entry: Entry) -> bool:
    """Return whether a local file equals a remote one, by its size and time of change.

    Parameters
    ----------
    path
        The local file.
    entry
        The remote file.
    """
    try:
        status = path.stat()
    except OSError:
        return False
    return (status.st_size, status.st_mtime_ns) == (entry.size, entry.changed)


def _check_space(address: Address, needed: int) -> None:
    advice = (
        f"free some space, set ${STAGE} to a folder on a larger disk, or take fewer files at a time"
    )
    problem = "too little space to stage the files of an address"
    require_space(stage(), needed, problem, advice, where=address)
